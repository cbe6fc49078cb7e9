"""Configuration files: whatever one does, the command ends with a sentence."""

import json
import math
import os
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import command
import train
from configs import base, reading, search
from errors import UserError
from tests.conftest import ROOT
from training import checks, experiment


def written(folder: Path, body: str, name: str = 'my_config.py') -> str:
    path = folder / name
    start = 'from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n'
    path.write_text(start + textwrap.indent(body, '    ') + '\n    return config\n')
    return str(path)


def refusal(path: str, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        reading.from_arguments(path, list(arguments))
    message = str(caught.value)
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    ('body', 'words'),
    [
        ('import sys; sys.exit(0)', 'line 6: it ends the program (sys.exit): remove that call.'),
        ('raise SystemExit("bye")', 'line 6: it ends the program'),
        ('exit()', 'line 6: it ends the program'),
        ('raise BaseException("x")', 'line 6: BaseException: x'),
        ('raise GeneratorExit', 'line 6: GeneratorExit'),
        ('f = lambda: f(); f()', 'line 6: RecursionError'),
        ('raise type("E", (Exception,), {"__str__": lambda self: 1 / 0})()', 'line 6: E'),
        ('raise ValueError("x" * 100_000)', 'line 6: ValueError: xxx'),
        ('{}["batch_size"]', 'line 6: KeyError: batch_size'),
        ('config.data = config', 'cannot be read (RecursionError'),
        ('config.unlock(); config[3] = 4', 'cannot be read (TypeError'),
        ('config.epochs = 10**5000', 'line 6: OverflowError'),
        ('config.batch_size = 10**5000', 'batch_size must be at most 1000000, not a number of'),
        ('config.model.name = "a" * 100_000', 'config.model.name must be a printable text'),
    ],
)
def test_whatever_a_file_does_ends_in_a_sentence(tmp_path, body, words):
    message = refusal(written(tmp_path, body))
    assert message.startswith(str(tmp_path / 'my_config.py'))
    assert words in message


@pytest.mark.parametrize(
    ('body', 'given', 'meant'),
    [
        ('config.batch_sise = 3', 'batch_sise', 'batch_size'),
        ('print(config.batch_sise)', 'batch_sise', 'batch_size'),
        ('config.modle.name = "lenet"', 'modle', 'model.name'),
        ('config["modle"] = "lenet"', 'modle', 'model.name'),
        ('config.optimizer.lr = 3', 'optimizer.lr', 'optimizer.learning_rate'),
        ('config.update({"bs": 3})', 'bs', 'batch_size'),
    ],
)
def test_a_misspelt_field_in_a_file_is_one_sentence(tmp_path, body, given, meant):
    assert refusal(written(tmp_path, body)) == (
        f'{tmp_path / "my_config.py"}, line 6: config.{given} is not a field of the configuration. '
        f'Did you mean "config.{meant}"?'
    )


def test_a_file_that_exits_does_not_end_the_command_with_0(tmp_path, capsys):
    path = written(tmp_path, 'import sys; sys.exit(0)')
    assert command.call(train.main, [f'--config={path}', f'--workdir={tmp_path}/run']) == 2
    assert 'it ends the program' in capsys.readouterr().err
    path = written(tmp_path, 'raise KeyboardInterrupt')  # as Ctrl-C is told
    assert command.call(train.main, [f'--config={path}', f'--workdir={tmp_path}/run']) == 130


@pytest.mark.parametrize('name', ['pipe.py', 'pipe.json', 'a' * 5000, 'b\0c', '\ud800', '..'])
def test_what_is_no_file_is_refused_at_once(tmp_path, name):
    for pipe in ('pipe.py', 'pipe.json', 'other.py'):  # one that was meant is looked for
        os.mkfifo(tmp_path / pipe)
    assert 'There is no config file' in refusal(f'{tmp_path}/{name}')
    with pytest.raises(UserError, match='There is no file'):
        search.load(f'{tmp_path}/{name}')


