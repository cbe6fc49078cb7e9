"""What all commands share: how arguments are parsed, and how errors become exit codes."""

import argparse
import errno
import os

import pytest

import command
from configs import base, schema
from errors import UserError


def parsed(*argv: str):
    parser = argparse.ArgumentParser('python some.py', allow_abbrev=False)
    parser.add_argument('--workdir')
    parser.add_argument('--count', type=command.positive)
    parser.add_argument('images', nargs='*')
    return command.parse(parser, list(argv))


@pytest.mark.parametrize(
    ('argv', 'overrides', 'images'),
    [
        (['--config.seed', '3', 'a.png'], ['--config.seed=3'], ['a.png']),
        (['--config.seed=3', 'a.png'], ['--config.seed=3'], ['a.png']),
        (['--config.seed', '-3'], ['--config.seed=-3'], []),
        (['--config.data.mean', '-.5', '--workdir', 'x'], ['--config.data.mean=-.5'], []),
        (['--config.freeze', '-inf', 'a.png'], ['--config.freeze=-inf'], ['a.png']),
        (['--config.seed', '--workdir=x'], ['--config.seed'], []),
        (['--config.a', '--config.b', 'c'], ['--config.a', '--config.b=c'], []),
        (['--config.multipliers', 'a=b'], ['--config.multipliers=a=b'], []),
        (['--config.data.dir='], ['--config.data.dir='], []),
        (['a.png', '--config.smoke'], ['--config.smoke'], ['a.png']),
    ],
)
def test_a_field_takes_its_value_behind_a_space_too(argv, overrides, images):
    arguments, found = parsed(*argv)
    assert found == overrides
    assert arguments.images == images


def test_a_field_without_a_value_says_how_it_gets_one():
    with pytest.raises(UserError, match=r'needs a value: --config\.smoke=true\.'):
        schema.override(base.get_config(), ['--config.smoke'], base.fields())
    with pytest.raises(UserError, match=r'needs a value: --config\.seed=VALUE\.'):
        schema.override(base.get_config(), ['--config.seed'], base.fields())


@pytest.mark.parametrize(
    ('name', 'field'),
    [
        ('lr', 'optimizer.learning_rate'),
        ('optimizer.lr', 'optimizer.learning_rate'),
        ('learning-rate', 'optimizer.learning_rate'),
        ('wd', 'optimizer.weight_decay'),
        ('bs', 'batch_size'),
        ('num_epochs', 'epochs'),
        ('momentum', 'optimizer.momentum'),
        ('dropout', 'model.dropout_rate'),
        ('gpus', 'devices'),
        ('dataset', 'data.name'),
        ('model', 'model.name'),
        ('modle', 'model.name'),
        ('epochss', 'epochs'),
        ('model.activaton', 'model.activation'),
    ],
)
def test_a_name_from_elsewhere_suggests_the_field(name, field):
    with pytest.raises(UserError) as caught:
        schema.override(base.get_config(), [f'--config.{name}=1'], base.fields())
    assert str(caught.value).endswith(f'Did you mean "config.{field}"?')


def test_every_other_name_is_of_a_field():
    names = {field.name for field in base.fields()}
    assert set(schema.ALIASES.values()) <= names
    leaves = {name.rpartition('.')[2] for name in names}
    assert not leaves & set(schema.ALIASES)  # such a name would suggest another field


@pytest.mark.parametrize('text', ['0', '-1', '1.5', '', '²', '\u0663', 'x' * 5000, '9' * 5000])
def test_a_count_is_a_whole_number_in_plain_digits(text, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(f'--count={text}')
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert 'is not a whole number above 0' in error
    assert len(error) < 600
    assert parsed('--count=007')[0].count == 7


@pytest.mark.parametrize('number', [errno.ENAMETOOLONG, errno.EACCES, errno.EROFS, errno.ELOOP])
def test_a_file_that_cannot_be_used_is_named_wherever_it_was_opened(number, capsys):
    def main(argv):
        raise OSError(number, os.strerror(number), argv[0])

    assert command.call(main, ['a' * 5000]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: aaa')
    assert os.strerror(number) in error
    assert len(error) < 500


def test_other_errors_of_the_system_stay_what_they_are():
    def main(argv):
        raise OSError(errno.EIO, 'broken', 'file')

    with pytest.raises(OSError, match='broken'):
        command.call(main, [])


def test_too_little_memory_is_a_sentence(capsys):
    def of_python(argv):
        return bytearray(2**62)[0]

    def of_jax(argv):
        import jax

        return jax.numpy.zeros(2**60).sum()

    for main in (of_python, of_jax):
        assert command.call(main, []) == 2
        assert 'error: there is not enough memory (' in capsys.readouterr().err


def test_other_errors_stay_what_they_are():
    def main(argv):
        raise RuntimeError('a defect')

    with pytest.raises(RuntimeError, match='a defect'):
        command.call(main, [])
