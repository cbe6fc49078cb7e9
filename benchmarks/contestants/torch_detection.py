"""torchvision's FCOS on its ResNet-18, as a user writes it, for images of one size.

Runs in a Python that has PyTorch and torchvision. The batch is float32 and normalized already, and
none of it is resized or padded.
"""

import channel

STRIDES = (8, 16, 32, 64, 128)


def create(work):
    """Returns the network of a contestant's work; see benchmarks/detection.py."""
    import torchvision
    from torchvision.models.detection import anchor_utils, backbone_utils, fcos
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    channels = work['channels']
    body = torchvision.models.resnet18()
    layers = {f'layer{i + 1}': str(i) for i in (1, 2, 3)}
    further = LastLevelP6P7(channels, channels)
    maps = backbone_utils.BackboneWithFPN(body, layers, [128, 256, 512], channels, further)
    anchors = anchor_utils.AnchorGenerator(
        tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES)
    )
    return fcos.FCOS(
        maps,
        work['classes'],
        min_size=work['height'],
        max_size=work['width'],
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        anchor_generator=anchors,
        head=fcos.FCOSHead(channels, 1, work['classes'], work['depth']),
        score_thresh=work['least_score'],
        topk_candidates=work['level_candidates'],
        size_divisible=1,
        _skip_resize=True,
    )


def objects(torch, work):
    """Boxes and labels of one image, as many and of such sizes as ours."""
    height, width, count = work['height'], work['width'], work['objects']
    sizes = (0.1 + 0.3 * torch.rand(count, 2)) * min(height, width)
    starts = torch.rand(count, 2) * (torch.tensor([width, height]) - sizes)
    labels = torch.randint(work['classes'], (count,))
    return {'boxes': torch.cat([starts, starts + sizes], 1), 'labels': labels}


def training(torch, network, images, targets):
    """Yields the images after each update by Adam."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    while True:
        optimizer.zero_grad()
        sum(network(images, targets).values()).backward()
        optimizer.step()
        yield images


def inference(torch, network, images, targets):
    """Yields the images after their boxes were found."""
    del targets
    network.eval()
    while True:
        with torch.inference_mode():
            network(images)
        yield images


class Shaped(list):
    """A list of images that tells its shape, as a batch does."""

    dtype = 'float32'

    @property
    def shape(self):
        """[images, channels, height, width]."""
        return (len(self), *self[0].shape)


def compete(answers, work):
    """Serves steps of the network in the work."""
    channel.use_cores(work['threads'])
    import torch
    import torchvision

    torch.set_num_threads(work['threads'])
    torch.manual_seed(0)
    shape = 3, work['height'], work['width']
    images = Shaped(torch.randn(shape) for _ in range(work['batch_size']))
    targets = [objects(torch, work) for _ in images]
    steps = {'train': training, 'predict': inference}[work['task']]
    batches = steps(torch, create(work), images, targets)
    versions = {'torch': torch.__version__, 'torchvision': torchvision.__version__}
    answers.serve(batches, versions=versions)


if __name__ == '__main__':
    channel.run(compete)
