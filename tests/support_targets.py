"""A task and data sets with another target than a label: what the data side does for any task."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from data_sources.arrays import ArraySource
from data_sources.targets import Vector
from preparation.shards import ShardWriter
from tasks.answer import Metric
from tasks.task import Task

SIZES = {'train': 48, 'validation': 10, 'test': 14}


@dataclasses.dataclass(frozen=True)
class Turned(Task):
    """The angle of a picture, by least squares."""

    name: ClassVar = 'turned'
    metrics: ClassVar = (Metric('loss', higher_is_better=False),)
    targets: ClassVar = {'angle': Vector(1)}

    @classmethod
    def create(cls, config, class_names):
        return cls()

    def network(self, backbone):
        return backbone.clone(num_classes=1)

    def loss(self, outputs, batch, hyper):
        error = jnp.square(outputs - batch['angle']).sum(-1)
        return {'loss': jnp.sum(batch['mask'] * error)}

    def sums(self, outputs, batch, detailed=False):
        return {
            'loss': self.loss(outputs, batch, {})['loss'],
            'angles': jnp.sum(batch['mask'][:, None] * batch['angle']),
            'count': batch['mask'].astype(jnp.int32).sum(),
        }

    def summarize(self, sums, rows=None):
        return {'loss': float(sums['loss']) / int(sums['count'])}


def turned(split: str) -> ArraySource:
    """Returns noise, 8x8, in which each picture's angle is written by its first pixel."""
    draw = np.random.default_rng(sorted(SIZES).index(split))
    images = draw.integers(256, size=(SIZES[split], 8, 8, 1), dtype=np.uint8)
    angles = images[:, 0, 0].astype(np.float32) / 256
    return ArraySource('turned', split, images, {'angle': angles}, kinds={'angle': Vector(1)})


def stored(value: bytes | int | list[int] | np.ndarray) -> tf_feature_pb2.Feature:
    """Returns a value as tfds stores it; a list of integers is a sequence."""
    if isinstance(value, bytes):
        return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))
    if isinstance(value, int):
        value = [value]
    if isinstance(value, list):
        return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=value))
    return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=value.ravel()))


def write_set(
    folder: Path,
    name: str,
    features: Mapping[str, tfds.features.FeatureConnector],
    splits: Mapping[str, list[Mapping[str, bytes | int | list[int] | np.ndarray]]],
) -> None:
    """Writes a tfds set <folder>/<name>/1.0.0 of examples with any features."""
    root = folder / name / '1.0.0'
    root.mkdir(parents=True)
    infos = []
    for split, examples in splits.items():
        shard = ShardWriter(root / f'{name}-{split}.array_record-00000-of-00001')
        for example in examples:
            values = tf_feature_pb2.Features(feature={k: stored(v) for k, v in example.items()})
            shard.write(tf_example_pb2.Example(features=values).SerializeToString())
        shard.close()
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=[len(examples)], num_bytes=0))
    tfds.folder_dataset.write_metadata(
        data_dir=root,
        features=tfds.features.FeaturesDict(dict(features)),
        split_infos=infos,
        version='1.0.0',
        check_data=False,
    )


def assert_targets(source: ArraySource, expected: Mapping[str, np.ndarray], kinds: Mapping) -> None:
    """Checks the targets of a source, their types too."""
    assert source.targets.keys() == expected.keys()
    assert source.kinds == kinds
    for name, values in expected.items():
        assert source.targets[name].dtype == values.dtype, name
        np.testing.assert_array_equal(source.targets[name], values, err_msg=name)
