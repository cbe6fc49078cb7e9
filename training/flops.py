"""Model FLOPs utilization: the FLOPs of a network, and the peak performance of devices.

Utilization is the model's own FLOPs divided by the peak of the devices (Chowdhery et al. 2022,
"PaLM", appendix B). A multiply-add is two FLOPs, and the backward pass counts as two forward ones.
Recomputation to save memory does not count, nor does anything but convolutions and matrix products.
"""

import dataclasses
import math
import re

import jax

from errors import UserError
from models.trace import trace
from training.spec import StepSpec

# {beginning of device_kind: (bfloat16, float32, bandwidth)} of one device as JAX counts them; the
# longest beginning that fits is used. The first two are dense peaks (no structured sparsity) in
# TFLOP/s, the last one is the bandwidth of the memory in TB/s. float32 is what JAX does by default:
# TF32 on tensor cores that have it, bfloat16 passes on a TPU. The V100 and the T4 have no tensor
# cores for bfloat16, and compute it as float32.
#
# GPUs: NVIDIA's data sheets (A100 2021, H100 2023, H200 2024, HGX B200 2025, L4 2023, T4 2019, V100
# 2020), whose numbers "with sparsity" are halved. TPUs: cloud.google.com/tpu/docs, "System
# architecture" of each version; a v2 or v3 chip is two devices, each of which has half its peak.
PEAKS = {
    'NVIDIA A100': (312, 156, 2.039),  # 'NVIDIA A100-SXM4-80GB'
    'NVIDIA A100-SXM4-40GB': (312, 156, 1.555),
    'NVIDIA A100-PCIE-40GB': (312, 156, 1.555),
    'NVIDIA A100 80GB PCIe': (312, 156, 1.935),
    'NVIDIA H100': (989.4, 494.7, 3.35),  # SXM: 'NVIDIA H100 80GB HBM3'
    'NVIDIA H100 PCIe': (756, 378, 2.0),
    'NVIDIA H100 NVL': (835.5, 417.5, 3.9),
    'NVIDIA H200': (989.4, 494.7, 4.8),
    'NVIDIA H200 NVL': (835.5, 417.5, 4.8),
    'NVIDIA B200': (2250, 1125, 8.0),
    'NVIDIA L4': (121, 60, 0.3),
    'NVIDIA L40': (),  # other cards, for which the line above would be used otherwise
    'Tesla T4': (8.1, 8.1, 0.32),
    'Tesla V100-SXM2': (15.7, 15.7, 0.9),
    'Tesla V100-PCIE': (14, 14, 0.9),
    'TPU v2': (23, 23, None),
    'TPU v3': (61.5, 61.5, None),
    'TPU v4': (275, 275, 1.2),
    'TPU v4 lite': (),
    'TPU v5 lite': (197, 197, 0.819),  # v5e
    'TPU v5e': (197, 197, 0.819),
    'TPU v5': (459, 459, 2.765),  # v5p
    'TPU v6 lite': (918, 918, 1.64),  # v6e
    'TPU v6e': (918, 918, 1.64),
}


def peak(devices: list[jax.Device], dtype: str, tflops: float | None = None) -> float | None:
    """Returns the peak FLOP/s of the devices together; None if it is unknown.

    Args:
      devices: all devices, of one kind.
      dtype: 'bfloat16' or 'float32'.
      tflops: TFLOP/s of one device, in place of the table's.
    """
    if tflops is None:
        bfloat16, float32, _ = _peaks(devices[0].device_kind)
        tflops = {'bfloat16': bfloat16, 'float32': float32}[dtype]
    return None if tflops is None else tflops * 1e12 * len(devices)


def bandwidth(device_kind: str) -> float | None:
    """Returns the bytes/s between a device and its memory; None if it is unknown."""
    *_, terabytes = _peaks(device_kind)
    return None if terabytes is None else terabytes * 1e12


def _peaks(kind: str) -> tuple[float | None, float | None, float | None]:
    """Returns the numbers of the table for a device_kind; None each if it is unknown."""
    name = max((name for name in PEAKS if kind.startswith(name)), key=len, default=None)
    known = name and 'MIG' not in kind  # a part of a card has other peaks
    return (PEAKS[name] if known else ()) or (None, None, None)


def per_image(spec: StepSpec, image_shape: tuple[int, int, int], probe: bool = False) -> int | None:
    """Returns the FLOPs of one training image: 6 for each multiply-add of a trained layer.

    None where the network has a layer of a kind that models/trace.py does not know.

    A frozen layer has no gradient with respect to its weights, which leaves 4; if no layer before
    it is trained, it has none with respect to its input either, which leaves 2.

    Args:
      spec: the static part of the step, with the network.
      image_shape: (height, width, channels).
      probe: whether features are computed once, so that frozen layers cost nothing.
    """
    try:
        layers = trace(spec.model, image_shape).layers
    except UserError:  # an own kind of layer is no reason not to train
        return None
    total, learns_below = 0, False
    for layer in layers:
        if not layer.multiply_adds:
            continue
        learns = f'{layer.name}/kernel' not in spec.frozen
        if learns or not probe:
            total += layer.multiply_adds * (2 + 2 * learns + 2 * (learns or learns_below))
        learns_below |= learns
    return total


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """The cost of one call of a compiled program."""

    flops: float  # floating-point operations
    bytes: float | None  # read from and written to memory; None where XLA does not say
    model_flops: float  # of the network's convolutions and dense layers alone, by arithmetic

    def times(self, calls: int) -> 'ProgramCost':
        """Returns the cost of several calls."""
        moved = None if self.bytes is None else self.bytes * calls
        return ProgramCost(self.flops * calls, moved, self.model_flops * calls)


def program_cost(cost: dict[str, float] | None, text: str, model_flops: float) -> ProgramCost:
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
