"""What a device could do at best, and how near a program comes: plain numbers, no JAX.

The roofline of Williams, Waterman and Patterson 2009: a program that needs so many floating-point
operations and so many bytes of memory for each image reaches at most

    min(peak FLOP/s / FLOPs, bandwidth / bytes)

images per second. Bytes are those at the borders of fused operations, as XLA counts them. What
caches keep between two operations need not be moved to memory, so a fraction above 1 is possible.
"""

import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """What one call of a compiled program costs."""

    flops: float  # floating-point operations
    bytes: float | None  # read from and written to memory; None where XLA does not say
    model_flops: float  # of the network's convolutions and dense layers alone, by arithmetic

    def times(self, calls: int) -> 'ProgramCost':
        """Returns the cost of several calls."""
        moved = None if self.bytes is None else self.bytes * calls
        return ProgramCost(self.flops * calls, moved, self.model_flops * calls)


def count(cost: dict[str, float] | None, text: str, model_flops: float) -> ProgramCost:
    """Returns a compiled program's cost.

    On a GPU, XLA's cost analysis counts a call of cuDNN or cuBLAS as nothing. Where it reports
    less work than the network's own layers do, these calls are added: their bytes from the
    text, their operations from the layers. `cost` and `text` are those of
    `compiled.cost_analysis()` and `compiled.as_text()`.
    """
    cost = cost or {}
    flops, moved = max(cost.get('flops', 0.0), 0.0), cost.get('bytes accessed')
    calls = library_bytes(text)
    if calls and flops < 0.9 * model_flops:
        flops += model_flops
        moved = None if moved is None else moved + calls
    return ProgramCost(flops or model_flops, moved, model_flops)


_RESULT = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = (\([^)]*\)|\S+) ([\w-]+)\((.*)$', re.MULTILINE)
_LIBRARIES = re.compile(r'custom_call_target="__cu(dnn|blas)\$')
_ARRAY = re.compile(r'\b(pred|[subf]f?\d+\w*|c64|c128)\[([\d,]*)\]')


def library_bytes(text: str) -> float:
    """Returns the bytes, without scratch, that the library calls in an HLO text read and write."""
    # A layout such as {3,2,1,0:T(8,128)} has brackets that would end a tuple's type early.
    text = re.sub(r'(?<=\])\{[^{}]*\}', '', text)
    results = {name: (shape, op, rest) for name, shape, op, rest in _RESULT.findall(text)}
    total = 0.0
    for shape, op, rest in results.values():
        if op != 'custom-call' or not _LIBRARIES.search(rest):
            continue
        operands = re.findall(r'%([\w.-]+)', rest.partition(')')[0])
        shapes = [shape, *(results[name][0] for name in operands if name in results)]
        total += sum(map(_bytes_of, shapes))
    return total


def _bytes_of(shape: str) -> float:
    """Returns the bytes of an array or tuple; arrays of bytes are scratch, all data are floats."""
    total = 0
    for kind, sides in _ARRAY.findall(shape):
        if kind not in ('u8', 's8'):
            bits = 8 if kind == 'pred' else int(re.search(r'\d+', kind).group())
            total += math.prod(int(side) for side in sides.split(',') if side) * bits // 8
    return total


@dataclasses.dataclass(frozen=True)
class Roofline:
    """How near a program comes to what its device allows; None where that is unknown."""

    flops_per_second: float  # achieved
    bytes_per_second: float | None
    bound: float | None = None  # images per second that the device's peaks allow
    limit: str = ''  # what sets the bound, 'arithmetic' or 'memory'
    share: float | None = None  # fraction of the bound that was reached
    utilisation: float | None = None  # model FLOPs utilisation: the layers' FLOPs over the peak


def evaluate(
    rate: float, images: int, cost: ProgramCost, peak: float | None, bandwidth: float | None
) -> Roofline:
    """Returns how near a program comes to the bound; `images` and `cost` are of one call.

    The rate is in images per second, the peak in FLOP/s and the bandwidth in bytes/s.
    """
    calls = rate / images
    achieved = cost.flops * calls, None if cost.bytes is None else cost.bytes * calls
    if peak is None:
        return Roofline(*achieved)
    bounds = {'arithmetic': peak / cost.flops * images}
    if cost.bytes and bandwidth:
        bounds['memory'] = bandwidth / cost.bytes * images
    limit = min(bounds, key=bounds.get)
    utilisation = cost.model_flops * calls / peak
    return Roofline(*achieved, bounds[limit], limit, rate / bounds[limit], utilisation)
