"""The networks of torchvision, timm and transformers, to compare the ones here with.

Needs PyTorch: pip install torch torchvision timm transformers. Imported by make_parity.py and by
tests/models/test_torch_parity.py alone.
"""

import sys
import warnings

import numpy as np
import torch

from models.pretrained import torch_names
from models.resnet import BLOCKS as RESNET_BLOCKS

WIDTHS = (64, 128, 256, 512)  # filters of the four stages of a ResNet


def _import_torchvision():
    """Imports torchvision, also one whose compiled operators do not fit the installed torch.

    It declares `nms` at import, which none of the networks here uses.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith('torchvision')]:
            del sys.modules[name]
        library = torch.library.Library('torchvision', 'DEF')
        library.define('nms(Tensor boxes, Tensor scores, float threshold) -> Tensor')
        library.define('qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor')
        import torchvision

        torchvision.declared_for_import = library  # it lasts as long as something holds it
    return torchvision


def create(model: str, layout: str, num_classes: int = 1000) -> torch.nn.Module:
    """Returns the library's network, in evaluation mode, without dropout."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # what the libraries say of each other is not our business
        torchvision = _import_torchvision()  # timm and transformers import it as well
        if layout == 'torchvision':
            options = {} if model.startswith(('resnet', 'densenet')) else {'dropout': 0.0}
            network = getattr(torchvision.models, model)(num_classes=num_classes, **options)
        elif layout == 'timm':
            import timm

            network = timm.create_model(model, num_classes=num_classes, drop_rate=0.0)
        else:
            network = _huggingface_resnet(int(model.removeprefix('resnet')), num_classes)
    return network.eval()


def _huggingface_resnet(depth: int, num_classes: int) -> torch.nn.Module:
    import transformers

    counts, bottleneck = RESNET_BLOCKS[depth]
    config = transformers.ResNetConfig(
        layer_type='bottleneck' if bottleneck else 'basic',
        depths=list(counts),
        embedding_size=WIDTHS[0],
        hidden_sizes=[width * (4 if bottleneck else 1) for width in WIDTHS],
        num_labels=num_classes,
    )
    return transformers.ResNetForImageClassification(config)


def load(network: torch.nn.Module, state: dict[str, np.ndarray]) -> None:
    """Loads a state dict strictly."""
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    network.load_state_dict(tensors, strict=True)


def with_counters(network: torch.nn.Module, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the state dict with the counters of batches, which the formula does not make."""
    integers = {k: v.numpy() for k, v in network.state_dict().items() if not v.is_floating_point()}
    return integers | state


def to_torch(images: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """[b, h, w, c] -> [b, c, h, w]."""
    return torch.tensor(images.transpose(0, 3, 1, 2).copy()).to(dtype)


def logits(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Returns [b, classes]."""
    outputs = network(images)
    return outputs if isinstance(outputs, torch.Tensor) else outputs.logits


def stages(
    network: torch.nn.Module, model: str, layout: str, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the stages as the networks here name them, [b, h, w, c] or [b, units], and 'logits'.

    Args:
      images: [b, h, w, c]; converted to the network's dtype.
    """
    found, hooks = {}, []
    for stage, module in stage_modules(network, model, layout).items():

        def keep(_module, _inputs, output, stage=stage):
            found[stage] = output.detach().clone()

        hooks.append(network.get_submodule(module).register_forward_hook(keep))
    with torch.no_grad():
        dtype = next(network.parameters()).dtype
        outputs = logits(network, to_torch(images, dtype)).numpy()
    for hook in hooks:
        hook.remove()
    if 'norm' in found:
        found['norm'] = found['norm'].relu()  # DenseNet's last ReLU is no module in torchvision
    return {name: _from_torch(value) for name, value in found.items()} | {'logits': outputs}


def sgd_step(
    network: torch.nn.Module, images: np.ndarray, labels: np.ndarray, learning_rate: float
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Makes one step of SGD on the mean cross-entropy, in training mode and float64.

    Args:
      images: [b, h, w, c].
      labels: [b].

    Returns:
      Gradients and new batch statistics by name, and the loss before and after.
    """
    network = network.double().train()
    images, labels = to_torch(images, torch.float64), torch.tensor(labels)
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    before = torch.nn.functional.cross_entropy(network(images), labels)
    before.backward()
    tensors = {key: parameter.grad for key, parameter in network.named_parameters()}
    tensors |= {k: v.clone() for k, v in network.named_buffers() if v.is_floating_point()}
    optimizer.step()
    after = torch.nn.functional.cross_entropy(network(images), labels)
    return {key: t.numpy() for key, t in tensors.items()}, [before.item(), after.item()]


def _from_torch(stage: torch.Tensor) -> np.ndarray:
    if stage.ndim == 4 and stage.shape[2:] == (1, 1) and stage.shape[1] == 4096:
        stage = stage.flatten(1)  # timm's VGG has convolutions for dense layers
    return (stage.permute(0, 2, 3, 1) if stage.ndim == 4 else stage).numpy()


def stage_modules(network: torch.nn.Module, model: str, layout: str) -> dict[str, str]:
    """Returns stage -> module whose output it is."""
    four = range(1, 5)
    if model == 'alexnet':
        features = {'conv1': 1, 'pool1': 2, 'conv2': 4, 'pool2': 5, 'conv3': 7, 'conv4': 9}
        features |= {'conv5': 11, 'pool5': 12}
        found = {stage: f'features.{i}' for stage, i in features.items()}
        return found | {'dense1': 'classifier.2', 'dense2': 'classifier.5'}
    if model.startswith('vgg'):
        pools = [i for i, m in enumerate(network.features) if isinstance(m, torch.nn.MaxPool2d)]
        found = {}
        for i, at in enumerate(pools, start=1):
            found |= {f'block{i}': f'features.{at - 1}', f'pool{i}': f'features.{at}'}
        dense = ('classifier.1', 'classifier.4')
        if layout == 'timm':
            dense = ('pre_logits.act1', 'pre_logits.act2')
        return found | dict(zip(('dense1', 'dense2'), dense, strict=True))
    if model.startswith('densenet'):
        stem = 'features.relu0' if layout == 'torchvision' else 'features.norm0'
        blocks = {f'block{i}': f'features.denseblock{i}' for i in four}
        return {'stem': stem, **blocks, 'norm': 'features.norm5'}
    stem = {'torchvision': 'relu', 'timm': 'act1', 'huggingface': 'resnet.embedder.embedder'}
    name = 'resnet.encoder.stages.{}' if layout == 'huggingface' else 'layer{}'
    first = 0 if layout == 'huggingface' else 1
    stages = {f'stage{i}': name.format(i - 1 + first) for i in four}
    return {'stem': stem[layout], **stages}


def every_layout() -> list[tuple[str, str]]:
    """Returns (model, layout) for everything that there is to compare with."""
    return [
        (model, layout) for model in torch_names.known() for layout in torch_names.layouts(model)
    ]
