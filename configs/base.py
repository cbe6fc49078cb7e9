"""All fields of a run's configuration, with their types, defaults, ranges and meanings.

An experiment file starts from `get_config()` and sets the fields that differ. The scope of a field
is 'experiment' if the numbers depend on it (it must be the same when a run is resumed), or 'run' if
it may change (devices, paths, logging).
"""

import functools
from typing import Any

from ml_collections import ConfigDict

from configs.schema import build, plain
from field import Field

EXPERIMENT, RUN = 'experiment', 'run'
SIDE = 10_000  # pixels; a training image of it takes more than a gigabyte

FIELDS = (
    Field('task', 'classification', 'What the network learns; a name that `python train.py --list` '
          'prints.'),
    Field('seed', 0, 'Seed of every random draw of the run.', low=0, high=2**32 - 1, traced=True),
    Field('batch_size', 128, 'Examples per update, over all devices and hosts.', low=1,
          high=10**6),
    Field('epochs', 20.0, 'Length of the run in passes over the training split.', above=0,
          high=10**6),
    Field('steps', None, 'Length of the run in updates; replaces epochs if given.', int, low=1),
    Field('accumulate', 1, 'Micro-batches per update, which save memory; divides batch_size.',
          low=1, high=10**6),
    Field('dtype', 'float32', 'Type of the computation: float32 or bfloat16. Parameters, '
          'statistics and loss stay float32.', choices=('float32', 'bfloat16')),
    Field('ema_decay', 0.0, 'Decay per update of the moving average of the weights, in [0, 1), for '
          'instance 0.999; evaluation uses the average. 0: no average.', low=0, below=1,
          traced=True),
    Field('sync_batch_norm', True, 'Compute batch norm over the global batch, not per device.'),
    Field('deterministic', False, 'Use deterministic kernels on a GPU, which are slower; CPUs are '
          'always deterministic.'),
    Field('smoke', False, 'Shorten the run to a few steps with small batches, and evaluate it on '
          'samples of the splits, as a test.'),
    # --- transfer learning; a glob matches a parameter's whole path, '*' crosses '/' --------------
    Field('init_from', None, 'Folder of weights to start from, converted or of a run (its last '
          'checkpoint); the head is new. None: random weights.', str),
    Field('freeze', (), "Globs of parameters that are not trained, such as 'stem*'; a glob matches "
          'the whole path.', items=str),
    Field('multipliers', (), "Factors on the learning rate by parameter, as 'glob=factor', such as "
          "'head/*=10'; the first glob that matches counts.", items=str),
    Field('layer_decay', 1.0, 'Factor in (0, 1] on the learning rate of each layer, applied once '
          'for every layer after it. 1: all layers learn equally fast.', above=0, high=1,
          smallest=1e-6),
    Field('linear_probe', False, 'Train only the head, on features that are computed once; needs '
          'init_from.'),
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
          'the set has images of one size and is held in memory.', int, low=1, high=SIDE),
    Field('data.eval_image_size', None, 'Side in pixels of the center crop in evaluation; None: '
          'data.image_size.', int, low=1, high=SIDE),
    Field('data.eval_resize', None, 'Shorter side in pixels to which a picture is resized before '
          'the center crop; None: 8/7 of the side of the crop.', int, low=1, high=SIDE),
    Field('data.image_height', None, 'crop=fit: height in pixels of images whose width is '
          'data.image_size; None: the same.', int, low=1, high=SIDE),
    Field('data.crop', 'area', 'Training crops of a streamed set: area (a fraction of the picture, '
          'scaled), pixels (data.image_size pixels at its own scale), or fit (the whole picture, '
          'with black around it; in evaluation too).', choices=('area', 'pixels', 'fit')),
    Field('data.crop_zoom', (1.0, 1.0), 'crop=pixels: range of the factor by which a training crop '
          'is larger than data.image_size, before it is scaled to it; crop=fit: by which the '
          'picture is smaller than one that just fits.', low=0.1, high=10),
    Field('data.crop_scale', (0.08, 1.0), 'Range of the area of a training crop, as a fraction of '
          "the picture's.", above=0, high=1, smallest=1e-6),
    Field('data.crop_ratio', (0.75, 4 / 3), 'Range of the width of a training crop over its '
          'height.', low=0.01, high=100),
    Field('data.tile', None, 'Side in pixels, a multiple of 64, of the overlapping tiles that '
          'segmentation cuts whole pictures into, in evaluation and prediction; None: '
          'data.image_size rounded up, 256 for a set in memory.', int, low=64, high=SIDE),
    Field('data.repeats', 1, 'How many times in a row an example comes, augmented anew each time.',
          low=1, high=1000),
    Field('data.on_bad_record', 'stop', 'What to do at a record that does not decode: stop, or '
          'skip it (training takes the next one instead).', choices=('stop', 'skip'), scope=RUN),
    Field('data.threads', 0, 'Threads that decode; 0: one per core, or one in each worker process.',
          low=0, high=1024, scope=RUN),
    Field('data.workers', 0, 'Processes that decode; 0: threads of the main process decode.',
          low=0, high=1024, scope=RUN),
    Field('data.prefetch', 2, 'Number of batches that are sent to the devices ahead.', low=1,
          high=1000, scope=RUN),
    Field('data.mean', (0.1307,), 'Mean of pixels in [0, 1], which is subtracted; one value for '
          'each channel, or one for all.', low=0, high=1),
    Field('data.std', (0.3081,), 'Standard deviation of pixels in [0, 1], which is divided by; one '
          'value for each channel, or one for all.', low=0.001, high=1),
    # The fields of tasks and augmentations follow here; see `fields`.
    # --- optimizer; None leaves an option at the optimizer's own default --------------------
    Field('optimizer.name', 'sgd', 'Name of the optimizer: sgd, adam, adamw, lars, lamb or '
          'rmsprop.', choices=('sgd', 'adam', 'adamw', 'lars', 'lamb', 'rmsprop')),
    Field('optimizer.learning_rate', 0.1, 'Peak learning rate; the schedule multiplies it by a '
          'fraction.', above=0, high=1e30, traced=True),
    Field('optimizer.weight_decay', 0.0, 'Factor on the weights that is added to the gradient (L2; '
          'adamw, lamb: to the update, decoupled). Kernels only.', low=0, high=10**6,
          traced=True, regularizer=True),
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
          'outside of the square root as in PyTorch. None: 1e-8; lamb: 1e-6.', float, above=0,
          high=1, smallest=1e-30, traced=True),
    Field('optimizer.epsilon_in_root', None, 'rmsprop: whether epsilon is added inside of the '
          'square root, where it acts like its own root: 1e-8 like 1e-4. Runs from before this '
          'field did so. None: False.', bool),
    Field('optimizer.decay', None, 'rmsprop: decay per update of the mean of squared gradients, in '
          '[0, 1). None: 0.9.', float, low=0, below=1, traced=True),
    Field('optimizer.trust_coefficient', None, "lars: factor on the ratio of a kernel's norm to "
          "its update's norm. None: 0.001.", float, above=0, high=1000, traced=True),
    Field('schedule.name', 'cosine', 'Shape of the learning rate after warm-up: cosine, step or '
          'constant.', choices=('cosine', 'step', 'constant')),
    Field('schedule.unit', 'epochs', 'Unit of warmup and milestones: epochs or steps.',
          choices=('epochs', 'steps')),
    Field('schedule.warmup', 0.0, 'Duration of the linear rise from 0 to the peak, in units.',
          low=0),
    Field('schedule.milestones', (), 'step: times, in units, at which the learning rate is '
          'multiplied by factor.', above=0),
    Field('schedule.factor', 0.1, 'step: factor on the learning rate at a milestone, in (0, 1].',
          above=0, high=1, smallest=1e-6),
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
          'run then ends and names it.', low=0.1, high=10**7, scope=RUN),
    Field('devices', 0, 'Devices per process; 0: all. A CPU can be split into up to 256.', low=0,
          high=256, scope=RUN),
    Field('steps_per_call', None, 'Updates per call, with the training set on the devices; 1 if a '
          'report is due in between. None: 10 on GPUs and TPUs, else 1.', int, low=1,
          high=10_000, scope=RUN),
    Field('eval_every', 1.0, 'Epochs between validations; fractions are allowed.', above=0,
          scope=RUN),
    Field('eval_batch_size', 1000, 'Examples per evaluation call, over all devices and hosts.',
          low=1, high=10**6, scope=RUN),
    Field('log_every', 20, 'Updates between records of the training metrics.', low=1, scope=RUN),
    Field('checkpoint.every', 1.0, 'Epochs between checkpoints; fractions are allowed.', above=0,
          scope=RUN),
    Field('checkpoint.every_steps', None, 'Updates between checkpoints; replaces every if given.',
          int, low=1, scope=RUN),
    Field('checkpoint.keep', 2, 'Number of latest checkpoints to keep besides the best one.', low=1,
          high=10**6, scope=RUN),
    Field('checkpoint.best', None, 'Metric by which the best checkpoint is chosen, such as '
          "'validation/loss'. None: the task's first metric.", str, scope=RUN),
    Field('profile.steps', (), '(start, stop): trace updates start + 1 to stop for TensorBoard.',
          items=int, low=0, scope=RUN),
    Field('peak_tflops', None, 'Peak TFLOP/s of one device, for the utilization. None: from a '
          'table of GPUs and TPUs.', float, above=0, scope=RUN),
    Field('compilation_cache', 'auto', "Folder for compiled programs. 'auto': the user's cache "
          "folder; 'off': none. A JSON file cannot choose the folder.", scope=RUN),
)  # fmt: skip


