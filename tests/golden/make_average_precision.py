"""Writes average_precision.json: what pycocotools says of some detections.

    python -m tests.golden.make_average_precision

needs pycocotools.
"""

import contextlib
import io
import json
from importlib.metadata import version
from typing import Any

import numpy as np

from tests.golden import average_precision as golden


def judged(case: golden.Case) -> dict[str, Any]:
    """Returns what pycocotools says: {metric: value or None} and lists with one for each class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    true, found = COCO(), COCO()
    for coco in (true, found):
        coco.dataset = {
            'images': [{'id': i} for i, _ in enumerate(case.pictures)],
            'categories': [{'id': c} for c in range(case.num_classes)],
            'annotations': [],
        }
    for i, p in enumerate(case.pictures):
        for box, label, crowd in zip(p.true_boxes, p.true_classes, p.crowd, strict=True):
            _add(true, i, box, label, iscrowd=int(crowd))
        for box, label, score in zip(p.boxes, p.classes, p.scores, strict=True):
            _add(found, i, box, label, iscrowd=0, score=float(score))
    with contextlib.redirect_stdout(io.StringIO()):
        true.createIndex()
        found.createIndex()
        judge = COCOeval(true, found, 'bbox')
        judge.params.maxDets = [1, 2, case.most]
        judge.evaluate()
        judge.accumulate()
    values = judge.eval['precision'][..., -1]  # [thresholds, recalls, classes, sizes]
    parts = (values[..., 0], values[0, ..., 0], values[5, ..., 0], *np.moveaxis(values, -1, 0)[1:])
    return {
        **{key: _mean(part) for key, part in zip(golden.KEYS, parts, strict=True)},
        'class_ap': [_mean(values[:, :, c, 0]) for c in range(case.num_classes)],
        'class_ap50': [_mean(values[0, :, c, 0]) for c in range(case.num_classes)],
    }


def _add(coco: Any, image: int, box: np.ndarray, label: int, **more: float) -> None:
    top, left, bottom, right = (float(edge) for edge in box)
    high, wide = bottom - top, right - left
    rows = coco.dataset['annotations']
    rows.append(
        {
            'id': len(rows) + 1,
            'image_id': image,
            'category_id': int(label),
            'bbox': [left, top, wide, high],
            'area': high * wide,
            **more,
        }
    )


def _mean(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def main() -> None:
    """Writes the file beside this one."""
    cases = {str(seed): judged(golden.case(seed)) for seed in range(golden.GOLDEN)}
    written = {'pycocotools': version('pycocotools'), 'cases': cases}
    golden.FILE.write_text(json.dumps(written) + '\n')


if __name__ == '__main__':
    main()
