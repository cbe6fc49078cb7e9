"""The numbers of reports, as text and as values for JSON."""

import math
from typing import Any

import numpy as np


def percent(value: float) -> str:
    """Returns a fraction as text, such as '98.61 %'; '-' if it is not finite."""
    return f'{100 * value:.2f} %' if math.isfinite(value) else '-'


def plain(value: Any) -> Any:
    """Returns a Python number, or None if there is none or it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
