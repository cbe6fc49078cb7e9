"""Builds a configuration from its fields; checks, overrides, compares and describes it."""

import ast
import difflib
import re
import textwrap
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from errors import UserError, shortened
from field import Field

HELP_WIDTH = 100  # columns
# What fields are called elsewhere, for suggestions; the fields themselves have one name each.
_CALLED = {
    'optimizer.learning_rate': 'lr rate base_lr max_lr peak_lr init_lr',
    'optimizer.weight_decay': 'wd l2 weightdecay',
    'optimizer.momentum': 'mom mu',
    'optimizer.epsilon': 'eps',
    'optimizer.beta1': 'b1 betas',
    'optimizer.beta2': 'b2',
    'optimizer.clip_norm': 'clip clip_grad grad_clip gradient_clip clip_grad_norm max_grad_norm',
    'optimizer.name': 'opt optim optimizer solver',
    'schedule.name': 'sched scheduler schedule lr_scheduler lr_schedule',
    'schedule.warmup': 'warm_up warmup_epochs warmup_steps lr_warmup_epochs',
    'schedule.milestones': 'steps_at decay_epochs lr_steps lr_milestones',
    'schedule.factor': 'gamma lr_gamma decay_rate',
    'batch_size': 'bs b batch batchsize train_batch_size per_device_train_batch_size',
    'eval_batch_size': 'val_batch_size test_batch_size validation_batch_size',
    'epochs': 'epoch ep num_epochs n_epochs nb_epochs max_epochs num_train_epochs',
    'steps': 'step max_steps num_steps train_steps total_steps iters iterations max_iters',
    'accumulate': 'accum grad_accum accumulation accumulation_steps accumulate_grad_batches '
    'gradient_accumulation_steps grad_accum_steps',
    'dtype': 'amp fp16 bf16 half precision mixed_precision',
    'ema_decay': 'ema model_ema ema_rate model_ema_decay',
    'seed': 'random_seed manual_seed rng random_state',
    'smoke': 'debug dry_run fast_dev_run',
    'init_from': 'pretrained weights init finetune checkpoint_path ckpt load_from',
    'layer_decay': 'llrd layerwise_decay',
    'model.name': 'model arch architecture net network backbone',
    'model.dropout_rate': 'dropout drop drop_rate dropout_prob',
    'model.stochastic_depth': 'drop_path drop_path_rate droppath',
    'data.name': 'data dataset data_set',
    'data.dir': 'data_dir data_path datadir root data_root dataroot',
    'data.workers': 'num_workers n_workers nworkers j',
    'data.threads': 'num_threads n_threads',
    'data.image_size': 'size img_size imgsz input_size resolution crop_size train_crop_size',
    'data.num_classes': 'classes n_classes nb_classes nclass',
    'label_smoothing': 'smoothing smooth ls',
    'augment.flip': 'hflip horizontal_flip',
    'augment.rotate': 'rotation degrees',
    'augment.erase': 'reprob random_erase random_erasing erase_prob',
    'augment.policy': 'aa autoaugment auto_augment randaugment rand_augment',
    'augment.color_jitter': 'jitter colorjitter',
    'devices': 'device gpu gpus num_gpus n_gpus n_gpu ngpu cpus num_devices',
    'log_every': 'log_interval log_freq print_freq print_every log_steps',
    'eval_every': 'eval_interval eval_freq val_every val_freq val_interval check_val_every_n_epoch',
    'checkpoint.every': 'save_every save_freq save_interval checkpoint_every',
    'checkpoint.keep': 'save_total_limit max_to_keep keep_last',
    'compilation_cache': 'cache cache_dir jit_cache',
}
ALIASES = {alias: name for name, called in _CALLED.items() for alias in called.split()}


def build(fields: tuple[Field, ...]) -> ConfigDict:
    """Returns a locked ConfigDict with every field at its default."""
    config = ConfigDict()
    for field in fields:
        section, _, leaf = field.name.rpartition('.')
        if section and section not in config:
            config[section] = ConfigDict()
        owner = config[section] if section else config
        owner[leaf] = field.default
    return config.lock()


