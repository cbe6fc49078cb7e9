"""The part "filters": the kernels of each layer, and statistics of them."""

import numpy as np

from inspection import filters
from tools.inspect.output import named
from tools.inspect.work import Work


def write(work: Work) -> None:
    """Writes a sheet of the first convolution's kernels."""
    for layer in work.opened.trace.layers:
        if layer.kind == 'convolution':
            kernels = work.opened.variables['params']
            for part in layer.name.split('/'):
                kernels = kernels[part]
            sheet = filters.first(np.asarray(kernels['kernel']), layer.name)
            work.save(named('filters', layer.name), sheet, f'the kernels of {layer.name}')
            return
