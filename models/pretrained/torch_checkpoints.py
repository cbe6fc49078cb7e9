"""Finds the weights of a network among all that a training program keeps in a checkpoint.

A checkpoint is a dict with, say, the state dicts of a network and of its optimizer, averaged
weights, and settings. The names of tensors may have a prefix, such as 'module.' of DataParallel,
'_orig_mod.' of torch.compile or 'model.' of Lightning. Weights are recognized here by the names
that the network's layers have: whatever stands before those is a prefix, and a dict without them,
such as the state of an optimizer, is not the network's.
"""

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from errors import UserError
from models.pretrained import torch_names, torch_weights
from models.pretrained.torch_files import Foreign, Tensor

_AVERAGED = re.compile(r'(?<![a-z])(ema|modelema|swa|avg|averaged?|shadow|polyak)(?![a-z])')
_OPTIMIZER = re.compile(r'optim|sched|param_groups|exp_avg|momentum_buf|(?<![a-z])grads?(?![a-z])')
_WRAPPERS = ('module', 'model', 'backbone', 'encoder', 'network', 'net')
# What torch.compile, checkpointing and FSDP put into names, anywhere.
_MARKS = re.compile(r'(?<![^.])(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.')
# How deep weights are looked for, in lists of what length, and how many are named.
_DEEPEST, _LONGEST, _MOST = 8, 100, 20
_LONGEST_NAME, _LARGEST_NUMBER = 500, 1 << 40  # of the keys of dicts


class Weights(NamedTuple):
    """Tensors in a checkpoint that have the names of a network's layers.

    Attributes:
      path: the keys that lead to their dict.
      prefix: what was removed from their names, such as 'module.'.
      tensors: {name: tensor}.
      others: names in the same dict that do not have the prefix.
      averaged: whether they are averages of the weights that training went through.
    """

    path: tuple[str, ...]
    prefix: str
    tensors: dict[str, Any]
    others: tuple[str, ...] = ()
    averaged: bool = False

    @property
    def key(self) -> str:
        """The value of --key: the keys, and the prefix where it tells them from others."""
        prefix = [self.prefix.rstrip('.')] if self.prefix and self.others else []
        return '/'.join([*self.path, *prefix]) or '.'

    @property
    def kind(self) -> str:
        """What they are, for messages."""
        return 'averaged weights' if self.averaged else 'raw weights'

    def __str__(self) -> str:
        return f'--key={self.key} ({self.kind}, {len(self.tensors):,} tensors)'


def choose(
    content: Any, model: str, layout: str | None = None, key: str | None = None
) -> tuple[Weights, list[Weights]]:
    """Returns the weights of a network in the content of a file, and those that were not taken.

    Args:
      content: as `torch_files.read` has it.
      model: one of the names of `torch_names.known`.
      layout: 'torchvision', 'timm' or 'huggingface'; None: any.
      key: which weights, where there are several: the keys that lead to them, or their prefix.

    Raises:
      UserError: there are none, or several and no key; names them.
    """
    found = _find(content, model)
    if not found:
        return _without_names(content), []
    if key is not None:
        chosen = _named(key, found, model)
        return chosen, [weights for weights in found if weights is not chosen]
    fitting = [w for w in found if torch_weights.fits(w.tensors, model, layout)]
    if not fitting:
        return found[0], found[1:]
    if len(fitting) > 1:
        choices = ', or '.join(map(str, fitting))
        raise UserError(f'it has several weights of a {model}: choose {choices}.')
    (chosen,) = fitting
    useless = _useless_averages(content, found, chosen)
    if useless and not chosen.averaged:
        raise UserError(
            f'its averaged weights cannot be converted ({", ".join(useless)}); '
            f'--key={chosen.key} takes the raw ones, which are not averaged.'
        )
    beside = chosen.others and _beside(chosen, found)
    if beside:
        raise UserError(
            f'it has tensors beside the weights of a {model} ({torch_weights.listed(beside)}): '
            f'--key={chosen.key} leaves them out.'
        )
    return chosen, [weights for weights in found if weights is not chosen]


class _Place(NamedTuple):
    """A dict with tensors, and the keys that lead to it."""

    path: tuple[str, ...]
    tensors: dict[str, Any]
    averaged: bool


