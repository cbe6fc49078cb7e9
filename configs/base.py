"""Every field of a run's configuration, once: its type, default, range and meaning.

An experiment file starts from `get_config()` and says only how it differs. `scope` says whether a
field belongs to the experiment (it decides the numbers, and must be the same when a run is resumed)
or to the run (devices, paths, logging: it may change).
"""

import functools

from ml_collections import ConfigDict

from configs.schema import build
from field import Field

EXPERIMENT, RUN = 'experiment', 'run'

FIELDS = (
    Field('task', 'classification', 'What the network learns; `python train.py --list` names the '
          'tasks.'),
    Field('seed', 0, 'The source of every random draw of the run.', low=0, high=2**32 - 1,
          traced=True),
    Field('batch_size', 128, 'Examples per update, over all devices and hosts.', low=1),
    Field('epochs', 20.0, 'Length of the run in passes over the training split.', above=0),
    Field('steps', None, 'Length of the run in updates; if given, it replaces epochs.', int, low=1),
    Field('accumulate', 1, 'Micro-batches per update; divides batch_size.', low=1),
    Field('dtype', 'float32', 'Compute type; parameters, statistics and loss stay float32.',
          choices=('float32', 'bfloat16')),
    Field('ema_decay', 0.0, 'Decay of the averaged weights that evaluation uses; 0: none.',
          low=0, below=1, traced=True),
    Field('sync_batch_norm', True, 'Batch statistics over the global batch, not per device.'),
    Field('deterministic', False, 'Ask a GPU for deterministic kernels (slower); CPUs are anyway.'),
    Field('smoke', False, 'A few steps and small batches of the same run, to see that it works.'),
    # --- transfer learning; a glob matches a parameter's whole path, '*' crosses '/' --------------
    Field('init_from', None, 'Folder of a run (its last checkpoint) or of converted weights to '
          'start from; the head is new.', str),
    Field('freeze', (), "Globs of parameters that stay as they are, such as 'stem*'.", items=str),
    Field('multipliers', (), "'glob=factor', on the learning rate; the first that matches counts.",
          items=str),
    Field('layer_decay', 1.0, 'Factor on the learning rate for each layer after it.', above=0,
          high=1),
    Field('linear_probe', False, 'Train the head alone, on features that are computed once.'),
    # --- model; its options follow from the registered models' declarations -------------------
    Field('model.name', 'lenet', 'A name that `python train.py --list` prints.'),
    # --- data ----------------------------------------------------------------------------------
    Field('data.name', 'digits', 'A set that a program registers, such as digits, which is built '
          'in, or one that tools.prepare_data made.'),
    Field('data.dir', 'data', 'Folder of the prepared data sets.', scope=RUN),
    Field('data.placement', 'auto', 'Where a set in memory is kept: on the device, on the host, or '
          '(auto) on the device if it fits.', choices=('auto', 'device', 'host'), scope=RUN),
    Field('data.train_per_class', None, 'Number of training examples of each class, drawn by the '
          'seed; None: all.', int, low=1),
    Field('data.num_classes', None, 'Number of classes that the data set must have; None: any.',
          int, low=1),
    # A streamed set: encoded pictures of any size, decoded anew for every batch.
    Field('data.image_size', None, 'Side in pixels of the training crops of a streamed set; None: '
          'the set has images of one size and is held in memory.', int, low=1),
    Field('data.eval_image_size', None, 'Side in pixels of the centre crop in evaluation; None: '
          'data.image_size.', int, low=1),
    Field('data.eval_resize', None, 'Shorter side in pixels to which a picture is resized before '
          'the centre crop; None: 8/7 of the side of the crop.', int, low=1),
    Field('data.crop_scale', (0.08, 1.0), 'Range of the area of a training crop, as a fraction of '
          "the picture's."),
    Field('data.crop_ratio', (0.75, 4 / 3), 'Range of the width of a training crop over its '
          'height.'),
    Field('data.repeats', 1, 'How many times in a row an example comes, augmented anew each time.',
          low=1),
    Field('data.on_bad_record', 'stop', 'What to do at a record that does not decode: stop, or '
          'skip it (training takes the next one instead).', choices=('stop', 'skip'), scope=RUN),
    Field('data.threads', 0, 'Threads that decode; 0: one per core, or one in each worker process.',
          low=0, scope=RUN),
    Field('data.workers', 0, 'Processes that decode; 0: threads of the main process decode.',
          low=0, scope=RUN),
    Field('data.prefetch', 2, 'Number of batches that are sent to the devices ahead.', low=1,
          scope=RUN),
    Field('data.mean', (0.1307,), 'Mean of pixels in [0, 1], which is subtracted; one value for '
          'each channel, or one for all.'),
    Field('data.std', (0.3081,), 'Standard deviation of pixels in [0, 1], which is divided by; one '
          'value for each channel, or one for all.'),
    # Here stand those of tasks and augmentations; see `fields`.
    # --- optimizer; None leaves an option at its own default --------------------------------
    Field('optimizer.name', 'sgd', 'The rule of the update.',
          choices=('sgd', 'adam', 'adamw', 'lars', 'lamb', 'rmsprop')),
    Field('optimizer.learning_rate', 0.1, 'Peak of the schedule.', above=0, traced=True),
    Field('optimizer.weight_decay', 0.0, 'On kernels; biases and norms are left alone.', low=0,
          traced=True, regularizer=True),
    Field('optimizer.clip_norm', None, 'Largest global norm of the gradient.', float, above=0,
          traced=True),
    Field('optimizer.momentum', None, 'sgd, lars, rmsprop.', float, low=0, below=1, traced=True),
    Field('optimizer.nesterov', None, 'sgd, lars.', bool),
    Field('optimizer.beta1', None, 'adam, adamw, lamb.', float, low=0, below=1, traced=True),
    Field('optimizer.beta2', None, 'adam, adamw, lamb.', float, low=0, below=1, traced=True),
    Field('optimizer.epsilon', None, 'adam, adamw, lamb, rmsprop.', float, above=0, traced=True),
    Field('optimizer.decay', None, 'rmsprop: decay of the mean square.', float, low=0, below=1,
          traced=True),
    Field('optimizer.trust_coefficient', None, 'lars.', float, above=0, traced=True),
    Field('schedule.name', 'cosine', 'Shape of the learning rate after warm-up.',
          choices=('cosine', 'step', 'constant')),
    Field('schedule.unit', 'epochs', 'Unit of warmup and milestones.', choices=('epochs', 'steps')),
    Field('schedule.warmup', 0.0, 'Linear rise from zero to the peak.', low=0),
    Field('schedule.milestones', (), 'step: where the rate is multiplied by factor.'),
    Field('schedule.factor', 0.1, 'step: what it is multiplied by.', above=0, high=1),
    Field('schedule.final', 0.0, 'cosine: rate at the end, as a share of the peak.', low=0, high=1),
    # --- the run: free to change on resume ------------------------------------------------
    Field('runner', 'pmap', 'What spreads the step over the devices.', scope=RUN,
          choices=('pmap', 'shard_map')),
    Field('lowering.convolution', 'auto', "How convolutions are computed: XLA's own (native), as "
          'matrix products (patches), or the fastest for each layer. Equal up to rounding.',
          choices=('auto', 'native', 'patches'), scope=RUN),
    Field('lowering.pooling', 'auto', "Max pooling: remembering where maxima are, comparing pairs, "
          "XLA's own (window), or the fastest.", choices=('auto', 'place', 'pairs', 'window'),
          scope=RUN),
    Field('lowering.reduction', 'auto', "Sums of norm layers: XLA's own (native), of wide rows, "
          'or the faster.', choices=('auto', 'native', 'wide'), scope=RUN),
    Field('distributed', 'auto', 'Several hosts: auto, off, or host:port,processes,index.',
          scope=RUN),
    Field('distributed_timeout', 600.0, 'Seconds that a process waits for another before the run '
          'ends and says which.', above=0, scope=RUN),
    Field('devices', 0, 'Devices per process; 0: all. On a CPU, any number.',
          low=0, scope=RUN),
    Field('steps_per_call', None, 'Updates per compiled call, for a training set on the devices; 1 '
          'where a record comes sooner. None: 10 on a GPU or TPU, else 1.', int, low=1, scope=RUN),
    Field('eval_every', 1.0, 'Epochs between validations.', above=0, scope=RUN),
    Field('eval_batch_size', 1000, 'Examples per evaluation call, over all devices.', low=1,
          scope=RUN),
    Field('log_every', 20, 'Updates between records of the training metrics.', low=1, scope=RUN),
    Field('checkpoint.every', 1.0, 'Epochs between checkpoints.', above=0, scope=RUN),
    Field('checkpoint.every_steps', None, 'Updates between checkpoints; replaces every.', int,
          low=1, scope=RUN),
    Field('checkpoint.keep', 2, 'Latest checkpoints kept, beside the best one.', low=1, scope=RUN),
    Field('checkpoint.best', None, "What the best checkpoint is best at, such as "
          "'validation/loss'; None: the task's first metric.", str, scope=RUN),
    Field('profile.steps', (), '(start, stop): trace updates start + 1 to stop for TensorBoard.',
          items=int, scope=RUN),
    Field('peak_tflops', None, 'What one device could do, in TFLOP/s; None: known GPUs and TPUs.',
          float, above=0, scope=RUN),
    Field('compilation_cache', 'auto', "Folder of compiled programs; 'auto': the user's cache; "
          "'off': none.", scope=RUN),
)  # fmt: skip


@functools.cache
def _joined(options: tuple[Field, ...], brought: tuple[Field, ...]) -> tuple[Field, ...]:
    """All fields in order: the models' options follow model.name, the others the data's fields."""
    after = next(i for i, field in enumerate(FIELDS, 1) if field.name == 'model.name')
    start = next(i for i, field in enumerate(FIELDS) if field.name == 'optimizer.name')
    joined = (*FIELDS[:after], *options, *FIELDS[after:start], *brought, *FIELDS[start:])
    for names in ([field.name for field in joined], [f.leaf for f in joined if f.traced]):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f'several fields are named {", ".join(sorted(twice))}: rename one')
    return joined


def fields() -> tuple[Field, ...]:
    """Returns every field: those of every run, and those of models, tasks and augmentations.

    None leaves an option of a model at the model's own default.
    """
    # Imported here because they import JAX, which takes a second.
    from augmentation import registry as augmentations
    from models import registry as models
    from tasks import registry as tasks

    return _joined(models.config_fields(), (*tasks.fields(), *augmentations.fields()))


def get_config() -> ConfigDict:
    """Returns all fields at their defaults, locked: a misspelt name is an error at once."""
    return build(fields())
