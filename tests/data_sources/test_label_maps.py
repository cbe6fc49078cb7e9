"""Instance maps in the records of a data set: as tensors and as pictures."""

import io
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.proto import tf_feature_pb2

from data_sources.label_maps import InstanceMap

VALUES = np.array([[0, 1, 65_535], [256, 255, 7]], np.uint16)
ANY_SIZE = {'shape': (None, None, 1), 'dtype': np.uint16}


def record(value, shape=None):
    """The features of a record: a picture, or a tensor of a shape."""
    stored = tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))
    if shape is None:
        return {'map': stored}
    shape = tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=shape))
    return {'map/value': stored, 'map/shape': shape}


def picture():
    file = io.BytesIO()
    Image.fromarray(VALUES).save(file, 'PNG')
    return file.getvalue()


@pytest.mark.parametrize(
    'features', [record(picture()), record(zlib.compress(VALUES.tobytes()), (2, 3, 1))]
)
def test_pictures_and_tensors_hold_the_same_numbers(features):
    found = InstanceMap().read('map', features)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, VALUES)


@pytest.mark.parametrize(
    'shape', [(), (2, 3), (3, 3, 1), (2, 2, 1), (0, 3, 1), (-2, -3, 1), (1 << 20, 1 << 20, 1)]
)
def test_a_tensor_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match='an instance map of shape'):
        InstanceMap().read('map', record(zlib.compress(VALUES.tobytes()), shape))


def test_no_more_is_unpacked_than_the_shape_says():
    packed = zlib.compress(bytes(1 << 28))  # 256 MiB in a quarter of one
    with pytest.raises(ValueError, match='in another number of bytes'):
        InstanceMap().read('map', record(packed, (2, 3, 1)))


def test_which_features_of_tfds_it_accepts():
    kind = InstanceMap()
    assert kind.accepts(tfds.features.Tensor(**ANY_SIZE, encoding='zlib'))
    assert kind.accepts(tfds.features.Image(**ANY_SIZE))
    assert kind.accepts(tfds.features.Image(**ANY_SIZE, encoding_format='png'))
    for other in (
        tfds.features.Tensor(**ANY_SIZE, encoding='bytes'),
        tfds.features.Tensor(**ANY_SIZE),
        tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint16, encoding='zlib'),
        tfds.features.Image(shape=(None, None, 1), dtype=np.uint8),
        tfds.features.Tensor(shape=(None, None, 3), dtype=np.uint16, encoding='zlib'),
        tfds.features.Tensor(shape=(1,), dtype=np.uint16, encoding='zlib'),
        tfds.features.ClassLabel(num_classes=3),
    ):
        assert not kind.accepts(other)
