"""Converts PyTorch's state dicts to the variables of the networks here, and back.

The conversion is strict both ways: each tensor is used and each parameter is filled exactly once.
torch_names.py handles the names, this module the shapes:

                    PyTorch                     here
    convolution     [out, in, height, width]    [height, width, in, out]
    dense layer     [out, in]                   [in, out]
    flattened map   [c, h, w]                   [h, w, c]
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

import models
from errors import UserError
from models.network import Network, abstract_variables
from models.pretrained import torch_names

_LEAVES = {
    'kernel': 'weight',
    'scale': 'weight',
    'bias': 'bias',
    'mean': 'running_mean',
    'var': 'running_var',
}
_ORDER = ('weight', 'bias', 'running_mean', 'running_var')
_COUNTER = 'num_batches_tracked'
_LISTED = 3


class Tensor(NamedTuple):
    """One parameter or statistic, with its name and shape here and in PyTorch.

    Attributes:
      path: its path here.
      shape: its shape here.
      key: its name in PyTorch.
      torch_shape: its shape in PyTorch.
      window: the height and width of a kernel, or of the flattened map that a dense layer reads.
    """

    path: str
    shape: tuple[int, ...]
    key: str
    torch_shape: tuple[int, ...]
    window: int

    def from_torch(self, value: np.ndarray) -> np.ndarray:
        """Returns a value in PyTorch's shape as one in the shape here."""
        if len(self.shape) > 1:
            value = value.reshape(self.shape[-1], -1, self.window, self.window)
            value = value.transpose(2, 3, 1, 0).reshape(self.shape)
        return value

    def to_torch(self, value: np.ndarray) -> np.ndarray:
        """Returns a value in the shape here as one in PyTorch's shape."""
        if len(self.shape) > 1:
            value = value.reshape(self.window, self.window, -1, self.shape[-1])
            value = value.transpose(3, 2, 0, 1).reshape(self.torch_shape)
        return value


def tensors(model: str, layout: str, num_classes: int, channels: int) -> list[Tensor]:
    """Returns the parameters and statistics of a network in the order of the library.

    Args:
      model: one of the names of `torch_names.known`.
      layout: 'torchvision', 'timm' or 'huggingface'.
      num_classes: 0 for a network without a head.
      channels: the number of channels of its images.

    Raises:
      UserError: the library has no such model.
    """
    names = torch_names.modules(model, layout)
    network = models.create(model, num_classes=num_classes)
    flattened, map_size = torch_names.FLATTENED.get(type(network), (None, 1))
    unsorted = []
    for path, shape in _shapes(network, channels).items():
        layer, leaf = path.split('/', 1)[1].rsplit('/', 1)
        window, torch_shape = 1, shape
        if leaf == 'kernel':
            window = shape[0] if len(shape) == 4 else map_size if layer == flattened else 1
            torch_shape = (shape[-1], math.prod(shape[:-1]) // window**2, window, window)
            if len(shape) == 2 and not _is_convolution(names[layer]):
                torch_shape = (shape[1], shape[0])
        key = f'{names[layer]}.{_LEAVES[leaf]}'
        unsorted.append(Tensor(path, shape, key, torch_shape, window))
    keys = [f'{module}.{leaf}' for module in names.values() for leaf in _ORDER]
    order = {key: i for i, key in enumerate(keys)}
    return sorted(unsorted, key=lambda tensor: order[tensor.key])


@functools.lru_cache(maxsize=8)  # a trace takes a second, and each candidate is compared
def _shapes(network: Network, channels: int) -> dict[str, tuple[int, ...]]:
    """Returns the path and shape of every variable, from a trace that computes nothing."""
    variables = abstract_variables(network, (224, 224, channels))
    return {
        path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables, sep='/').items()
    }


def _is_convolution(module: str) -> bool:
    """Whether a dense layer here is a convolution there, as in timm's VGG."""
    return module.startswith('pre_logits.')


