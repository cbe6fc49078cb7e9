"""A detector's answers in the pixels of their pictures."""

import numpy as np

from data_sources import fitting
from data_sources.box_targets import Placement
from tasks.detection import Detection


def test_what_lies_beside_the_picture_in_its_frame_is_not_there():
    # A picture of 50 x 100 pixels in a frame of 100 x 100: its rows are 25 to 75 of the frame.
    size, frame = (50, 100), (100, 100)
    matrix = fitting.matrix(fitting.fit(size, frame), size, frame)
    prediction = {
        'boxes': np.float32([[0, 10, 20, 60], [30, 10, 60, 40], [10, 5, 40, 50], [0, 0, 0, 0]]),
        'scores': np.float32([0.9, 0.8, 0.7, 0]),
        'classes': np.int32([0, 1, 0, 0]),
    }
    placed = Detection(2, threshold=0.5).placed(prediction, matrix, size)
    np.testing.assert_allclose(placed['scores'], [0, 0.8, 0.7, 0], rtol=1e-6)
    boxes = [[0, 0, 0, 0], [5, 10, 35, 40], [0, 5, 15, 50], [0, 0, 0, 0]]
    np.testing.assert_allclose(placed['boxes'], boxes, atol=1e-5)
    # Nor is it in the rows by which an evaluation judges.
    placement = Placement().moved(Placement().default(size), matrix, frame)
    rows = {name: values[None] for name, values in prediction.items()}
    rows |= {'objects': np.zeros((1, 1, 6), np.float32), 'placement': placement[None]}
    collected = Detection(2).collected(rows)
    np.testing.assert_allclose(collected['boxes'][0], boxes, atol=1e-5)
    np.testing.assert_allclose(collected['scores'][0], placed['scores'], atol=1e-5)
    answer = Detection(2, threshold=0.0, least_score=0.05).answer(placed)
    np.testing.assert_array_equal(answer['objects'][:, 4], [1, 0])
