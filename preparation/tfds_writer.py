"""Writes small image sets as data sets that tfds itself can read; TensorFlow is not needed.

A data set gets its final name by one rename, after it was read back and compared. A run that was
killed or ran out of disk space leaves nothing that looks finished.
"""

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

import files
from data_sources import png, tfds_sets
from data_sources.arrays import ArraySource
from errors import UserError
from preparation.shards import ShardWriter, locked


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A labelled image set to be written.

    Attributes:
      name: a tfds name, made of lower-case letters, digits and underscores.
      version: 'major.minor.patch'.
      examples: split -> (images uint8 [n, height, width, channels], labels int32 [n]); validation
        is optional.
      class_names: the names of the classes in the order of their labels.
      description: a sentence for the data set's information file.
      homepage: an address, or ''.
      citation: a BibTeX entry, or ''.
      facts: what else there is to know, as JSON; it becomes builder.info.metadata.
    """

    name: str
    version: str
    examples: Mapping[str, tuple[np.ndarray, np.ndarray]]
    class_names: tuple[str, ...]
    description: str
    homepage: str = ''
    citation: str = ''
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for split, (images, labels) in self.examples.items():
            # An ArraySource checks its examples when it is made.
            ArraySource(self.name, split, images, {'label': labels}, self.class_names)


def prepare(image_set: ImageSet, data_dir: Path) -> bool:
    """Writes `image_set` to <data_dir>/<name>/<version>/ unless it is there already.

    The bytes depend on the set alone. The examples keep their order.

    Returns:
      True if the set was written, False if the folder has exactly these examples already.

    Raises:
      UserError: the folder contains something else (which is left unchanged), another process is
        preparing the same set, or the disk is full or not writable.
    """
    folder = data_dir / image_set.name / image_set.version
    unfinished = folder.with_name(f'{folder.name}.incomplete')
    try:
        with locked(folder.parent):
            if folder.exists():
                _compare(image_set, folder)
                return False
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                # The rename comes last: the final name promises complete contents on disk.
                _write(image_set, unfinished)
                _compare(image_set, unfinished)
                files.flush_folder(unfinished)
                os.rename(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f'Cannot write {folder}: {error.strerror or error}. Free some space, or choose another '
            '--data_dir.'
        ) from error
    return True


def _write(image_set: ImageSet, folder: Path) -> None:
    """Writes one shard for each split, then the files that describe them."""
    folder.mkdir()
    shape = next(iter(image_set.examples.values()))[0].shape[1:]
    features = tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(shape=shape, dtype=np.uint8, encoding_format='png'),
            'label': tfds.features.ClassLabel(names=image_set.class_names),
        }
    )
    infos = []
    for split, (images, labels) in image_set.examples.items():
        path = folder / f'{image_set.name}-{split}.array_record-00000-of-00001'
        size = _write_shard(path, images, labels)
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=[len(labels)], num_bytes=size))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=infos,
        version=image_set.version,
        check_data=False,  # tfds's own check needs TensorFlow; _compare is stricter
        description=image_set.description,
        homepage=image_set.homepage,
        citation=image_set.citation,
        supervised_keys=('image', 'label'),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(image_set.facts) if image_set.facts else None,
    )


def _write_shard(path: Path, images: np.ndarray, labels: np.ndarray) -> int:
    """Writes one ArrayRecord file of serialised examples; returns the size of the examples."""
    size = 0
    shard = ShardWriter(path)
    for image, label in zip(images, labels, strict=True):
        record = _serialize(image, int(label))
        shard.write(record)
        size += len(record)
    shard.close()
    return size


def _serialize(image: np.ndarray, label: int) -> bytes:
    """Serialises one example as tfds does, but always to the same bytes."""
    encoded = tf_feature_pb2.BytesList(value=[png.encode(image)])
    feature = {
        'image': tf_feature_pb2.Feature(bytes_list=encoded),
        'label': tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[label])),
    }
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=feature))
    return example.SerializeToString(deterministic=True)  # a map has no order otherwise


def _compare(image_set: ImageSet, folder: Path) -> None:
    """Reads `folder` back and checks that it contains exactly the examples of `image_set`."""
    stored = tfds_sets.read_stored(folder, image_set.name)
    same = stored.keys() == image_set.examples.keys() and all(
        source.class_names == image_set.class_names
        and np.array_equal(source.images, image_set.examples[split][0])
        and np.array_equal(source.labels, image_set.examples[split][1])
        for split, source in stored.items()
    )
    if not same:
        raise UserError(
            f'{folder} contains other examples than the source. Remove that folder to prepare it '
            'again, or choose another --name or --data_dir.'
        )
    if image_set.facts.get('handwriting') and not all(s.handwriting for s in stored.values()):
        raise UserError(
            f'{folder} has these examples already, but was prepared without --handwriting: remove '
            'that folder to prepare it again.'
        )