@pytest.mark.parametrize(
    'text',
    [
        '[]',
        '3',
        'null',
        '"a"',
        '{',
        '',
        '[' * 5000,
        '{"model":' * 5000 + '1' + '}' * 5000,
        '{"model": 3}',
        '{"model": {"name": 3}}',
        '{"model": {"name": {"name": "lenet"}}}',
        '{"optimizer": {"name": {}}}',
        '{"optimizer": []}',
        '{"seed": 1e999}',
        '{"seed": NaN}',
        '{"data": {"mean": [[0.5]]}}',
        '{"data": {"mean": null}}',
        '{"data": {"mean": []}, "seed": "0"}',
        '{"batch_size": true}',
        '{"epochs": ' + '9' * 4000 + '}',
        '{"steps": ' + '9' * 4000 + '}',
        '{"steps": ' + '9' * 5000 + '}',
        '{"\\ud800": 1}',
        '{"data": {"name": "\\ud800"}}',
    ],
)
def test_an_odd_json_file_is_refused_in_a_sentence(tmp_path, text):
    (tmp_path / 'config.json').write_text(text)
    assert refusal(f'{tmp_path}/config.json').startswith(f'{tmp_path}/config.json')


def test_a_file_is_found_from_any_folder(tmp_path, monkeypatch):
    """First from where the user is, then from the program's own folder."""
    monkeypatch.chdir(tmp_path)
    expected = reading.load(str(ROOT / 'configs/digits_lenet.py'))
    assert reading.load('configs/digits_lenet.py') == expected
    assert search.load('configs/sweeps/lenet.py')
    assert 'Did you mean "configs/digits_lenet.py"?' in refusal('configs/digits_lenett.py')
    (tmp_path / 'configs').mkdir()
    written(tmp_path / 'configs', 'config.seed = 5', 'digits_lenet.py')
    assert reading.load('configs/digits_lenet.py').seed == 5


@pytest.mark.slow
def test_train_py_runs_from_any_folder(tmp_path, monkeypatch, capsys):
    """`python /path/to/train.py`: nothing of the program depends on where it is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [str(ROOT / 'train.py')])
    arguments = ['--config=configs/digits_lenet.py', '--workdir=run', '--config.smoke', 'true']
    assert command.call(train.main, arguments) == 0, capsys.readouterr().err
    assert (tmp_path / 'run' / 'result.json').exists()


# What a program, a person or a damaged disk may leave in place of a value.
ODD = [
    None, True, False, 0, 1, -1, 8, 0.5, -0.5, 1e-300, 1e300, math.nan, math.inf, 10**9, 10**18,
    -(10**400), '', 'a', '²', '\u0663', 'x' * 5000, '*', '[', 'a=b', '*=nan', '*=0', 'head/*=1e300',
    '\ud800', 'a\0', [], [0], [1, 2], [0.5] * 3, [[1]], [None], {}, {'a': 1}, ['a'], ['*=2'],
    [1e300, 2], [-1, 3], [5] * 2000, 'localhost:1,1,0', 'host:99999,1,0', '/dev/null',
]  # fmt: skip


@st.composite
def values_of_fields(draw) -> dict:
    """Some fields with values that are odd, near their bounds, or among their choices."""
    values = {}
    for field in draw(st.lists(st.sampled_from(base.fields()), min_size=1, max_size=5)):
        bounds = [bound for bound, *_ in field.bounds] if field.kind in (int, float) else []
        near = [field.kind(bound * factor) for bound in bounds for factor in (0.5, 1, 2)]
        values[field.name] = draw(st.sampled_from([*ODD, *near, *field.choices]))
    return values


def is_read_or_refused(values: dict, folder: Path) -> None:
    """Reads the values from a file and from the command line, up to the network's parameters."""
    path = folder / 'odd.json'
    for in_file, arguments in (
        (values, []),
        ({}, [f'--config.{name}={value}' for name, value in values.items()]),
    ):
        path.write_text(json.dumps(in_file))
        refused = ''
        try:
            config = reading.from_arguments(str(path), arguments)
            checks.check(config)
            checks.check_devices(config, 1)
            shape = (28, 28, len(config.data.mean))
            found = experiment.Experiment(config, shape, tuple('0123456789'), 1149).fitted()
            found.check_lengths()
            found.spec()
        except UserError as error:
            refused = str(error)
        assert refused == '' or 20 < len(refused) < 1500


@given(values_of_fields())
@settings(max_examples=25, deadline=None)
def test_any_values_are_read_or_refused_in_a_sentence(tmp_path_factory, values):
    is_read_or_refused(values, tmp_path_factory.getbasetemp())


@pytest.mark.full
@given(values_of_fields())
@settings(max_examples=1000, deadline=None)
def test_a_thousand_values_are_read_or_refused_in_a_sentence(tmp_path_factory, values):
    is_read_or_refused(values, tmp_path_factory.getbasetemp())
