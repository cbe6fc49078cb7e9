"""Which parameters are trained, and how fast: freeze, multipliers, layer_decay and linear_probe.

All of this is static: it is decided by the parameters' paths before anything is compiled. A glob is
compared with the whole path, such as 'stage1_block1/conv1/kernel', and its '*' crosses '/'.

The loss is not differentiated by frozen parameters, and the optimizer does not see them, so they
cost no gradient and no state. A batch norm whose scale and bias are both frozen keeps its running
statistics as well.
"""

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from errors import UserError, did_you_mean
from models.network import abstract_variables
from models.normalization import BatchNorm, GroupNorm

HEAD = 'head'


def check(config: ConfigDict) -> None:
    """Checks what can be checked without the network.

    Raises:
      UserError: a malformed multiplier, or fields that contradict a linear probe.
    """
    for text in config.multipliers:
        parse_multiplier(text)
    if not config.linear_probe:
        return
    if not config.init_from:
        raise UserError(
            'config.linear_probe needs config.init_from: a probe of random weights has no use.'
        )
    for name, neutral in (('freeze', ()), ('layer_decay', 1.0)):
        if config[name] != neutral:
            raise UserError(
                f'config.linear_probe trains the head alone: leave config.{name} at {neutral!r}.'
            )


def parse_multiplier(text: str) -> tuple[str, float]:
    """Returns (glob, factor) of 'glob=factor'.

    Raises:
      UserError: the text is not of that form, or the factor is not a finite number above 0.
    """
    glob, equals, number = text.rpartition('=')
    try:
        factor = float(number)
    except ValueError:
        factor = math.nan
    if not glob or not equals or not math.isfinite(factor) or factor < 0:
        raise UserError(
            f'config.multipliers: "{text}" is not a glob and a positive number, such as '
            "'head/*=10'."
        )
    if factor == 0:
        raise UserError(
            f'config.multipliers: "{text}" has a factor of 0: use config.freeze=\'{glob}\' instead.'
        )
    return glob, factor


def of(
    config: ConfigDict, model: nn.Module, image_shape: tuple[int, int, int]
) -> tuple[frozenset[str], dict[str, float]]:
    """Returns (frozen paths, {path: factor on the learning rate}) of a network's parameters.

    The frozen paths include those of the statistics of frozen batch norms. Factors of 1 are left
    out.

    Args:
      config: the configuration.
      model: the network.
      image_shape: (height, width, channels).

    Raises:
      UserError: a pattern has no effect, or nothing is left to be trained.
    """
    plain = not (config.freeze or config.multipliers or config.linear_probe)
    if plain and config.layer_decay == 1:
        return frozenset(), {}
    params, stats, layers = _trace(model, image_shape)
    frozen = _frozen(config, params)
    if config.init_from and f'{HEAD}/kernel' in frozen:
        raise UserError(
            'config.freeze leaves nothing to be trained: with config.init_from the head is new and '
            'starts from zero, and while it is frozen the rest gets no gradient. Do not freeze the '
            'head.'
        )
    frozen_stats = [path for path in stats if is_frozen_norm(path, frozen)]
    trained = [path for path in params if path not in frozen]
    factors = _multipliers(config.multipliers, params, trained)
    last = max(layers.values())
    for path in trained:
        depth = last - layers[path.partition('/')[0]]
        factors[path] = factors.get(path, 1.0) * config.layer_decay**depth
    factors = {path: factor for path, factor in factors.items() if factor != 1}
    return frozen.union(frozen_stats), factors


def is_frozen_norm(statistic: str, frozen: Iterable[str]) -> bool:
    """Returns whether the norm of a statistic, such as 'norm1/mean', is frozen as a whole."""
    layer = statistic.rpartition('/')[0]
    return f'{layer}/scale' in frozen and f'{layer}/bias' in frozen


