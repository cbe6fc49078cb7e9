"""The names that PyTorch's libraries give to the layers of the networks here.

There are three layouts: 'torchvision', 'timm' and 'huggingface' (transformers). For models that a
library has as well, a table maps the path of each layer here to its module there, in the order of
the network. torchvision and timm agree on ResNet and DenseNet.
"""

import re
from collections.abc import Iterator

import models
from errors import UserError
from models.alexnet import AlexNet
from models.densenet import BLOCKS as DENSENET_BLOCKS
from models.densenet import DenseNet
from models.network import Network
from models.resnet import BLOCKS as RESNET_BLOCKS
from models.resnet import ResNet
from models.vgg import CONVOLUTIONS as VGG_CONVOLUTIONS
from models.vgg import VGG

LAYOUTS = {
    AlexNet: ('torchvision',),
    VGG: ('torchvision', 'timm'),
    ResNet: ('torchvision', 'timm', 'huggingface'),
    DenseNet: ('torchvision', 'timm'),
}
# The layer that reads a flattened map, and the height and width of that map.
FLATTENED = {AlexNet: ('dense1', 6), VGG: ('dense1', 7)}


def known() -> list[str]:
    """Returns the names of the models that other libraries have as well."""
    return [name for name in models.names() if type(_network(name)) in LAYOUTS]


def layouts(model: str) -> tuple[str, ...]:
    """Returns the layouts of a model.

    Raises:
      UserError: no other library has this model.
    """
    network = _network(model)
    if type(network) not in LAYOUTS:
        raise UserError(
            f'{model} exists in this project only; models that PyTorch libraries have as well: '
            f'{", ".join(known())}.'
        )
    return LAYOUTS[type(network)]


def modules(model: str, layout: str) -> dict[str, str]:
    """Returns {path here: module there}, such as {'stage1_block1/conv1': 'layer1.0.conv1'}.

    Raises:
      UserError: the library has no such model.
    """
    if layout not in layouts(model):
        raise UserError(
            f'{layout} has no {model}: use one of the layouts {", ".join(layouts(model))}.'
        )
    network = _network(model)
    if isinstance(network, AlexNet):
        return _alexnet()
    if isinstance(network, VGG):
        return _vgg(network.depth, network.normalization == 'batch', layout)
    if isinstance(network, DenseNet):
        return _densenet(network.depth)
    return (_huggingface_resnet if layout == 'huggingface' else _resnet)(network.depth)


def _network(model: str) -> Network:
    return models.create(model, num_classes=0)


def _alexnet() -> dict[str, str]:
    # The numbers count ReLU, pooling and dropout as well.
    return {
        'conv1': 'features.0',
        'conv2': 'features.3',
        'conv3': 'features.6',
        'conv4': 'features.8',
        'conv5': 'features.10',
        'dense1': 'classifier.1',
        'dense2': 'classifier.4',
        'head': 'classifier.6',
    }


def _vgg(depth: int, batch_norm: bool, layout: str) -> dict[str, str]:
    names, i = {}, 0
    for block, count in enumerate(VGG_CONVOLUTIONS[depth], start=1):
        for j in range(1, count + 1):
            names[f'block{block}_conv{j}'] = f'features.{i}'
            if batch_norm:
                names[f'block{block}_norm{j}'] = f'features.{i + 1}'
            i += 3 if batch_norm else 2  # with the ReLU
        i += 1  # the pooling
    if layout == 'timm':
        dense = ('pre_logits.fc1', 'pre_logits.fc2', 'head.fc')
    else:
        dense = ('classifier.0', 'classifier.3', 'classifier.6')
    return names | dict(zip(('dense1', 'dense2', 'head'), dense, strict=True))


def _resnet(depth: int) -> dict[str, str]:
    names = {'stem/conv': 'conv1', 'stem/norm': 'bn1'}
    for i, j, convolutions, projected in _resnet_blocks(depth):
        ours, theirs = f'stage{i}_block{j}', f'layer{i}.{j - 1}'
        for k in range(1, convolutions + 1):
            names[f'{ours}/conv{k}'] = f'{theirs}.conv{k}'
            names[f'{ours}/norm{k}'] = f'{theirs}.bn{k}'
        if projected:
            names[f'{ours}/shortcut_conv'] = f'{theirs}.downsample.0'
            names[f'{ours}/shortcut_norm'] = f'{theirs}.downsample.1'
    return names | {'head': 'fc'}


def _huggingface_resnet(depth: int) -> dict[str, str]:
    start = 'resnet.embedder.embedder'
    names = {'stem/conv': f'{start}.convolution', 'stem/norm': f'{start}.normalization'}
    for i, j, convolutions, projected in _resnet_blocks(depth):
        ours, theirs = f'stage{i}_block{j}', f'resnet.encoder.stages.{i - 1}.layers.{j - 1}'
        if projected:
            names[f'{ours}/shortcut_conv'] = f'{theirs}.shortcut.convolution'
            names[f'{ours}/shortcut_norm'] = f'{theirs}.shortcut.normalization'
        for k in range(1, convolutions + 1):
            names[f'{ours}/conv{k}'] = f'{theirs}.layer.{k - 1}.convolution'
            names[f'{ours}/norm{k}'] = f'{theirs}.layer.{k - 1}.normalization'
    return names | {'head': 'classifier.1'}


def _resnet_blocks(depth: int) -> Iterator[tuple[int, int, int, bool]]:
    """Yields (stage, block, number of convolutions, whether the shortcut is projected)."""
    counts, bottleneck = RESNET_BLOCKS[depth]
    for i, count in enumerate(counts, start=1):
        for j in range(1, count + 1):
            yield i, j, 3 if bottleneck else 2, j == 1 and (i > 1 or bottleneck)


def _densenet(depth: int) -> dict[str, str]:
    names = {'stem/conv': 'features.conv0', 'stem/norm': 'features.norm0'}
    counts, _ = DENSENET_BLOCKS[depth]
    for i, count in enumerate(counts, start=1):
        for j in range(1, count + 1):
            for layer in ('norm1', 'conv1', 'norm2', 'conv2'):
                theirs = f'features.denseblock{i}.denselayer{j}.{layer}'
                names[f'block{i}_layer{j}/{layer}'] = theirs
        if i < len(counts):
            for layer in ('norm', 'conv'):
                names[f'transition{i}/{layer}'] = f'features.transition{i}.{layer}'
    return names | {'norm': 'features.norm5', 'head': 'classifier'}


def canonical(key: str) -> str:
    """Returns the current name of a tensor from an older or headless network.

    torchvision's published DenseNets have 'denselayer1.norm.1.weight' for '...norm1.weight', and
    transformers' ResNetModel, which has no head, omits the prefix 'resnet.'.
    """
    key = re.sub(r'(denselayer\d+\.(?:norm|conv))\.(\d\.)', r'\1\2', key)
    return re.sub(r'^(embedder\.embedder|encoder\.stages)\.', r'resnet.\1.', key)
