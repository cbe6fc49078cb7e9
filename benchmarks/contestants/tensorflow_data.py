"""tf.data as a contestant: TFRecord, fused decode and crop, resize, flip.

Runs in a Python that has TensorFlow. The images come from a TFRecord file in the page cache, as
ours come from ArrayRecord. The order within a batch is left free, which is the faster way.

Its own sampler draws the boxes' height uniformly, not their area: they have fewer pixels than those
of a random-resized crop. With work['boxes'] it takes ours instead.
"""

import json
import os
from pathlib import Path

import channel

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')


def write_records(tf, work):
    """Writes the encoded pictures to one TFRecord file; returns its path and their number."""
    path = str(Path(work['scratch']) / f'{os.getpid()}.tfrecord')
    files = sorted(Path(work['pictures']).glob('*/*'))
    with tf.io.TFRecordWriter(path) as writer:
        for label, file in enumerate(files):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file.read_bytes()]))
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
            features = tf.train.Features(feature={'image': image, 'label': label})
            writer.write(tf.train.Example(features=features).SerializeToString())
    return path, len(files)


def make_sampler(tf, work):
    """Returns (encoded, number of the picture) -> top, left, height, width."""
    if work.get('boxes'):
        boxes = tf.constant(json.loads(Path(work['boxes']).read_text()), tf.int32)

        def drawn(encoded, number):
            return boxes[number, tf.random.uniform([], 0, boxes.shape[1], tf.int32)]

        return drawn

    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])

    def sampled(encoded, number):
        crop = {'area_range': work['scale'], 'aspect_ratio_range': work['ratio']}
        crop |= {'min_object_covered': 0.0, 'max_attempts': 10}
        crop |= {'use_image_if_no_bounding_boxes': True}
        shape = tf.io.extract_jpeg_shape(encoded)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(shape, whole, **crop)
        return tf.stack([begin[0], begin[1], extent[0], extent[1]])

    return sampled


def make_decoder(tf, work):
    """Returns serialised example -> uint8 [size, size, 3]."""
    size, sample = work['size'], make_sampler(tf, work)
    kinds = {'image': tf.string, 'label': tf.int64}
    features = {name: tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}

    def decode(serialised):
        example = tf.io.parse_single_example(serialised, features)
        box = sample(example['image'], tf.cast(example['label'], tf.int32))
        image = tf.image.decode_and_crop_jpeg(example['image'], box, channels=3)
        image = tf.image.resize(image, (size, size), antialias=work['antialias'])
        image = tf.image.random_flip_left_right(image)
        return tf.saturate_cast(tf.round(image), tf.uint8)

    return decode


def compete(answers, work):
    """Serves batches of uint8 [batch_size, size, size, 3]."""
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(work['threads'])
    tf.config.threading.set_intra_op_parallelism_threads(work['threads'])
    path, count = write_records(tf, work)
    options = tf.data.Options()
    options.deterministic = False
    options.threading.private_threadpool_size = work['threads']
    options.threading.max_intra_op_parallelism = 1
    options.autotune.ram_budget = 1 << 30
    data = tf.data.TFRecordDataset(path).shuffle(count).repeat()
    data = data.map(make_decoder(tf, work), num_parallel_calls=work['threads'])
    data = data.batch(work['batch_size'], drop_remainder=True).prefetch(2).with_options(options)
    answers.serve(data.as_numpy_iterator(), versions={'tensorflow': tf.__version__})


if __name__ == '__main__':
    channel.run(compete)