def _find(content: Any, model: str) -> list[Weights]:
    """Returns all weights that have the names of a model's layers, the fullest first."""
    layouts = [torch_names.modules(model, layout) for layout in torch_names.layouts(model)]
    layers = {name for modules in layouts for name in modules.values()}
    groups = []
    for place in _places(content):
        matched = defaultdict(set)
        for name in place.tensors:
            if split := _split(name, layers):
                matched[split[0]].add(split[1])
        groups += [(len(names), prefix, place) for prefix, names in matched.items()]
    most = max((count for count, *_ in groups), default=0)
    # Some names, such as fc, belong to many networks.
    if 4 * most < min(map(len, layouts)):
        return []
    groups = sorted((g for g in groups if 2 * g[0] >= most), key=lambda g: -g[0])[:_MOST]
    found: list[Weights] = []
    for _, prefix, place in groups:
        longer = [p for _, p, other in groups if other is place and len(p) > len(prefix)]
        weights = _weights(place, prefix, tuple(longer))
        if not any(_same(weights.tensors, other.tensors) for other in found):
            found.append(weights)
    return found


def _split(name: str, layers: set[str]) -> tuple[str, str] | None:
    """Returns (prefix, layer) of the name of a tensor, or None if it is of no layer."""
    parts = name.split('.')
    for start in range(min(len(parts), _DEEPEST)):
        layer = torch_names.canonical('.'.join(parts[start:])).rpartition('.')[0]
        if layer in layers:
            return ''.join(f'{part}.' for part in parts[:start]), layer
    return None


def _weights(place: _Place, prefix: str, longer: tuple[str, ...]) -> Weights:
    """Returns the tensors with a prefix, but with none of the `longer` ones."""
    own = {n for n in place.tensors if n.startswith(prefix) and not n.startswith(longer)}
    # In a dict that has raw and averaged weights, their prefixes tell them apart.
    parts = [prefix] if any(map(_is_averaged, place.tensors)) else place.path
    averaged = place.averaged or any(map(_is_averaged, parts))
    return Weights(
        place.path,
        prefix,
        {name.removeprefix(prefix): place.tensors[name] for name in place.tensors if name in own},
        tuple(name for name in place.tensors if name not in own),
        averaged,
    )


def _is_averaged(name: str) -> bool:
    return bool(_AVERAGED.search(name.lower()))


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two dicts have the same tensors of the file."""
    return one.keys() == other.keys() and all(
        one[name] is other[name] or (isinstance(one[name], Tensor) and one[name] == other[name])
        for name in one
    )


def _places(content: Any) -> Iterator[_Place]:
    """Yields every dict that has tensors, except for those of optimizers."""
    for path, value in _walk(content):
        items = _items(value)
        # Counters of steps, such as n_averaged, are no weights.
        tensors = {
            name: tensor
            for name, tensor in items.items()
            if _is_tensor(tensor) and ('.' in name or tensor.shape != ())
        }
        unmarked = {_MARKS.sub('', name): tensor for name, tensor in tensors.items()}
        tensors = unmarked if len(unmarked) == len(tensors) else tensors
        if tensors:
            # Lightning's callback stores the average as state_dict, and says so beside it.
            swapped = path == ('state_dict',) and 'averaging_state' in _items(content)
            yield _Place(path, tensors, swapped or 'n_averaged' in items)


def _walk(content: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields (keys, value) of everything in dicts and lists, from the outside to the inside.

    Not by recursion, because a file may nest or contain itself as deeply as it likes. Optimizers
    are left out.
    """
    waiting, seen = deque([((), content)]), set()
    while waiting:
        path, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield path, value
        inner = _items(value)
        if isinstance(value, list | tuple) and not _is_tensor(value) and len(value) <= _LONGEST:
            inner = {str(i): part for i, part in enumerate(value)}
        if len(path) < _DEEPEST and 'param_groups' not in inner:
            waiting += [
                ((*path, key), part)
                for key, part in inner.items()
                if not _OPTIMIZER.search(key.lower())
            ]