def _trace(
    model: nn.Module, image_shape: tuple[int, int, int]
) -> tuple[list[str], list[str], dict[str, int]]:
    """Returns (parameter paths, statistic paths, {top-level module: number of its layer}).

    Layers are numbered from 0 in the order in which the network calls them. A norm that is a
    top-level module has the number of the layer before it. Nothing is computed.
    """
    is_layer = {}  # by top-level module, in the order of their calls

    def record_call(
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        path = context.module.path
        if path and path[0] not in is_layer:
            is_norm = len(path) == 1 and isinstance(context.module, BatchNorm | GroupNorm)
            is_layer[path[0]] = not is_norm
        return function(*arguments, **keywords)

    with nn.intercept_methods(record_call):
        shapes = abstract_variables(model, image_shape)
    layers, number = {}, -1
    for name, counts in is_layer.items():
        if name in shapes['params']:
            number += counts
            layers[name] = number
    params, stats = (flatten_dict(shapes.get(c, {}), sep='/') for c in ('params', 'batch_stats'))
    return list(params), list(stats), layers


def _frozen(config: ConfigDict, paths: list[str]) -> frozenset[str]:
    """Returns the paths of the frozen parameters among `paths`."""
    if config.linear_probe:
        return frozenset(path for path in paths if not path.startswith(f'{HEAD}/'))
    frozen = set()
    for glob in config.freeze:
        matches = _matches(glob, paths)
        if not matches:
            raise _unmatched('freeze', glob, paths)
        frozen.update(matches)
    if len(frozen) == len(paths):
        raise UserError(
            'config.freeze leaves nothing to be trained: it matches every parameter of the network.'
        )
    return frozenset(frozen)


def _multipliers(texts: tuple[str, ...], paths: list[str], trained: list[str]) -> dict[str, float]:
    """Returns {path: factor} by the first glob that matches.

    Raises:
      UserError: a glob has no effect.
    """
    factors = {}
    for text in texts:
        glob, factor = parse_multiplier(text)
        if not _matches(glob, paths):
            raise _unmatched('multipliers', glob, paths)
        decided = [path for path in _matches(glob, trained) if path not in factors]
        if not decided:
            raise UserError(
                f'config.multipliers: "{text}" has no effect: whatever it matches is frozen, or an '
                'earlier pattern matches it. Remove it, or put it first.'
            )
        factors.update(dict.fromkeys(decided, factor))
    return factors


def _matches(glob: str, paths: list[str]) -> list[str]:
    return [path for path in paths if fnmatch.fnmatchcase(path, glob)]


def _unmatched(field: str, glob: str, paths: list[str]) -> UserError:
    modules = list(dict.fromkeys(path.partition('/')[0] for path in paths))
    hint = did_you_mean(glob, [*(f'{module}/*' for module in modules), *paths])
    if not hint:
        more = ', ...' if len(modules) > 8 else ''
        hint = f' The network has {", ".join(modules[:8])}{more}.'
    return UserError(
        f'config.{field}: "{glob}" matches no parameter; a pattern is compared with the whole '
        f'path, such as {paths[0]}.{hint}'
    )


def trained_part(params: Mapping[str, Any], frozen: frozenset[str]) -> dict[str, Any]:
    """Returns the tree without the frozen leaves."""
    flat = flatten_dict(params, sep='/')
    return unflatten_dict({p: x for p, x in flat.items() if p not in frozen}, sep='/')


def joined(params: Mapping[str, Any], replacements: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `params` with the leaves of `replacements` in place of its own."""
    flat = flatten_dict(params, sep='/') | flatten_dict(replacements, sep='/')
    return unflatten_dict(flat, sep='/')


def kept(new: Mapping[str, Any], old: Mapping[str, Any], frozen: frozenset[str]) -> dict[str, Any]:
    """Returns `new` with the frozen leaves of `old`, to the byte."""
    flat = flatten_dict(old, sep='/')
    return joined(new, unflatten_dict({p: x for p, x in flat.items() if p in frozen}, sep='/'))
