"""PyTorch's training step or evaluation as a contestant, eager or by torch.compile.

Runs in a Python that has PyTorch. The batch is float32 and normalized already.
"""

import channel


def training(torch, network, images, labels):
    """Yields the labels after each update by Adam."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    while True:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        yield labels


def evaluation(torch, network, images, labels):
    """Yields the labels after each batch whose correct answers were counted."""
    network.eval()
    while True:
        with torch.inference_mode():
            (network(images).argmax(1) == labels).sum().item()
        yield labels


def compete(answers, work):
    """Serves steps of the network in the work."""
    channel.use_cores(work['threads'])
    import torch
    import torch_networks

    torch.set_num_threads(work['threads'])
    torch.manual_seed(0)
    shape = work['batch_size'], work['channels'], work['size'], work['size']
    images, labels = torch.randn(shape), torch.randint(work['classes'], shape[:1])
    network = torch_networks.create(work['model'], shape[1], work['classes'], work['small'])
    if work['compile']:
        network = torch.compile(network)
    steps = {'train': training, 'evaluate': evaluation}[work['task']]
    batches = steps(torch, network, images, labels)
    answers.serve(batches, versions={'torch': torch.__version__})


if __name__ == '__main__':
    channel.run(compete)
