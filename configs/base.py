"""All fields of a run's configuration, with their types, defaults, ranges and meanings.

An experiment file starts from `get_config()` and sets the fields that differ. The scope of a field
is 'experiment' if the numbers depend on it (it must be the same when a run is resumed), or 'run' if
it may change (devices, paths, logging).
"""

import functools

from ml_collections import ConfigDict

from configs.schema import build
from field import Field

EXPERIMENT, RUN = 'experiment', 'run'

FIELDS = (
    Field('task', 'classification', 'What the network learns; a name that `python train.py --list` '
          'prints.'),
    Field('seed', 0, 'Seed of every random draw of the run.', low=0, high=2**32 - 1, traced=True),
    Field('batch_size', 128, 'Examples per update, over all devices and hosts.', low=1),
    Field('epochs', 20.0, 'Length of the run in passes over the training split.', above=0),
    Field('steps', None, 'Length of the run in updates; replaces epochs if given.', int, low=1),
    Field('accumulate', 1, 'Micro-batches per update, which save memory; divides batch_size.',
          low=1),
    Field('dtype', 'float32', 'Type of the computation: float32 or bfloat16. Parameters, '
          'statistics and loss stay float32.', choices=('float32', 'bfloat16')),
    Field('ema_decay', 0.0, 'Decay per update of the moving average of the weights, in [0, 1), for '
          'instance 0.999; evaluation uses the average. 0: no average.', low=0, below=1,
          traced=True),
    Field('sync_batch_norm', True, 'Compute batch norm over the global batch, not per device.'),
    Field('deterministic', False, 'Use deterministic kernels on a GPU, which are slower; CPUs are '
          'always deterministic.'),
    Field('smoke', False, 'Shorten the run to a few steps with small batches, as a test.'),
    # --- transfer learning; a glob matches a parameter's whole path, '*' crosses '/' --------------
    Field('init_from', None, 'Folder of weights to start from, converted or of a run (its last '
          'checkpoint); the head is new. None: random weights.', str),
    Field('freeze', (), "Globs of parameters that are not trained, such as 'stem*'; a glob matches "
          'the whole path.', items=str),
    Field('multipliers', (), "Factors on the learning rate by parameter, as 'glob=factor', such as "
          "'head/*=10'; the first glob that matches counts.", items=str),
    Field('layer_decay', 1.0, 'Factor in (0, 1] on the learning rate of each layer, applied once '
          'for every layer after it. 1: all layers learn equally fast.', above=0, high=1),
    Field('linear_probe', False, 'Train only the head, on features that are computed once; needs '
          'init_from.'),
    # --- model; None leaves an option at the model's own default -----------------------------
    Field('model.name', 'lenet', 'A name that `python train.py --list` prints.'),
    Field('model.dropout_rate', None, 'Probability of dropping a unit.', float, low=0, below=1),
    Field('model.initialization', None, 'First kernels: he (normal) or uniform (PyTorch\'s).', str),
    Field('model.activation', None, 'Nonlinearity: relu or tanh.', str),
    Field('model.pooling', None, 'Pooling: max or average.', str),
    Field('model.normalization', None, 'Normalisation layers: batch, group or none.', str),
    Field('model.stem', None, 'First layers: imagenet, or for small images cifar or mnist.', str),
    Field('model.stochastic_depth', None, 'resnet: rate of dropping the last block.', float,
          low=0, below=1),
    Field('model.zero_init', None, 'resnet: start each block as the identity.', bool),
    Field('model.remat', None, 'resnet, densenet: less memory, a third more arithmetic.', bool),
    Field('model.downsample', None, 'How strided_cnn halves the image: stride or max_pool.', str),
    Field('model.units', None, 'Units per hidden layer of fcn.', int, low=1),
    Field('model.depth', None, 'Hidden layers of fcn.', int, low=0),
    Field('model.width', None, 'Factor on the number of filters.', float, above=0, high=100),
    # --- data ----------------------------------------------------------------------------------
    Field('data.name', 'digits', "'digits' is built in; tools.prepare_data makes others."),
    Field('data.dir', 'data', 'Folder of the prepared data sets.', scope=RUN),
    Field('data.placement', 'auto', 'Where images wait: on the device if they fit, or the host.',
          choices=('auto', 'device', 'host'), scope=RUN),
    Field('data.train_per_class', None, 'Training examples of each class, drawn by the seed; None: '
          'all.', int, low=1),
    Field('data.num_classes', None, 'Classes that the data set must have; None: any.', int, low=1),
    # A streamed set: encoded pictures of any size, decoded anew for every batch.
    Field('data.image_size', None, 'Side in pixels that training crops of a streamed set get; '
          'None: images of one size, whole in memory.', int, low=1),
    Field('data.eval_image_size', None, 'Side of the centre crop in evaluation; None: image_size.',
          int, low=1),
    Field('data.eval_resize', None, 'Shorter side before the centre crop; None: 8/7 of its side.',
          int, low=1),
    Field('data.crop_scale', (0.08, 1.0), 'Range of the crop\'s share of the area.'),
    Field('data.crop_ratio', (0.75, 4 / 3), 'Range of the crop\'s width over its height.'),
    Field('data.repeats', 1, 'Times that an example comes in a row, augmented anew each time.',
          low=1),
    Field('data.on_bad_record', 'stop', 'A record that does not decode: stop, or skip (replaced).',
          choices=('stop', 'skip'), scope=RUN),
    Field('data.threads', 0, 'Threads that decode; 0: one per core, or one in each worker.', low=0,
          scope=RUN),
    Field('data.workers', 0, 'Processes that decode; 0: threads of this one.', low=0, scope=RUN),
    Field('data.prefetch', 2, 'Batches that wait on the device.', low=1, scope=RUN),
    Field('data.mean', (0.1307,), 'Per channel, of pixels in [0, 1]; subtracted. One serves all.'),
    Field('data.std', (0.3081,), 'Per channel, of pixels in [0, 1]; divided by. One serves all.'),
    Field('augment.shift', 0.0, 'Largest shift along each axis, in pixels.', low=0),
    Field('augment.rotate', 0.0, 'Largest rotation either way, in degrees.', low=0, high=180),
    Field('augment.scale', 0.0, 'Largest relative change of size either way.', low=0, below=1),
    Field('augment.flip', 0.0, 'Probability of mirroring left to right.', low=0, high=1),
    Field('augment.crop', 0, 'Pixels of zeros around an image in memory, before it is cropped at '
          'random to its size.', low=0),
    Field('augment.mixup', 0.0, 'mixup: parameter of Beta, which shares are drawn of; 0: off.',
          low=0),
    Field('augment.cutmix', 0.0, 'CutMix: parameter of Beta, which shares are drawn of; 0: off.',
          low=0),
    Field('augment.mix_probability', 1.0, 'That a pair of images is mixed.', above=0, high=1),
    Field('augment.cutmix_share', 0.5, 'Share of CutMix where mixup is on, too.', low=0, high=1),
    Field('augment.erase', 0.0, 'Probability of erasing a box.', low=0, high=1),
    Field('augment.erase_mode', 'noise', 'What the box is filled with; zero is the mean colour.',
          choices=('noise', 'zero')),
    # On the host, for streamed sets.
    Field('augment.policy', 'none', 'Random operations on a crop, drawn from a table.',
          choices=('none', 'randaugment', 'trivialaugment')),
    Field('augment.layers', 2, 'randaugment: operations per image.', low=1),
    Field('augment.magnitude', 9.0, 'randaugment: strength, of 10.', low=0, high=10),
    Field('augment.magnitude_std', 0.0, 'randaugment: spread of the strength.', low=0),
    Field('augment.op_probability', 1.0, 'randaugment: that an operation drawn is applied.', low=0,
          high=1),
    Field('augment.color_jitter', (0.0, 0.0, 0.0, 0.0), 'Largest change of brightness, contrast, '
          'saturation (relative) and hue (turns, at most 0.5).'),
    # --- optimizer; None leaves an option at the optimizer's own default --------------------
    Field('optimizer.name', 'sgd', 'Name of the optimizer: sgd, adam, adamw, lars, lamb or '
          'rmsprop.', choices=('sgd', 'adam', 'adamw', 'lars', 'lamb', 'rmsprop')),
    Field('optimizer.learning_rate', 0.1, 'Peak learning rate; the schedule multiplies it by a '
          'fraction.', above=0, traced=True),
    Field('optimizer.weight_decay', 0.0, 'Factor on the weights that is added to the gradient (L2; '
          'adamw, lamb: to the update, decoupled). Kernels only.', low=0, traced=True,
          regularizer=True),
    Field('optimizer.clip_norm', None, 'Largest global norm of the gradient, which is scaled down '
          'to it. None: no limit.', float, above=0, traced=True),
    Field('optimizer.momentum', None, 'sgd, lars, rmsprop: fraction in [0, 1) of the accumulated '
          'gradients that is kept per update. None: 0.9; rmsprop: 0.', float, low=0, below=1,
          traced=True),
    Field('optimizer.nesterov', None, "sgd, lars: use Nesterov's form of momentum. None: True for "
          'sgd, False for lars.', bool),
    Field('optimizer.beta1', None, 'adam, adamw, lamb: decay per update of the mean of gradients, '
          'in [0, 1). None: 0.9.', float, low=0, below=1, traced=True),
    Field('optimizer.beta2', None, 'adam, adamw, lamb: decay per update of the mean of squared '
          'gradients, in [0, 1). None: 0.999.', float, low=0, below=1, traced=True),
    Field('optimizer.epsilon', None, 'adam, adamw, lamb, rmsprop: added to the denominator, '
          'outside of the square root (rmsprop: inside). None: 1e-8; lamb: 1e-6.', float, above=0,
          traced=True),
    Field('optimizer.decay', None, 'rmsprop: decay per update of the mean of squared gradients, in '
          '[0, 1). None: 0.9.', float, low=0, below=1, traced=True),
    Field('optimizer.trust_coefficient', None, "lars: factor on the ratio of a kernel's norm to "
          "its update's norm. None: 0.001.", float, above=0, traced=True),
    Field('schedule.name', 'cosine', 'Shape of the learning rate after warm-up: cosine, step or '
          'constant.', choices=('cosine', 'step', 'constant')),
    Field('schedule.unit', 'epochs', 'Unit of warmup and milestones: epochs or steps.',
          choices=('epochs', 'steps')),
    Field('schedule.warmup', 0.0, 'Duration of the linear rise from 0 to the peak, in units.',
          low=0),
    Field('schedule.milestones', (), 'step: times, in units, at which the learning rate is '
          'multiplied by factor.'),
    Field('schedule.factor', 0.1, 'step: factor on the learning rate at a milestone, in (0, 1].',
          above=0, high=1),
    Field('schedule.final', 0.0, 'cosine: learning rate at the end, as a fraction of the peak.',
          low=0, high=1),
    # --- the run: free to change on resume ------------------------------------------------
    Field('runner', 'pmap', 'How the step runs on several devices: jax.pmap or jax.shard_map.',
          scope=RUN, choices=('pmap', 'shard_map')),
    Field('lowering.convolution', 'auto', "Convolutions: native (XLA's), patches (matrix "
          'products), or auto (the fastest for each layer). Equal up to rounding.',
          choices=('auto', 'native', 'patches'), scope=RUN),
    Field('lowering.pooling', 'auto', "Max pooling: window (XLA's), place (stores the positions of "
          'maxima), pairs (compares shifted maps), or auto (the fastest).',
          choices=('auto', 'place', 'pairs', 'window'), scope=RUN),
    Field('lowering.reduction', 'auto', "Sums of norm layers: native (XLA's), wide (rows of "
          'several positions), or auto (the fastest).', choices=('auto', 'native', 'wide'),
          scope=RUN),
    Field('distributed', 'auto', 'Processes of the run: auto (from the cluster), off (one '
          'process), or host:port,processes,index.', scope=RUN),
    Field('distributed_timeout', 600.0, 'Seconds for which a process waits for another one; the '
          'run then ends and names it.', above=0, scope=RUN),
    Field('devices', 0, 'Devices per process; 0: all. A CPU can be split into any number.', low=0,
          scope=RUN),
    Field('steps_per_call', None, 'Updates per call, with the training set on the devices; 1 if a '
          'report is due in between. None: 10 on GPUs and TPUs, else 1.', int, low=1, scope=RUN),
    Field('eval_every', 1.0, 'Epochs between validations; fractions are allowed.', above=0,
          scope=RUN),
    Field('eval_batch_size', 1000, 'Examples per evaluation call, over all devices and hosts.',
          low=1, scope=RUN),
    Field('log_every', 20, 'Updates between records of the training metrics.', low=1, scope=RUN),
    Field('checkpoint.every', 1.0, 'Epochs between checkpoints; fractions are allowed.', above=0,
          scope=RUN),
    Field('checkpoint.every_steps', None, 'Updates between checkpoints; replaces every if given.',
          int, low=1, scope=RUN),
    Field('checkpoint.keep', 2, 'Number of latest checkpoints to keep besides the best one.', low=1,
          scope=RUN),
    Field('checkpoint.best', None, 'Metric by which the best checkpoint is chosen, such as '
          "'validation/loss'. None: the task's first metric.", str, scope=RUN),
    Field('profile.steps', (), '(start, stop): trace updates start + 1 to stop for TensorBoard.',
          items=int, scope=RUN),
    Field('peak_tflops', None, 'Peak TFLOP/s of one device, for the utilization. None: from a '
          'table of GPUs and TPUs.', float, above=0, scope=RUN),
    Field('compilation_cache', 'auto', "Folder for compiled programs. 'auto': the user's cache "
          "folder; 'off': none.", scope=RUN),
)  # fmt: skip


@functools.cache
def _joined(own: tuple[Field, ...]) -> tuple[Field, ...]:
    known = {field.name for field in FIELDS}
    return (*FIELDS, *(field for field in own if field.name not in known))


def fields() -> tuple[Field, ...]:
    """Returns all fields: those of every run, and those of the tasks."""
    # Imported here because it imports JAX, which takes a second.
    from tasks import registry

    return _joined(registry.fields())


def get_config() -> ConfigDict:
    """Returns all fields with their defaults, locked, so that a misspelled name is an error."""
    return build(fields())
