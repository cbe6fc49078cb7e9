"""A whole training on images in memory, as a user of PyTorch writes it. PyTorch and Pillow only.

The data set is torchvision.datasets.MNIST in short: idx files read into one tensor, each item made
a Pillow image and sent through RandomAffine, ToTensor and Normalize. The only argument is, in
JSON, our configuration and what benchmarks/job.py adds to it.
"""

import json
import math
import random
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


def read_idx(path):
    """Returns the uint8 array of an idx file."""
    content = path.read_bytes()
    dimensions = content[3]
    shape = struct.unpack(f'>{dimensions}I', content[4 : 4 + 4 * dimensions])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


class IdxDataset(Dataset):
    """Images of idx files as normalized tensors, and labels."""

    def __init__(self, recipe, split):
        start = f'{recipe["folder"]}/{split}'
        self.images = torch.from_numpy(read_idx(Path(f'{start}-images')).copy())
        self.labels = torch.from_numpy(read_idx(Path(f'{start}-labels')).astype(np.int64))
        data = recipe['data']
        self.mean, self.std = (torch.tensor(data[n])[:, None, None] for n in ('mean', 'std'))
        self.augment = recipe['augment'] if split == 'train' else None

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image, label = Image.fromarray(self.images[index].numpy()), int(self.labels[index])
        if self.augment:
            image = random_affine(image, *(self.augment[n] for n in ('shift', 'rotate', 'scale')))
        pixels = torch.from_numpy(np.array(image)).view(image.height, image.width, -1)
        pixels = pixels.permute(2, 0, 1).contiguous().float().div(255)
        return pixels.sub_(self.mean).div_(self.std), label


def random_affine(image, shift, rotate, scale):
    """Shifts up to `shift` pixels, rotates up to `rotate` degrees, zooms by up to 1 + `scale`.

    Pillow image to Pillow image, bilinear, black around it.
    """
    angle = math.radians(random.uniform(-rotate, rotate))
    zoom = math.exp(random.uniform(-1, 1) * math.log1p(scale))
    dx, dy = (random.uniform(-shift, shift) for _ in range(2))
    centre_x, centre_y = image.width / 2, image.height / 2
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix = [cos, sin, 0.0, -sin, cos, 0.0]
    matrix[2] = centre_x - cos * (centre_x + dx) - sin * (centre_y + dy)
    matrix[5] = centre_y + sin * (centre_x + dx) - cos * (centre_y + dy)
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return image.transform(image.size, affine, matrix, bilinear)


def evaluate(network, loader):
    """Returns the accuracy."""
    network.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loader:
            correct += (network(images).argmax(1) == labels).sum().item()
    return correct / len(loader.dataset)


def make_loaders(recipe):
    """Yields the loaders of train, validation and test."""
    workers = {'num_workers': recipe['workers'], 'persistent_workers': recipe['workers'] > 0}
    yield DataLoader(IdxDataset(recipe, 'train'), recipe['batch_size'], shuffle=True, **workers)
    for split in ('validation', 'test'):
        yield DataLoader(IdxDataset(recipe, split), recipe['eval_batch_size'], **workers)


def train(recipe):
    """Trains, prints the validation accuracy after each epoch, and tests once."""
    import torch_networks

    random.seed(recipe['seed'])
    torch.manual_seed(recipe['seed'])
    train_loader, validation_loader, test_loader = make_loaders(recipe)
    network = torch_networks.create(recipe['model']['name'], 1, recipe['classes'], True)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe['optimizer']['learning_rate'])
    epochs, warmup = round(recipe['epochs']), recipe['schedule']['warmup'] * len(train_loader)
    steps = epochs * len(train_loader)

    def rate(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    loss_of, step = torch.nn.CrossEntropyLoss(), 0
    for epoch in range(1, epochs + 1):
        network.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = loss_of(network(images), labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            step += 1
            if step % 100 == 1:
                print(f'step {step}/{steps}  loss {loss.item():.3f}', flush=True)
        accuracy = evaluate(network, validation_loader)
        print(f'epoch {epoch}: validation accuracy {accuracy:.2%}', flush=True)
    print(f'test accuracy {evaluate(network, test_loader):.2%}', flush=True)
    torch.save(network.state_dict(), Path(recipe['workdir']) / 'network.pt')


if __name__ == '__main__':
    train(json.loads(sys.argv[1]))
