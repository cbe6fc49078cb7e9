"""What made a run: how to make it again, its versions, its hash and its configuration."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import files
from configs import base
from field import Field
from tasks.section import Section, Table, Verbatim
from training import outcome, progress, transfer, workdir
from training.state import sha256
from training.trained import Trained

# What of result.json is shown; a file without it is as good as none.
_RESULT = {'steps': int, 'params_sha256': str, 'versions': dict}
_NO_RESULT = (
    'The run has no result.json that can be read: it is not finished, or the file was not copied. '
    'So it is not known which versions and devices it was trained with.'
)


def section(folder: Path, trained: Trained, split: str) -> Section:
    """Returns the section.

    Args:
      folder: the workdir.
      trained: its network.
      split: the split that was evaluated.

    Raises:
      UserError: config.json or extensions.json cannot be used.
    """
    config = workdir.load_config(folder)  # the run's own, without what this command line has set
    result = files.usable_json(folder / workdir.RESULT, _RESULT)
    parts = [_facts(folder, config, trained, result)]
    if result is None:
        parts.append(_NO_RESULT)
    parts += [_versions(result), *_again(folder, config, split), *_fields(config)]
    return Section('What made the run', parts)


def _facts(
    folder: Path, config: ConfigDict, trained: Trained, result: Mapping[str, Any] | None
) -> Table:
    found, step = sha256(trained.state.params), trained.step
    rows = [
        ('property', 'value'),
        ('model', config.model.name),
        ('task', config.task),
        ('data set', config.data.name),
        ('seed', str(config.seed)),
        ('checkpoint', f'step {step:,} of {trained.experiment.steps:,}'),
        ('SHA-256 of its parameters', found),
    ]
    if result and step == result['steps']:
        same = found == result['params_sha256']
        other = 'not the same: result.json is of another run'
        rows.append(('compared with result.json', 'the same' if same else other))
    if config.ema_decay:
        weights = f'averaged over the updates (ema_decay={config.ema_decay:g})'
        rows.append(('weights that were evaluated', weights))
    source = transfer.recorded_sha256(folder)
    if source:
        rows.append(('SHA-256 of the weights it started from', source))
    for extension in workdir.extensions(folder):
        text = '{from_steps:,} to {to_steps:,} steps, at step {at_step:,}'.format(**extension)
        rows.append(('extended', f'from {text}'))
    return Table('The run', [*rows, *_measured(result or {})], left_columns=2)


def _measured(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what result.json says of the training itself, as far as it is what it should be."""
    rows = []
    if not files.mismatch(result, {'device': str, 'devices': int, 'processes': int}):
        rows.append(('trained on', result['device']))
        rows.append(('devices of JAX', f'{result["devices"]:,}'))
        rows.append(('processes', f'{result["processes"]:,}'))
    # JSON of other programs may have numbers that are not finite.
    if not files.mismatch(result, {'wall_seconds': float}) and math.isfinite(
        result['wall_seconds']
    ):
        rows.append(('wall time', progress.format_seconds(result['wall_seconds'])))
    return rows


def _versions(result: Mapping[str, Any] | None) -> Table:
    now, then = outcome.versions(), (result or {}).get('versions', {})
    rows = [('library', 'trained with', 'evaluated with')]
    rows += [(name, str(then.get(name, 'not known')), version) for name, version in now.items()]
    return Table('Versions', rows, left_columns=3)


def _again(folder: Path, config: ConfigDict, split: str) -> list[str | Verbatim]:
    """Returns the commands that make the run again, and the configuration as a file."""
    chosen = '' if split == 'test' else f' --split={split}'
    commands = (
        'python train.py --config=config.json --workdir=runs/again\n'
        f'python evaluate.py --workdir=runs/again{chosen} --report'
    )
    stored = files.nan_to_null(base.stored(config))
    lines = [f' {json.dumps(name)}: {json.dumps(stored[name])}' for name in sorted(stored)]
    words = (
        'On the same machine, with the same versions and number of devices, these commands end '
        'with the same parameters. They need the data set'
    )
    if config.init_from:
        words += f' and the weights in {config.init_from}'
    words += ', and config.json, which stands below.'
    if workdir.extensions(folder):
        words += (
            ' This run was extended, so that its schedule was another one at first: a run that is '
            'made in one go ends with other parameters.'
        )
    return [
        Verbatim('To make it again', commands),
        words,
        Verbatim('config.json', '{\n' + ',\n'.join(lines) + '\n}', folded=True),
    ]


def _fields(config: ConfigDict) -> list[Table]:
    """Returns the fields of a configuration, those that differ from their defaults first."""
    stored = base.stored(config)

    def is_stored(field: Field) -> bool:
        section, _, leaf = field.name.rpartition('.')
        return leaf in (stored.get(section, {}) if section else stored)

    tables = []
    for default in (False, True):
        fields = [f for f in base.fields() if is_stored(f) and f.is_default(config) is default]
        rows = [('field', 'value', *(() if default else ('default',)), 'meaning')]
        for field in fields:
            values = [field.value(config)] + ([] if default else [field.default])
            rows.append((field.name, *map(_shown, values), field.doc))
        which = 'have their defaults' if default else 'were set'
        title = f'Configuration: the {len(fields)} fields that {which}'
        tables.append(Table(title, rows, left_columns=len(rows[0]), folded=default))
    return tables


def _shown(value: Any) -> str:
    return 'not set' if value is None else str(value)
