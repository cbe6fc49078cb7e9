"""The networks of the contests as a user of PyTorch writes them; imports nothing but PyTorch.

The same layers in the same order as those in models/, with PyTorch's own defaults.
"""

from torch import nn

FILTERS = (64, 128, 256, 512)
VGG11 = (64, 'pool', 128, 'pool', 256, 256, 'pool', 512, 512, 'pool', 512, 512, 'pool')
BLOCKS = {'resnet18': ((2, 2, 2, 2), 1), 'resnet50': ((3, 4, 6, 3), 4)}


def create(name, channels, classes, small):
    """Returns a network by its name in models/registry.py.

    `small` is whether its first layers are those for small images (stem=cifar).
    """
    plain = {'lenet': lenet, 'deep_cnn': deep_cnn, 'vgg11_bn': vgg11_bn}
    if name in plain:
        return plain[name](channels, classes)
    return ResNet(*BLOCKS[name], channels, classes, small)


def lenet(channels, classes):
    """LeNet-5 for 28x28."""
    layers = [nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    layers += [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(84, classes))


def deep_cnn(channels, classes):
    """Two blocks of convolution, batch norm, ReLU and pooling, for 28x28."""
    layers = []
    for before, filters in ((channels, 16), (16, 32)):
        layers += [nn.Conv2d(before, filters, 5, padding=2), nn.BatchNorm2d(filters)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(7 * 7 * 32, classes))


def vgg11_bn(channels, classes):
    """VGG-11 with batch norm for small images: no first pooling, two dense layers of 512."""
    layers = []
    for i, filters in enumerate(VGG11):
        if filters != 'pool':
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters)]
            layers += [nn.ReLU(inplace=True)]
            channels = filters
        elif i > 1:
            layers += [nn.MaxPool2d(2)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += [nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, classes))


class Block(nn.Module):
    """relu(x + branch(x)): two 3x3 convolutions, or with an expansion 1x1, 3x3, 1x1."""

    def __init__(self, channels, filters, stride, expansion):
        super().__init__()
        out = filters * expansion
        shapes = [(filters, 3, stride), (filters, 3, 1)]
        if expansion > 1:
            shapes = [(filters, 1, 1), (filters, 3, stride), (out, 1, 1)]
        layers, before = [], channels
        for features, window, step in shapes:
            layers += [nn.Conv2d(before, features, window, step, window // 2, bias=False)]
            layers += [nn.BatchNorm2d(features), nn.ReLU(inplace=True)]
            before = features
        self.branch = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Identity()
        if stride > 1 or channels != out:
            convolution = nn.Conv2d(channels, out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(out))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        """[b, c, h, w] -> [b, c', h', w']."""
        return self.relu(self.branch(x) + self.shortcut(x))


class ResNet(nn.Sequential):
    """A stem, four stages of blocks, global average pooling, a dense layer."""

    def __init__(self, counts, expansion, channels, classes, small):
        window, stride = (3, 1) if small else (7, 2)
        convolution = nn.Conv2d(channels, 64, window, stride, window // 2, bias=False)
        layers, before = [convolution, nn.BatchNorm2d(64), nn.ReLU()], 64
        if not small:
            layers += [nn.MaxPool2d(3, 2, 1)]
        for i, (count, filters) in enumerate(zip(counts, FILTERS, strict=True)):
            for j in range(count):
                layers += [Block(before, filters, 2 if i and not j else 1, expansion)]
                before = filters * expansion
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
