"""Features for a linear probe: what the frozen network makes of a split, computed once.

The head is then trained on them by the same step that trains on images (Alain and Bengio 2016,
"Understanding intermediate layers using linear classifier probes"). The state remains that of the
whole network, so the checkpoints are like those of any other run.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

import input_pipeline
from data_sources import plans
from errors import UserError
from training import inputs
from training.spec import StepSpec

if TYPE_CHECKING:  # Grain takes half a second to import
    from data_sources.arrays import ArraySource
    from data_sources.record_source import RecordSource

# Images for each device and call. Not a field: a run that is resumed has to compute the same bits.
BATCH = 256


@dataclasses.dataclass(frozen=True)
class Features:
    """A split as the head sees it.

    Attributes:
      features: float32 [n, f].
      targets: {name: array [n, ...]}, as the split has them.
      bad: how many records did not decode and are left out.
    """

    features: np.ndarray
    targets: Mapping[str, np.ndarray]
    bad: int = 0

    @property
    def size(self) -> int:
        """How many examples it has."""
        return len(self.features)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that the step takes, under the step's names."""
        return {'features': self.features, **self.targets}


def compute(
    config: ConfigDict,
    spec: StepSpec,
    variables: Mapping[str, Any],
    split: 'ArraySource | RecordSource',
    devices: list[jax.Device],
) -> Features:
    """Returns the pooled features of a whole split, in evaluation mode.

    Args:
      config: the run's configuration.
      spec: the static part of the step, with the network.
      variables: {'params', 'batch_stats'}, host arrays.
      split: an open split.
      devices: those of this process; each takes an equal part of every batch.

    Raises:
      UserError: not one record decodes.
    """
    network = spec.model.headless()
    mesh = Mesh(np.array(devices), ('batch',))
    whole = NamedSharding(mesh, PartitionSpec())
    parted = NamedSharding(mesh, PartitionSpec('batch'))

    def pooled(variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
        pixels = inputs.evaluation_inputs(spec, {'image': images})
        return network.apply(variables, pixels, train=False)

    call = jax.jit(pooled, in_shardings=(whole, parted), out_shardings=parted)
    variables = jax.device_put(variables, whole)
    plan = plans.EvalPlan(split.size, BATCH * len(devices), len(devices))
    features, targets, bad = [], {name: [] for name in split.kinds}, 0
    for batch in input_pipeline.eval_images(config, split, plan):
        real = batch['mask'] > 0
        features.append(np.asarray(call(variables, batch['image']))[real])
        for name, values in targets.items():
            values.append(batch[name][real])
        bad += int(batch['bad'].sum()) if 'bad' in batch else 0
    if bad == split.size:
        raise UserError(
            f'Not one record of the {split.split} split decodes: prepare the set again.'
        )
    joined = {name: np.concatenate(values) for name, values in targets.items()}
    return Features(np.concatenate(features), joined, bad)