def _items(value: Any) -> dict[str, Any]:
    """Returns what a dict, or an object of a class that was one, has under names and numbers."""
    items = (value.items or {}) if isinstance(value, Foreign) else value
    if not isinstance(items, Mapping):
        return {}
    return {
        str(key): part
        for key, part in items.items()
        if (isinstance(key, str) and len(key) <= _LONGEST_NAME)
        or (type(key) is int and 0 <= key < _LARGEST_NUMBER)
    }


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _named(key: str, found: list[Weights], model: str) -> Weights:
    """Returns the weights that --key names: by its whole value, its keys or its prefix."""
    wanted = _MARKS.sub('', key.replace('/', '.') + '.').strip('.')
    for names in (
        lambda w: w.key,
        lambda w: '.'.join((*w.path, w.prefix)),
        lambda w: '.'.join(w.path),
        lambda w: w.prefix,
    ):
        matches = [w for w in found if names(w).replace('/', '.').strip('.') == wanted]
        if len(matches) == 1:
            return matches[0]
    choices = ', or '.join(map(str, found))
    raise UserError(f'--key={key} names none of the weights of a {model} in it: choose {choices}.')


def _useless_averages(content: Any, found: list[Weights], chosen: Weights) -> list[str]:
    """Returns what is wrong with averaged weights of other forms, if there are any."""
    useless = [
        f'"{weights.key}" lacks some tensors, or has others'
        for weights in found
        if weights.averaged and weights is not chosen
    ]
    for path, value in _walk(content):
        if not path or not _is_averaged(path[-1]):
            continue
        if _is_model(value):
            useless.append(f'"{path[-1]}" is a pickled {type(value).__name__}')
        for inner, part in _walk(value):
            if isinstance(part, list | tuple) and sum(map(_is_tensor, part)) > 1:
                useless.append(f'"{"/".join((*path, *inner))}" is a list of tensors without names')
    return list(dict.fromkeys(useless))


def _beside(chosen: Weights, found: list[Weights]) -> list[str]:
    """Returns the names beside some weights that belong to no other weights of the same dict."""
    prefixes = tuple(w.prefix for w in found if w.path == chosen.path and w is not chosen)
    return [name for name in chosen.others if not name.startswith(prefixes)]


def _is_model(value: Any) -> bool:
    """Whether an object is a network of PyTorch that has layers."""
    state = value.state if isinstance(value, Foreign) else None
    return isinstance(state, dict) and bool(_items(state.get('_modules')))


def _without_names(content: Any) -> Weights:
    """Returns the largest dict of tensors, for a message about its names.

    Raises:
      UserError: there is none; says what there is instead.
    """
    places = sorted(_places(content), key=lambda place: -len(place.tensors))
    if places and any('.' in name for name in places[0].tensors):
        return _weights(places[0], _common_prefix(list(places[0].tensors)), ())
    items = _items(content)
    remedy = 'save the state_dict of the model, and convert that.'
    for path, value in _walk(content):
        name, load = type(value).__name__, None
        if isinstance(value, Foreign) and name.startswith('__torch__'):
            what, load = 'a TorchScript program', 'torch.jit.load(FILE)'
        elif _is_model(value):
            what, load = f'a whole model, a {name},', 'torch.load(FILE, weights_only=False)'
            load += ''.join(f'[{key}]' if key.isdecimal() else f'[{key!r}]' for key in path)
        if load:
            raise UserError(
                f'it has {what} in place of a state dict: where PyTorch and the code of the model '
                f"are installed, run torch.save({load}.state_dict(), 'weights.pth') and convert "
                'weights.pth.'
            )
    if any(_OPTIMIZER.search(name.lower()) for name in items):
        raise UserError(f'it has the state of an optimizer, and no weights: {remedy}')
    odd = [(f'"{name}"', part) for name, part in items.items() if not isinstance(part, Mapping)]
    if isinstance(content, Foreign) and not items:
        odd = [('its content', content)]
    for what, value in odd[:1]:
        kind = value if isinstance(value, type) else type(value)
        raise UserError(f'it has no state dict, and {what} is of type {kind.__name__}: {remedy}')
    raise UserError(f'it has no state dict: {remedy}')


def _common_prefix(names: list[str]) -> str:
    """Returns what wrappers, such as DataParallel, have put before all of the names."""
    prefix = ''
    while True:
        first = names[0].removeprefix(prefix).partition('.')[0]
        if first not in _WRAPPERS or not all(n.startswith(f'{prefix}{first}.') for n in names):
            return prefix
        prefix += f'{first}.'
