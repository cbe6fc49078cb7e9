"""The base of tasks whose answer has a value for each pixel of a picture.

Such a network takes a picture of any size, so that it is evaluated on whole pictures at their own
scale. Those of a streamed set are cut into overlapping tiles (data_sources/tiles.py), because
every shape of a picture would be another program. The device gives the predictions for a batch of
pictures or tiles, the host joins the tiles, and `examined` compares a whole picture with its
targets. Its results are the rows of a split, and the sums over a split are the sums over its rows
in the order of the data set: they do not depend on batches, devices or processes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tasks.task import Batch, Sums, Task

PREDICTION = 'prediction'


@dataclasses.dataclass(frozen=True)
class DenseTask(Task):
    """A task whose predictions are float32 [b, h, w, ...], for images [b, h, w, c]."""

    dense = True

    def examined(
        self, prediction: np.ndarray, targets: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns the results of one whole picture, as arrays whose shapes all pictures share.

        Args:
          prediction: the picture's row of `predictions`, [h, w, ...].
          targets: its targets.
        """
        raise NotImplementedError

    def evaluated(
        self, outputs: Any, batch: Batch, detailed: bool = False
    ) -> tuple[Sums, dict[str, jax.Array]]:
        """Returns (the number of real examples, predictions with the targets that are there).

        A batch of tiles has no targets, because those of a tile cannot be judged without the rest
        of the picture.
        """
        del detailed
        rows = {name: batch[name] for name in self.targets if name in batch}
        count = batch['mask'].astype(jnp.int32).sum()
        return {'count': count}, {PREDICTION: self.predictions(outputs), **rows}

    def collected(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the results of the pictures of a batch in place of their predictions.

        'example' int32 is their number in the data set.
        """
        # Padding is not examined, but a batch of nothing else has to say which arrays there are.
        chosen = np.flatnonzero(rows['mask'] > 0) if rows['mask'].any() else np.arange(1)
        results = []
        for row in chosen:
            targets = {name: rows[name][row] for name in self.targets}
            results.append(self.examined(rows[PREDICTION][row], targets))
        examined = {name: np.stack([result[name] for result in results]) for name in results[0]}
        index = rows['index'][chosen]
        return {**examined, 'example': index, 'index': index, 'mask': rows['mask'][chosen]}

    def totals(self, sums: Sums, rows: Mapping[str, np.ndarray]) -> Sums:
        """Returns the sums of all that `examined` gave, and the number of pictures as 'count'."""
        examined = {n: values.sum(axis=0) for n, values in rows.items() if n != 'example'}
        return {**sums, **examined, 'count': len(rows['example'])}