def from_torch(
    state: dict[str, np.ndarray], model: str, layout: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Converts a state dict to variables.

    The numbers of classes and of image channels are read from the state dict; without a head there
    are 0 classes.

    Args:
      state: {name: array}, of any floating-point type.
      model: one of the names of `torch_names.known`.
      layout: 'torchvision', 'timm' or 'huggingface'; None: recognised by the names.

    Returns:
      ({'params', 'batch_stats'}, {'layout', 'num_classes', 'channels'}), with arrays in float32.

    Raises:
      UserError: the model or layout is unknown, or the tensors are not those of the model; the
        message lists them.
    """
    renamed = _renamed(state)
    layout = layout or _recognise(renamed, model)
    num_classes, channels = _sizes(renamed, model, layout)
    wanted = tensors(model, layout, num_classes, channels)
    if problems := _problems(renamed, wanted):
        raise UserError(
            f'these are not the weights of a {model} as {layout} names them: {problems}.'
            + _suggest_models(renamed)
        )
    filled = {
        tensor.path: np.array(tensor.from_torch(renamed[tensor.key]), np.float32, order='C')
        for tensor in wanted
    }
    variables = {'batch_stats': {}} | traverse_util.unflatten_dict(filled, sep='/')
    return variables, {'layout': layout, 'num_classes': num_classes, 'channels': channels}


def adapt_input(
    variables: Mapping[str, Any], model: str, layout: str, way: str, channels: int
) -> dict[str, Any]:
    """Returns variables whose first convolution reads pictures of another number of channels.

    A picture that has the same values in all of its channels gives the same features as before,
    except after 'mean', which divides them by the former number of channels.

    Args:
      variables: as `from_torch` returns them.
      model: its name.
      layout: of `from_torch`.
      way: 'sum' or 'mean' of the kernel over its channels, or 'repeat': the channels again and
        again, times the former number of channels over the new one.
      channels: the new number; 1 for 'sum' and 'mean'.
    """
    flat = dict(traverse_util.flatten_dict(variables, sep='/'))
    path = f'params/{next(iter(torch_names.modules(model, layout)))}/kernel'
    kernel = flat[path]  # [height, width, in, out]
    if way == 'repeat':
        before = kernel.shape[2]
        kernel = kernel[:, :, np.arange(channels) % before] * np.float32(before / channels)
    else:
        kernel = getattr(kernel, way)(axis=2, keepdims=True)
    flat[path] = np.ascontiguousarray(kernel)
    return {'batch_stats': {}} | traverse_util.unflatten_dict(flat, sep='/')


def fits(state: Mapping[str, Any], model: str, layout: str | None = None) -> bool:
    """Whether `from_torch` converts these tensors, of which it reads only shapes and types."""
    renamed = {torch_names.canonical(key): value for key, value in state.items()}
    layout = layout or _recognise(renamed, model)
    wanted = tensors(model, layout, *_sizes(renamed, model, layout))
    # Names that are there twice are the business of from_torch, which says so.
    return not _problems(renamed, wanted)


def _renamed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the state dict with the current names of all tensors."""
    renamed = {torch_names.canonical(key): value for key, value in state.items()}
    if len(renamed) < len(state):
        raise UserError(
            'some tensors are there twice, under an old and a new name: remove one of each.'
        )
    return renamed


def _sizes(state: Mapping[str, Any], model: str, layout: str) -> tuple[int, int]:
    """Returns the numbers of classes and of image channels; 0 classes without a head."""
    modules = list(torch_names.modules(model, layout).values())
    first, head = (state.get(f'{modules[i]}.weight') for i in (0, -1))
    # Without a usable first layer, assume 3 channels: the check then reports what is wrong.
    channels = (first.shape[1] if first is not None and len(first.shape) == 4 else 0) or 3
    return head.shape[0] if head is not None and len(head.shape) == 2 else 0, channels


def to_torch(
    variables: dict[str, Any], model: str, layout: str = 'torchvision'
) -> dict[str, np.ndarray]:
    """Converts variables to a state dict that the library's own network loads strictly.

    Args:
      variables: {'params', 'batch_stats'}, nested dicts of arrays.
      model: one of the names of `torch_names.known`.
      layout: 'torchvision', 'timm' or 'huggingface'.

    Raises:
      UserError: the model or layout is unknown, or the network has options that the library's
        network does not have.
    """
    leaves = {
        path: np.asarray(leaf)
        for path, leaf in traverse_util.flatten_dict(variables, sep='/').items()
    }
    ours = list(torch_names.modules(model, layout))
    kernels = [leaves.get(f'params/{ours[i]}/kernel') for i in (0, -1)]
    channels, num_classes = (
        0 if kernel is None or kernel.ndim < 2 else kernel.shape[i - 2]
        for i, kernel in enumerate(kernels)
    )
    wanted = tensors(model, layout, num_classes, channels or 3)
    if {t.path: t.shape for t in wanted} != {path: leaf.shape for path, leaf in leaves.items()}:
        raise UserError(
            f'these weights are of a {model} with options (stem, normalization, width) that '
            f"{layout}'s {model} does not have: only a network with the default options can be "
            'converted.'
        )
    state = {}
    for tensor in wanted:
        value = tensor.to_torch(leaves[tensor.path])
        state[tensor.key] = np.array(value, np.float32, order='C')
        if tensor.path.endswith('/var'):
            state[tensor.key.replace('running_var', _COUNTER)] = np.zeros((), np.int64)
    return state


def _recognise(state: dict[str, np.ndarray], model: str) -> str:
    """Returns the layout that shares the most names; torchvision if several share as many."""
    modules = {key.rpartition('.')[0] for key in state}

    def shared(layout: str) -> int:
        return len(modules & set(torch_names.modules(model, layout).values()))

    return max(torch_names.layouts(model), key=shared)


def _problems(state: Mapping[str, Any], wanted: list[Tensor]) -> str:
    """Returns how a state dict differs from exactly these tensors in these shapes; '' if not."""
    by_key = {tensor.key: tensor for tensor in wanted}
    counters = {
        key.replace('running_var', _COUNTER) for key in by_key if key.endswith('.running_var')
    }
    wrong = []
    for key in by_key.keys() & state.keys():
        value, shape = state[key], by_key[key].torch_shape
        if value.shape != shape:
            wrong.append(f'{key} {value.shape} instead of {shape}')
        elif not jnp.issubdtype(value.dtype, jnp.floating):
            wrong.append(f'{key} of type {value.dtype}')
    problems = {
        'missing': by_key.keys() - state.keys(),
        'unused': state.keys() - by_key.keys() - counters,
        'wrong': wrong,
    }
    return '; '.join(f'{what} {listed(sorted(keys))}' for what, keys in problems.items() if keys)


def listed(keys: Sequence[str]) -> str:
    """Returns text such as '(4) a, b, c and 1 more'."""
    names = ', '.join(f'{key:.200}' for key in keys[:_LISTED])
    more = f' and {len(keys) - _LISTED:,} more' if len(keys) > _LISTED else ''
    return f'({len(keys):,}) {names}{more}'


def _suggest_models(state: dict[str, np.ndarray]) -> str:
    """Returns a sentence that names the models with these layers, or ''."""
    modules = {key.rpartition('.')[0] for key in state}
    matches = [
        model
        for model in torch_names.known()
        if any(
            set(torch_names.modules(model, layout).values()) == modules
            for layout in torch_names.layouts(model)
        )
    ]
    return f' The names are those of {" or ".join(matches)}.' if matches else ''
