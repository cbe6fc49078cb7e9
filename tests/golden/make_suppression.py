"""Writes suppression.json: what torchvision's batched_nms keeps of some boxes.

    python -m tests.golden.make_suppression

needs PyTorch and torchvision.
"""

import json

import torch
import torchvision

from tests.golden import suppression


def kept(case: suppression.Case) -> list[int]:
    """Returns the rows that torchvision keeps, the best first."""
    found = torchvision.ops.batched_nms(
        torch.tensor(case.boxes),
        torch.tensor(case.scores),
        torch.tensor(case.classes),
        case.iou,
    )
    return found.tolist()


def main() -> None:
    """Writes the file beside this one."""
    cases = {str(seed): kept(suppression.case(seed)) for seed in range(suppression.GOLDEN)}
    written = {'torch': torch.__version__, 'torchvision': torchvision.__version__, 'kept': cases}
    suppression.FILE.write_text(json.dumps(written) + '\n')


if __name__ == '__main__':
    main()
