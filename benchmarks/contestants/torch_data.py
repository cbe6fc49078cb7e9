"""The usual PyTorch pipeline as a contestant: files, Pillow, torchvision's transforms, DataLoader.

Runs in a Python that has PyTorch and torchvision.
"""

from pathlib import Path

import channel


def import_torchvision(torch):
    """Returns torchvision.transforms, also where its compiled operators do not load.

    They are built for a GPU's PyTorch, and its import fails beside a CPU's unless two operators,
    which no transform of images uses, are declared.
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

    transforms = import_torchvision(torch)
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
    loader = make_loader(work)
    import PIL
    import torch
    import torchvision

    names = {'torch': torch, 'torchvision': torchvision, 'pillow': PIL}
    batches = (batch.numpy() for batch in loader)
    answers.serve(batches, versions={name: m.__version__ for name, m in names.items()})


if __name__ == '__main__':
    channel.run(compete)
