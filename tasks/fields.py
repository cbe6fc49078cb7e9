"""Fields that several tasks share: a field has one meaning, whatever the task."""

from field import Field

LABEL_SMOOTHING = Field(
    'label_smoothing',
    0.0,
    'Fraction of the target, in [0, 1), that is spread evenly over all classes.',
    low=0,
    below=1,
    traced=True,
    regularizer=True,
)
