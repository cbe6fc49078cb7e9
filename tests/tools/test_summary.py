"""python -m tools.summary: the tables, the totals and the error messages."""

import csv
import io
import json
import subprocess
import sys

import pytest

from errors import UserError
from tests.conftest import ROOT
from tools import summary


def run(capsys, *arguments):
    assert summary.main(list(arguments)) == 0
    return capsys.readouterr().out


def test_text_has_a_row_a_layer_and_the_totals(capsys):
    lines = run(capsys, '--model=alexnet').splitlines()
    assert lines[0] == 'image 224x224x3'
    rows = {line.split()[0]: ' '.join(line.split()[1:]) for line in lines[3:15]}
    assert rows['conv1~'] == 'convolution 64 x 11x11x3 4 2 55x55x64 11 23,296 70,276,800 0.77'
    assert rows['pool5'] == 'max pool 3x3 2 0 6x6x256 195 0.04'
    assert rows['dense1'] == 'dense 4096 x 9216 4096 all 37,752,832 37,748,736 0.02'
    assert 'parameters   61,100,840 (244.4 MB as float32)' in lines
    assert 'MACs         714,188,480 (0.714 G) per image' in lines
    assert lines[-1] == '~ the stride leaves over padding at the border'


def test_every_format_says_the_same(capsys):
    arguments = ('--model=resnet18', '--config.model.stem=mnist')
    data = json.loads(run(capsys, *arguments, '--format=json'))
    assert data['image'] == '28x28x1'
    assert data['totals']['parameters'] == 11_172_810
    assert data['stages']['stage4'] == {'shape': '2x2x512', 'stride': 16, 'receptive_field': 215}
    assert data['layers'][-1]['receptive_field'] is None

    rows = list(csv.DictReader(io.StringIO(run(capsys, *arguments, '--format=csv'))))
    assert len(rows) == len(data['layers'])
    for row, layer in zip(rows, data['layers'], strict=True):
        assert row == {k: '' if v is None else str(v) for k, v in layer.items()}
    assert sum(int(row['multiply_adds']) for row in rows) == data['totals']['multiply_adds']

    table = [x for x in run(capsys, *arguments, '--format=markdown').splitlines() if x[:1] == '|']
    assert len(table) == len(rows) + 2
    assert {line.count(' | ') for line in table} == {9}
    assert table[2].startswith('| stem/conv~ | convolution | 64 x 3x3x1 | 2 | 1 | 14x14x64 | 3 |')


def test_no_normalisation_is_a_choice_on_the_command_line_too(capsys):
    arguments = ('--model=strided_cnn', '--config.model.normalization=none')
    assert 'norm' not in run(capsys, *arguments)
    with pytest.raises(UserError, match='should be one of batch, group'):
        summary.main(['--model=resnet18', '--config.model.normalization=none'])
    assert 'norm1' in run(capsys, '--model=strided_cnn', '--config.model.normalization=None')


def test_a_config_gives_model_image_and_classes(capsys):
    text = run(capsys, '--config=configs/digits_lenet.py')
    assert 'image 28x28x1' in text
    assert 'parameters   61,706' in text
    wide = run(capsys, '--config=configs/digits_lenet.py', '--image=32x32x3', '--num_classes=0')
    assert 'head' not in wide
    assert '6 x 5x5x3' in wide


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'Choose a network by either --model=NAME or --config=FILE.'),
        (
            ['--model=lenet', '--config=configs/digits_lenet.py'],
            'Choose a network by either --model=NAME or --config=FILE.',
        ),
        (['--model=lenett'], 'Did you mean "lenet"'),
        (['--model=lenet', '--image=28x28'], 'must be HEIGHTxWIDTHxCHANNELS'),
        (['--model=lenet', '--config.model.stem=mnist'], 'means nothing to lenet'),
        (['--model=vgg16', '--image=16x16x3'], r'pool5 .* \(1 \+ 2 x 0 - 2\) / 2 \+ 1 is below 1'),
        (['--model=lenet', '--image=123456x1x1'], 'must be HEIGHTxWIDTHxCHANNELS'),
        (['--model=vgg11', '--config.model.width=1e300'], 'at most 100'),
        (['--model=lenet', '--num_classes=-1'], 'num_classes is -1'),
        (['--model=lenet', '--imgae=3x3x3'], 'tools.summary --help`. Did you mean "--image"'),
    ],
)
def test_a_mistake_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        summary.main(arguments)


def test_the_command_ends_with_2_after_a_mistake():
    command = [sys.executable, '-m', 'tools.summary', '--model=lenet', '--image=0x1x1']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('error: --image=0x1x1 must be')