def flatten(config: Any, prefix: str = '') -> dict[str, Any]:
    """Returns {dotted name: value} of a ConfigDict or nested dict; an empty one is a value."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, (ConfigDict, dict)) and value:
            flat.update(flatten(value, f'{prefix}{key}.'))
        else:
            flat[f'{prefix}{key}'] = value
    return flat


def validate(config: ConfigDict, fields: tuple[Field, ...]) -> ConfigDict:
    """Returns a new, locked configuration, with each value checked and of its field's type.

    Raises:
      UserError: a field is unknown or missing, or a value has a wrong type or is out of range.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(f'get_config() must return a ConfigDict, not {type(config).__name__}.')
    known = {field.name: field for field in fields}
    try:
        flat = flatten(config)
    except Exception as error:  # it contains itself, or a placeholder that nobody has filled
        raise UserError(
            f'the configuration cannot be read ({type(error).__name__}: {shortened(str(error))}): '
            'start from base.get_config(), and assign values to its fields.'
        ) from error
    for name in flat:
        if name not in known:
            raise UserError(unknown(name, known))
    checked = build(fields)
    # Entered once, because it walks through the whole configuration.
    with checked.ignore_type():
        for name, field in known.items():
            if name not in flat:
                section = name.rpartition('.')[0]
                raise UserError(
                    f'config.{name} is missing: config.{section} was replaced as a whole; '
                    'assign its fields one by one.'
                )
            assign(checked, name, field.check(flat[name]))
    return checked


def unknown(name: str, known: Iterable[str]) -> str:
    """Returns the error for a field that does not exist, with the one that was probably meant.

    A field may be meant by its whole name, by the last part of it, or by what it is called
    elsewhere.
    """
    known = list(known)
    meant = {alias: field for alias, field in ALIASES.items() if field in known}
    meant |= {field.rpartition('.')[2]: field for field in reversed(known)}
    meant |= {field: field for field in known}
    whole = name.lower().replace('-', '_')
    leaf = whole.rpartition('.')[2]
    near = (
        [leaf]
        if leaf in meant
        else (
            difflib.get_close_matches(whole, meant, n=1)
            or difflib.get_close_matches(leaf, meant, n=1)
        )
    )
    hint = f' Did you mean "config.{meant[near[0]]}"?' if near else ''
    return f'config.{shortened(name)} is not a field of the configuration.{hint}'


def assign(config: ConfigDict, name: str, value: Any) -> None:
    """Sets a field by its dotted name; the caller has to allow another type (ignore_type)."""
    *sections, leaf = name.split('.')
    for section in sections:
        config = config[section]
    config[leaf] = value


def override(config: ConfigDict, arguments: list[str], fields: tuple[Field, ...]) -> set[str]:
    """Applies '--config.a.b=value' arguments in place; returns the names of their fields.

    Raises:
      UserError: a field is unknown, or a value is missing, of the wrong type or out of range.
    """
    known, given = {field.name: field for field in fields}, set()
    with config.ignore_type():
        for argument in arguments:
            name, equals, text = argument.removeprefix('--config.').partition('=')
            if name not in known:
                raise UserError(unknown(name, known))
            if not equals:
                value = 'true' if known[name].kind is bool else 'VALUE'
                raise UserError(f'--config.{name} needs a value: --config.{name}={value}.')
            assign(config, name, known[name].check(_parse(text, known[name])))
            given.add(name)
    return given


def _parse(text: str, field: Field) -> Any:
    """Returns the value of a text from the command line, parsed by the field's type.

    A text that cannot be parsed is returned as it is; the field's check then refuses it.
    """
    if field.kind is str:
        # 'none' is a choice of some models, so only Python's spelling means no value.
        return None if text == 'None' and field.default is None else text
    if text.lower() == 'none' and field.default is None:
        return None
    if field.kind is bool:
        return {'true': True, 'false': False, '1': True, '0': False}.get(text.lower(), text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    if field.kind is not tuple or isinstance(value, tuple | list):
        return value
    # A single item needs no brackets. A pattern such as stem* is not Python and stays a text.
    if field.items is str:
        return (value if isinstance(value, str) else text,)
    return (value,) if isinstance(value, int | float) else value


def differences(old: Any, new: Any, fields: tuple[Field, ...], scope: str) -> dict[str, tuple]:
    """Returns {name: (old, new)} of the fields of one scope that differ."""
    old, new = flatten(old), flatten(new)
    # The file of an earlier version lacks later fields, which had the effect of their defaults.
    pairs = {
        field.name: tuple(plain(values.get(field.name, field.default)) for values in (old, new))
        for field in fields
        if field.scope == scope
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def plain(value: Any) -> Any:
    """Returns the value as JSON would return it: tuples become lists, ConfigDicts dicts."""
    if isinstance(value, (ConfigDict, dict)):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def describe(fields: tuple[Field, ...]) -> str:
    """Returns the list of all fields for --help: name, meaning, default."""
    indent = max(len(field.name) for field in fields) + 4
    rows = []
    for field in fields:
        # A range or a tuple, such as [0, 1), is not broken between its numbers.
        text = re.sub(r', (?=\d)', ',\xa0', f'{field.doc} [{field.default!r}]')
        lines = textwrap.wrap(text, HELP_WIDTH - indent)
        rows += [f'  {field.name}'.ljust(indent) + lines[0], *(' ' * indent + x for x in lines[1:])]
    return '\n'.join(rows).replace('\xa0', ' ')
