"""A U-Net on ResNet-18 as a user of PyTorch writes it; the same layers as ours.

Runs in a Python that has PyTorch. The batch is float32 and normalized already.
"""

import channel


def create(work):
    """Returns the network of a contestant's work; see benchmarks/segmentation.py."""
    import torch
    from torch import nn
    from torch_networks import Block

    filters = [round(count * work['width']) for count in (64, 128, 256, 512)]

    class UNet(nn.Module):
        """The stages of a ResNet, joined from the coarsest to the finest."""

        def __init__(self):
            super().__init__()
            imagenet = work['stem'] == 'imagenet'
            window = 7 if imagenet else 3
            first = nn.Conv2d(work['channels'], filters[0], window, 2, window // 2, bias=False)
            self.stem = nn.Sequential(first, nn.BatchNorm2d(filters[0]), nn.ReLU())
            self.pool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
            stages, before = [], filters[0]
            for i, count in enumerate(filters):
                blocks = [Block(before, count, 2 if i else 1, 1), Block(count, count, 1, 1)]
                stages.append(nn.Sequential(*blocks))
                before = count
            self.stages = nn.ModuleList(stages)
            if imagenet:
                skips = [filters[2], filters[1], filters[0], filters[0], 0]
            else:  # the stem is not pooled: stage 1 is the last map at its stride
                skips = [filters[2], filters[1], filters[0], 0]
            widths = [work['head_width'] * min(2**i, 16) for i in reversed(range(len(skips)))]
            blocks = []
            for skip, width in zip(skips, widths, strict=True):
                blocks.append(nn.Sequential(*double(before + skip, width)))
                before = width
            self.blocks = nn.ModuleList(blocks)
            self.logits = nn.Conv2d(before, work['classes'], 1)

        def forward(self, x):
            maps = [self.stem(x)]
            x = self.pool(maps[0])
            if x is maps[0]:
                maps = []
            for stage in self.stages:
                x = stage(x)
                maps.append(x)
            for block, skip in zip(self.blocks, [*reversed(maps[:-1]), None], strict=True):
                x = nn.functional.interpolate(x, scale_factor=2, mode='nearest')
                x = block(x if skip is None else torch.cat([x, skip], 1))
            return self.logits(x)

    def double(channels, width):
        layers = []
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        return layers

    return UNet()


def compete(answers, work):
    """Serves steps of the network in the work."""
    channel.use_cores(work['threads'])
    import torch
    import torch_step

    torch.set_num_threads(work['threads'])
    torch.manual_seed(0)
    side, count = work['size'], work['batch_size']
    images = torch.randn(count, work['channels'], side, side)
    labels = torch.randint(work['classes'], (count, side, side))
    steps = {'train': torch_step.training, 'evaluate': torch_step.evaluation}[work['task']]
    batches = steps(torch, create(work), images, labels)
    answers.serve(batches, versions={'torch': torch.__version__})


if __name__ == '__main__':
    channel.run(compete)
