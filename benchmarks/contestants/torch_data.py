"""The usual PyTorch pipeline as a contestant: files, Pillow, torchvision's transforms, DataLoader.

Runs in a Python that has PyTorch and torchvision.
"""

from importlib import metadata
from pathlib import Path

import channel


def import_transforms(torch):
    """Returns torchvision.transforms.

    Its operators are built for a GPU's PyTorch, and beside a CPU's its import fails unless two of
    them, which no transform of images uses, are declared.
    """
    try:
        from torchvision import transforms
    except RuntimeError:
        library = torch.library.Library('torchvision', 'DEF')
        library.define('nms(Tensor a, Tensor b, float c) -> Tensor')
        library.define('qnms(Tensor a, Tensor b, float c) -> Tensor')
        from torchvision import transforms
    return transforms


def make_loader(work):
    """Returns an endless DataLoader of uint8 [batch_size, 3, size, size]."""
    import torch
    from PIL import Image

    transforms = import_transforms(torch)
    crop = transforms.RandomResizedCrop(work['size'], work['scale'], work['ratio'])
    flip, to_tensor = transforms.RandomHorizontalFlip(), transforms.PILToTensor()
    transform = transforms.Compose([crop, flip, to_tensor])
    files = sorted(Path(work['pictures']).glob('*/*'))

    class Pictures(torch.utils.data.Dataset):
        """Files read and decoded whole, as ImageFolder does."""

        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            with open(files[index], 'rb') as file:
                return transform(Image.open(file).convert('RGB'))

    class ForEver(torch.utils.data.Sampler):
        """One random order after the other."""

        def __iter__(self):
            while True:
                yield from torch.randperm(len(files)).tolist()

    return torch.utils.data.DataLoader(
        Pictures(),
        work['batch_size'],
        sampler=ForEver(),
        num_workers=work['threads'],
        multiprocessing_context='fork',  # these classes do not pickle
    )


def compete(answers, work):
    """Serves batches of uint8 [batch_size, 3, size, size]."""
    batches = (batch.numpy() for batch in make_loader(work))
    versions = {name: metadata.version(name) for name in ('torch', 'torchvision', 'pillow')}
    answers.serve(batches, versions=versions)


if __name__ == '__main__':
    channel.run(compete)
