"""Turns PyTorch's state dicts into the variables of the networks here, and back.

Strict both ways: each tensor is used exactly once and each parameter filled exactly once.
torch_names.py has the names; here are the shapes. PyTorch keeps convolutions as [out, in,
height, width] and dense layers as [out, in], and flattens maps as [c, h, w]; here it is [height,
width, in, out], [in, out] and [h, w, c].
"""

import math
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
    """One parameter or statistic: its path and shape here, its name and shape in PyTorch.

    `window` is the height and width that a kernel has, or that the flattened map has which a dense
    layer reads.
    """

    path: str
    shape: tuple[int, ...]
    key: str
    torch_shape: tuple[int, ...]
    window: int

    def from_torch(self, value: np.ndarray) -> np.ndarray:
        """Returns it in the form that it has here."""
        if len(self.shape) > 1:
            value = value.reshape(self.shape[-1], -1, self.window, self.window)
            value = value.transpose(2, 3, 1, 0).reshape(self.shape)
        return value

    def to_torch(self, value: np.ndarray) -> np.ndarray:
        """Returns it in the form that it has in PyTorch."""
        if len(self.shape) > 1:
            value = value.reshape(self.window, self.window, -1, self.shape[-1])
            value = value.transpose(3, 2, 0, 1).reshape(self.torch_shape)
        return value


def tensors(model: str, layout: str, num_classes: int, channels: int) -> list[Tensor]:
    """Returns what a network is made of, in the library's own order.

    Args:
      model: a name that `torch_names.known` has.
      layout: 'torchvision', 'timm' or 'huggingface'.
      num_classes: 0 for a network without a head.
      channels: of its images.

    Raises:
      UserError: the library has no such model.
    """
    names = torch_names.modules(model, layout)
    network = models.create(model, num_classes=num_classes)
    flattened, map_size = torch_names.FLATTENED.get(type(network), (None, 1))
    found = []
    for path, shape in _shapes(network, channels).items():
        layer, leaf = path.split('/', 1)[1].rsplit('/', 1)
        window, torch_shape = 1, shape
        if leaf == 'kernel':
            window = shape[0] if len(shape) == 4 else map_size if layer == flattened else 1
            torch_shape = (shape[-1], math.prod(shape[:-1]) // window**2, window, window)
            if len(shape) == 2 and not _is_convolution(names[layer]):
                torch_shape = (shape[1], shape[0])
        key = f'{names[layer]}.{_LEAVES[leaf]}'
        found.append(Tensor(path, shape, key, torch_shape, window))
    keys = [f'{module}.{leaf}' for module in names.values() for leaf in _ORDER]
    order = {key: i for i, key in enumerate(keys)}
    return sorted(found, key=lambda tensor: order[tensor.key])


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
    """Converts a state dict.

    The number of classes and of image channels are read from it; without a head there are 0
    classes.

    Args:
      state: name -> array, of any floating-point type.
      model: a name that `torch_names.known` has.
      layout: None recognises it by the names.

    Returns:
      ({'params', 'batch_stats'}, {'layout', 'num_classes', 'channels'}), arrays in float32.

    Raises:
      UserError: no such model or layout, or the tensors are not those of the model; lists them.
    """
    renamed = {torch_names.canonical(key): value for key, value in state.items()}
    if len(renamed) < len(state):
        raise UserError('some tensors are there twice, under an old and a new name.')
    layout = layout or _recognise(renamed, model)
    modules = list(torch_names.modules(model, layout).values())
    first, head = (renamed.get(f'{modules[i]}.weight') for i in (0, -1))
    # Where it has none, 3: the comparison of the shapes says what is wrong.
    channels = (first.shape[1] if first is not None and first.ndim == 4 else 0) or 3
    num_classes = head.shape[0] if head is not None and head.ndim == 2 else 0
    wanted = tensors(model, layout, num_classes, channels)
    _check(renamed, wanted, model, layout)
    filled = {
        tensor.path: np.array(tensor.from_torch(renamed[tensor.key]), np.float32, order='C')
        for tensor in wanted
    }
    variables = {'batch_stats': {}} | traverse_util.unflatten_dict(filled, sep='/')
    return variables, {'layout': layout, 'num_classes': num_classes, 'channels': channels}


def to_torch(
    variables: dict[str, Any], model: str, layout: str = 'torchvision'
) -> dict[str, np.ndarray]:
    """Returns the state dict that the library's own network loads strictly.

    Raises:
      UserError: no such model or layout, or the network has options that make it another one.
    """
    found = {
        path: np.asarray(leaf)
        for path, leaf in traverse_util.flatten_dict(variables, sep='/').items()
    }
    ours = list(torch_names.modules(model, layout))
    kernels = [found.get(f'params/{ours[i]}/kernel') for i in (0, -1)]
    channels, num_classes = (0 if k is None else k.shape[i - 2] for i, k in enumerate(kernels))
    wanted = tensors(model, layout, num_classes, channels or 3)
    if {t.path: t.shape for t in wanted} != {path: leaf.shape for path, leaf in found.items()}:
        raise UserError(
            f'these weights are of a {model} with options (stem, normalization, width) that '
            f"{layout}'s {model} has not; only a network with the defaults can be handed over."
        )
    state = {}
    for tensor in wanted:
        value = tensor.to_torch(found[tensor.path])
        state[tensor.key] = np.array(value, np.float32, order='C')
        if tensor.path.endswith('/var'):
            state[tensor.key.replace('running_var', _COUNTER)] = np.zeros((), np.int64)
    return state


def _recognise(state: dict[str, np.ndarray], model: str) -> str:
    """Returns the layout that has the most of the names; torchvision where several have."""
    modules = {key.rpartition('.')[0] for key in state}

    def shared(layout: str) -> int:
        return len(modules & set(torch_names.modules(model, layout).values()))

    return max(torch_names.layouts(model), key=shared)


def _check(state: dict[str, np.ndarray], wanted: list[Tensor], model: str, layout: str) -> None:
    """Raises UserError unless the state dict has just these tensors, in these shapes."""
    by_key = {tensor.key: tensor for tensor in wanted}
    counters = {
        key.replace('running_var', _COUNTER) for key in by_key if key.endswith('.running_var')
    }
    wrong = []
    for key in by_key.keys() & state.keys():
        value, shape = state[key], by_key[key].torch_shape
        if value.shape != shape:
            wrong.append(f'{key} {value.shape} for {shape}')
        elif not jnp.issubdtype(value.dtype, jnp.floating):
            wrong.append(f'{key} of {value.dtype}')
    problems = {
        'missing': by_key.keys() - state.keys(),
        'unused': state.keys() - by_key.keys() - counters,
        'wrong': wrong,
    }
    if any(problems.values()):
        listed = '; '.join(f'{w} {_listed(sorted(keys))}' for w, keys in problems.items() if keys)
        raise UserError(
            f'these are not the weights of a {model} as {layout} names them: {listed}.'
            + _whose(state)
        )


def _listed(keys: list[str]) -> str:
    more = f' and {len(keys) - _LISTED:,} more' if len(keys) > _LISTED else ''
    return f'({len(keys):,}) {", ".join(keys[:_LISTED])}{more}'


def _whose(state: dict[str, np.ndarray]) -> str:
    """Returns a sentence that says which models have layers of these names, '' for none."""
    found = {key.rpartition('.')[0] for key in state}
    fitting = [
        model
        for model in torch_names.known()
        if any(
            set(torch_names.modules(model, layout).values()) == found
            for layout in torch_names.layouts(model)
        )
    ]
    return f' The names are those of {" or ".join(fitting)}.' if fitting else ''
