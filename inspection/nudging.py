"""A network with something added to its stages, so that there is a gradient with respect to them.

Grad-CAM asks how the answer would change if a feature map did. A stage is a value inside of the
network, and what `stages` returns is only a copy of it at the end of the way. So the network is
traced to a jaxpr, which is then evaluated with the addition made where the stage arises:

    stages, outputs = nudged(model, variables, inputs, {'conv2': nudge})

This holds for every network, with any head, without a line of its own in it.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.extend import core

from models.lowering import NATIVE
from models.network import Model, Network


def plain(model: Model) -> Model:
    """Returns the model in its plainest form: XLA's own layers, without rematerialization.

    Within rematerialized blocks, and in forms that reorder layers, a stage may not be found.
    """
    model = model.adjusted(lowering=NATIVE)
    if getattr(model.headless(), 'remat', False):
        model = model.adjusted(remat=False)
    return model


def nudged(
    model: Model,
    variables: Mapping[str, Any],
    inputs: jax.Array,
    nudges: Mapping[str, jax.Array],
) -> tuple[OrderedDict[str, jax.Array], Any]:
    """Applies a model, in evaluation, with something added to some of its stages.

    Args:
      model: of `plain`.
      variables: its variables.
      inputs: float [b, h, w, c].
      nudges: {stage: what is added to it}, each of the shape of its stage.

    Returns:
      (the stages, each as the following layers see it; the outputs).
    """
    apply = _with_stages(model)
    traced, shapes = jax.make_jaxpr(apply, return_shape=True)(variables, inputs)
    stages, _ = shapes
    named = zip(stages, traced.jaxpr.outvars, strict=False)
    added = {variable: nudges[name] for name, variable in named if name in nudges}
    results = _evaluated(traced, jax.tree.leaves((variables, inputs)), added)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def _with_stages(model: Model) -> Callable[..., tuple[OrderedDict[str, jax.Array], Any]]:
    """Returns a function of (variables, inputs) that gives (stages, outputs) of one pass."""

    def apply(variables, inputs):
        found, roots = OrderedDict(), []

        def listen(next_function, arguments, options, context):
            # Whoever asks for the shapes of a network meanwhile applies it within this call. Its
            # stages are not ours; those of the model that was called first are.
            root = context.module.scope.root
            roots.append(root)
            result = next_function(*arguments, **options)
            named = isinstance(context.module, Network) and context.method_name == 'stages'
            if named and root is roots[0]:
                found.update(result)
            return result

        with nn.intercept_methods(listen):
            outputs = model.apply(variables, inputs, train=False)
        return found, outputs

    return apply


def _evaluated(
    traced: core.ClosedJaxpr,
    arguments: list[jax.Array],
    added: Mapping[core.Var, jax.Array],
) -> list[jax.Array]:
    """Returns the values of a jaxpr's outputs, with additions to some variables."""
    jaxpr = traced.jaxpr
    values = dict(zip(jaxpr.constvars, traced.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(variable):
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        results = _applied(jaxpr, equation, [read(v) for v in equation.invars])
        for variable, result in zip(equation.outvars, results, strict=True):
            values[variable] = result + added[variable] if variable in added else result
    return [read(variable) for variable in jaxpr.outvars]


def _applied(
    jaxpr: core.Jaxpr, equation: core.JaxprEqn, operands: list[jax.Array]
) -> list[jax.Array]:
    """Returns the results of one equation of a jaxpr: those of a jaxpr that has no other."""
    pairs = zip(equation.invars, operands, strict=True)
    inputs = {v: operand for v, operand in pairs if not isinstance(v, core.Literal)}
    alone = jaxpr.replace(
        constvars=[], invars=[*inputs], outvars=equation.outvars, eqns=[equation],
        effects=equation.effects, debug_info=jaxpr.debug_info.with_unknown_names(),
    )  # fmt: skip
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*inputs.values())
