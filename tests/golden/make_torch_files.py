"""Makes torch_zip.pth and torch_legacy.pth: the same small state dict in both of torch's formats.

    python -m tests.golden.make_torch_files

It needs torch (made with 2.13.0). tests/models/test_torch_files.py says what has to be in them.
"""

from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent


def main() -> None:
    numbers = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = OrderedDict(
        {
            'module.whole': numbers,
            'module.transposed': numbers.T,  # shares its storage, as do the next two
            'module.rows': numbers[1:],
            'module.every_other': numbers[:, ::2],
            'module.expanded': torch.ones(1).expand(2, 3),
            'module.parameter': torch.nn.Parameter(torch.full((2,), 0.5)),
            'module.half': numbers[0].half(),
            'module.bfloat16': numbers[0].bfloat16(),
            'module.double': numbers[0].double() / 3,
            'module.counter': torch.tensor(7),
            'module.empty': torch.zeros(0, 3),
        }
    )
    state._metadata = OrderedDict({'': {'version': 1}})  # as Module.state_dict() has it
    checkpoint = {'epoch': 3, 'optimizer': {'lr': 0.1, 'groups': [1]}, 'state_dict': state}
    torch.save(checkpoint, HERE / 'torch_zip.pth')
    torch.save(checkpoint, HERE / 'torch_legacy.pth', _use_new_zipfile_serialization=False)


if __name__ == '__main__':
    main()