@functools.cache
def _joined(options: tuple[Field, ...], brought: tuple[Field, ...]) -> tuple[Field, ...]:
    """Returns all fields in order: models' options after model.name, the others after data.*."""
    after = next(i for i, field in enumerate(FIELDS, 1) if field.name == 'model.name')
    start = next(i for i, field in enumerate(FIELDS) if field.name == 'optimizer.name')
    joined = (*FIELDS[:after], *options, *FIELDS[after:start], *brought, *FIELDS[start:])
    for names in ([field.name for field in joined], [f.leaf for f in joined if f.traced]):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f'several fields are named {", ".join(sorted(twice))}: rename one')
    return joined


def fields() -> tuple[Field, ...]:
    """Returns all fields: those of every run, and those of models, tasks and augmentations.

    None leaves an option of a model at the model's own default.
    """
    # Imported here because they import JAX, which takes a second.
    from augmentation import registry as augmentations
    from models import registry as models
    from tasks import registry as tasks

    return _joined(models.config_fields(), (*tasks.fields(), *augmentations.fields()))


def as_written(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a stored configuration, with the meaning that they had back then.

    Before there was optimizer.epsilon_in_root, rmsprop had epsilon in the root.
    """
    optimizer = values.get('optimizer')
    if (
        isinstance(optimizer, dict)
        and optimizer.get('name') == 'rmsprop'
        and 'epsilon' in optimizer
    ):
        return {**values, 'optimizer': {'epsilon_in_root': True, **optimizer}}
    return values


def stored(config: ConfigDict) -> dict[str, Any]:
    """Returns a configuration as files keep it, so that any program can read it.

    Fields that a program has registered for another task, model or augmentation than this run uses
    are left out where they have their defaults: a program without them would refuse the file.
    """
    from augmentation.rows import ROWS
    from models import registry as models
    from tasks import registry as tasks

    own = {field.name for field in (*FIELDS, *tasks.get(config.task).fields)}
    own |= {f'model.{option}' for option in models.options(config.model.name)}
    own |= {field.name for row in ROWS for field in row.fields}
    foreign = [f for f in fields() if f.name not in own and f.is_default(config)]
    values = plain(config)
    for field in foreign:
        section, _, leaf = field.name.rpartition('.')
        holder = values[section] if section else values
        del holder[leaf]
        if section and not holder:
            del values[section]
    return values


def get_config() -> ConfigDict:
    """Returns all fields with their defaults, locked, so that a misspelled name is an error."""
    return build(fields())
