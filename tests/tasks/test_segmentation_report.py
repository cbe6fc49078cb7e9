"""The report of segmentation draws classes of any name."""

import numpy as np
from PIL import Image

from tasks.segmentation_report import SegmentationReport


def test_names_that_look_like_formulas_or_are_long(tmp_path, recwarn):
    names = ['$\\frac{1$', '$5 or $10', '\u732b', 'x' * 5000]
    sums = {'confusion': np.eye(4, dtype=np.int64), 'count': 1}
    report = SegmentationReport({'mean_iou': 1.0}, sums, {}, names, np.ones(1))
    [path] = report.pictures(tmp_path, 'test', 'a $title')
    with Image.open(path) as picture:
        assert max(picture.size) < 1500
    assert not [w for w in recwarn if 'Glyph' in str(w.message)]
