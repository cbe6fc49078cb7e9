"""The fields of the configuration that belong to detection."""

from field import Field

FIELDS = (
    Field('head.channels', 64, 'Channels of the feature pyramid and of the towers on it.', low=8,
          high=1024),
    Field('head.depth', 2, 'Convolutions of each tower: one for classes, one for boxes; 4 in the '
          'paper.', low=0, high=16),
    Field('head.strides', (), 'Strides of the maps of the backbone on which objects are found. (): '
          '8, 16 and 32, or its coarsest three.', low=1, high=1024, items=int),
    Field('head.extra', 0, 'Further maps, each of twice the stride of the one before, for objects '
          'larger than 8 times the coarsest stride; 2 in the paper.', low=0, high=4),
    Field('data.max_boxes', 100, 'Number of boxes that a picture has at most.', low=1, high=10_000),
    Field('detection.alpha', 0.25, 'Focal loss: weight of the class of an object; that of '
          'the others is 1 less it.', low=0, high=1, traced=True),
    Field('detection.focusing', 2.0, 'Focal loss: how much less places count that are right '
          'already.',
          low=0, high=100, traced=True),
    Field('detection.least_score', 0.05, 'Score below which nothing is an answer, in [0, 1].',
          low=0, below=1),
    Field('detection.nms_iou', 0.6, 'IoU with a better box of the same class above which a box is '
          'dropped.', above=0, high=1),
    Field('detection.candidates', 1000, 'Number of places with the best scores from which boxes '
          'are chosen.', low=1, high=10_000),
    Field('detection.most', 100, 'Number of boxes that an answer has at most.', low=1, high=10_000),
)  # fmt: skip
