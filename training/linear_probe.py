"""Features for a linear probe: what the frozen network makes of a split, computed once.

The head is then trained on them by the same step that trains on images (Alain and Bengio 2016,
"Understanding intermediate layers using linear classifier probes"). The state stays the whole
network's, so its checkpoints are like any other's.
"""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import input_pipeline
from errors import UserError
from training.inputs import network_input
from training.spec import StepSpec

# Images for each device and call. Not a field: a run that goes on has to compute the same bits.
BATCH = 256


@dataclasses.dataclass(frozen=True)
class Features:
    """A split as the head sees it: features float32 [n, f], labels int32 [n].

    `bad` counts the records that did not decode and are left out.
    """

    features: np.ndarray
    labels: np.ndarray
    bad: int = 0

    @property
    def size(self) -> int:
        """How many examples it has."""
        return len(self.labels)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What the step takes of it, under the step's names."""
        return {'features': self.features, 'label': self.labels}


def compute(config, spec: StepSpec, variables, split, devices: list) -> Features:
    """Returns the pooled features of a whole split, in evaluation mode.

    Args:
      config: of the run.
      spec: the static part of the step, with the network.
      variables: {'params', 'batch_stats'}, host arrays.
      split: an open split.
      devices: those of this process; each takes an equal part of every batch.
    """
    network = spec.model.clone(num_classes=0)
    mesh = Mesh(np.array(devices), ('batch',))
    whole = NamedSharding(mesh, PartitionSpec())
    parted = NamedSharding(mesh, PartitionSpec('batch'))

    def features(variables, images):
        return network.apply(variables, network_input(spec, images), train=False)

    call = jax.jit(features, in_shardings=(whole, parted), out_shardings=parted)
    variables = jax.device_put(variables, whole)
    plan = input_pipeline.EvalPlan(split.size, BATCH * len(devices), len(devices))
    parts, labels, bad = [], [], 0
    for batch in input_pipeline.eval_images(config, split, plan):
        real = batch['mask'] > 0
        parts.append(np.asarray(call(variables, batch['image']))[real])
        labels.append(batch['label'][real])
        bad += int(batch['bad'].sum()) if 'bad' in batch else 0
    if bad == split.size:
        raise UserError(
            f'Not one record of the {split.split} split decodes: prepare the set again.'
        )
    return Features(np.concatenate(parts), np.concatenate(labels), bad)
