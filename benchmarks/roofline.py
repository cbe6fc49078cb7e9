"""What a device could do at best, and how near a program comes: plain numbers, no JAX.

The roofline of Williams, Waterman and Patterson 2009: a program that needs so many floating-point
operations and so many bytes of memory for each image can give no more images a second than

    min(peak FLOP/s / FLOPs, bandwidth / bytes)

Bytes are those at the borders of fused operations, as XLA counts them. What the caches keep between
two operations need not cross to memory, so a share above 1 is possible, and says just that.
"""

import dataclasses
import re

# Bytes/s between a device and its own memory, by the beginning of its device_kind; the longest that
# fits counts. Arithmetic has its own table, training/flops.py. GPUs: NVIDIA's data sheets of each
# (A100 2021, H100 2023, H200 2024, HGX B200 2025, L4 2023, T4 2019, V100 2020). TPUs:
# cloud.google.com/tpu/docs, "System architecture" of each version.
BANDWIDTHS = {
    'NVIDIA A100': 2.039e12,  # 'NVIDIA A100-SXM4-80GB'
    'NVIDIA A100-SXM4-40GB': 1.555e12,
    'NVIDIA A100-PCIE-40GB': 1.555e12,
    'NVIDIA A100 80GB PCIe': 1.935e12,
    'NVIDIA H100': 3.35e12,  # SXM: 'NVIDIA H100 80GB HBM3'
    'NVIDIA H100 PCIe': 2.0e12,
    'NVIDIA H100 NVL': 3.9e12,
    'NVIDIA H200': 4.8e12,
    'NVIDIA B200': 8.0e12,
    'NVIDIA L4': 0.3e12,
    'NVIDIA L40': None,  # other cards, which the line above would take for its own
    'Tesla T4': 0.32e12,
    'Tesla V100': 0.9e12,
    'TPU v4': 1.2e12,
    'TPU v4 lite': None,
    'TPU v5 lite': 0.819e12,  # v5e
    'TPU v5e': 0.819e12,
    'TPU v5': 2.765e12,  # v5p
    'TPU v6 lite': 1.64e12,  # v6e
    'TPU v6e': 1.64e12,
}


def bandwidth(device_kind: str) -> float | None:
    """Returns the bytes/s of a device's memory by JAX's name for it, None where nobody knows."""
    if 'MIG' in device_kind:  # a part of a card
        return None
    fits = [name for name in BANDWIDTHS if device_kind.startswith(name)]
    return BANDWIDTHS[max(fits, key=len)] if fits else None


@dataclasses.dataclass(frozen=True)
class Counts:
    """What one call of a compiled program costs.

    Attributes:
      flops: floating-point operations.
      bytes: read from and written to memory; None where XLA does not say.
      model_flops: of the network's convolutions and dense layers alone, by arithmetic.
    """

    flops: float
    bytes: float | None
    model_flops: float

    def times(self, calls: int) -> 'Counts':
        """Returns what so many calls cost."""
        moved = None if self.bytes is None else self.bytes * calls
        return Counts(self.flops * calls, moved, self.model_flops * calls)


def count(cost: dict[str, float] | None, text: str, model_flops: float) -> Counts:
    """Returns a compiled program's counts.

    On a GPU, XLA's cost analysis takes a call of cuDNN or cuBLAS for nothing. Where it finds
    less work than the network's own layers are, these calls are added: their bytes from the
    program's text, their operations from the layers.

    Args:
      cost: what `compiled.cost_analysis()` says, None for nothing.
      text: what `compiled.as_text()` says.
      model_flops: of the network's layers, forward and backward, by arithmetic.
    """
    cost = cost or {}
    flops, moved = max(cost.get('flops', 0.0), 0.0), cost.get('bytes accessed')
    calls = library_bytes(text)
    if calls and flops < 0.9 * model_flops:
        flops += model_flops
        moved = None if moved is None else moved + calls
    return Counts(flops or model_flops, moved, model_flops)


_RESULT = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = (\([^)]*\)|\S+) ([\w-]+)\((.*)$', re.MULTILINE)
_LIBRARIES = re.compile(r'custom_call_target="__cu(dnn|blas)\$')
_ARRAY = re.compile(r'\b(pred|[subf]f?\d+\w*|c64|c128)\[([\d,]*)\]')


def library_bytes(text: str) -> float:
    """Returns the bytes that the library calls in a compiled program read and write.

    Args:
      text: HLO, as `compiled.as_text()` gives it. A call's scratch memory is left out.
    """
    # A layout such as {3,2,1,0:T(8,128)} has brackets that would end a tuple's type early.
    text = re.sub(r'(?<=\])\{[^{}]*\}', '', text)
    results = {name: (shape, op, rest) for name, shape, op, rest in _RESULT.findall(text)}
    total = 0.0
    for shape, op, rest in results.values():
        if op != 'custom-call' or not _LIBRARIES.search(rest):
            continue
        operands = re.findall(r'%([\w.-]+)', rest.partition(')')[0])
        shapes = [shape, *(results[name][0] for name in operands if name in results)]
        total += sum(_bytes_of(each) for each in shapes)
    return total


def _bytes_of(shape: str) -> float:
    """Bytes of an array's or a tuple's type; bytes are scratch memory, all data being floats."""
    total = 0
    for kind, sides in _ARRAY.findall(shape):
        if kind in ('u8', 's8'):
            continue
        elements = 1
        for side in filter(None, sides.split(',')):
            elements *= int(side)
        bits = 8 if kind == 'pred' else int(re.search(r'\d+', kind).group())
        total += elements * bits // 8
    return total


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Where a program stands on a device.

    Attributes:
      flops_per_second, bytes_per_second: achieved; None where the bytes are not known.
      bound: images per second that the device's peaks allow, None where they are not known.
      limit: what sets the bound, 'arithmetic' or 'memory'.
      share: of the bound that was reached.
      utilisation: model FLOPs utilisation: the layers' own operations over the peak.
    """

    flops_per_second: float
    bytes_per_second: float | None
    bound: float | None = None
    limit: str = ''
    share: float | None = None
    utilisation: float | None = None


def place(
    rate: float, images: int, counts: Counts, peak: float | None, bandwidth: float | None
) -> Roofline:
    """Returns where a program stands.

    Args:
      rate: images per second.
      images: that one call takes.
      counts: of one call.
      peak: FLOP/s of the device in the type that the network computes in, if known.
      bandwidth: bytes/s of its memory, if known.
    """
    calls = rate / images
    achieved = counts.flops * calls, None if counts.bytes is None else counts.bytes * calls
    if peak is None:
        return Roofline(*achieved)
    bounds = {'arithmetic': peak / counts.flops * images}
    if counts.bytes and bandwidth:
        bounds['memory'] = bandwidth / counts.bytes * images
    limit = min(bounds, key=bounds.get)
    utilisation = counts.model_flops * calls / peak
    return Roofline(*achieved, bounds[limit], limit, rate / bounds[limit], utilisation)
