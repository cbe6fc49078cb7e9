"""What makes a folder of shards a tfds data set: examples, and the files that describe them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from preparation.sharded_writer import Totals


def serialized(values: Mapping[str, bytes | int | Sequence[int] | np.ndarray]) -> bytes:
    """Returns one example as tfds serialises it, but always as the same bytes.

    Args:
      values: {feature: an encoded picture, a text in UTF-8, whole numbers, or an array of float32}.
    """
    feature = {name: _feature(value) for name, value in values.items()}
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=feature))
    return example.SerializeToString(deterministic=True)  # a map has no order otherwise


def _feature(value: bytes | int | Sequence[int] | np.ndarray) -> tf_feature_pb2.Feature:
    if isinstance(value, bytes):
        return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))
    if isinstance(value, np.ndarray):
        return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=value.ravel()))
    numbers = [value] if isinstance(value, int) else value
    return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=numbers))


def describe(
    folder: Path,
    features: Mapping[str, Any],
    splits: Mapping[str, Totals],
    metadata: Mapping[str, Any],
    supervised_keys: tuple[str, str],
    **about: str,
) -> None:
    """Writes dataset_info.json, features.json and related files beside the shards.

    Args:
      folder: of the shards.
      features: {name: tfds feature} of an example.
      splits: what was written.
      metadata: what else there is to know, as JSON; it becomes builder.info.metadata.
      supervised_keys: the features that are input and target.
      about: version, description, homepage and citation of the set.
    """
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=tfds.features.FeaturesDict(dict(features)),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[records for records, _, _ in total.shards],
                num_bytes=sum(size for _, size, _ in total.shards),
            )
            for split, total in splits.items()
        ],
        check_data=False,  # tfds's own check needs TensorFlow
        supervised_keys=supervised_keys,
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(metadata),
        **about,
    )
