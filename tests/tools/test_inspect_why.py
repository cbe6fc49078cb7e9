"""The part "why" of tools.inspect: what it writes, for which classes and methods, and mistakes."""

import io

import numpy as np
import pytest
from PIL import Image

from data_sources import digits
from errors import UserError
from inspection import why as explained
from inspection.methods import METHODS
from tests.conftest import ROOT
from tools import inspect

SEVEN = str(ROOT / 'docs' / 'images' / 'seven.png')


@pytest.fixture
def why(lenet_run, tmp_path, capsys):
    """Runs --only=why; returns (exit code, output, errors, {name: picture})."""

    def run(*more, workdir=lenet_run):
        folder = tmp_path / 'seen'
        arguments = [f'--workdir={workdir}', f'--output={folder}', '--only=why', *more]
        code = inspect.main(arguments)
        written = capsys.readouterr()
        pictures = {path.name: path.read_bytes() for path in folder.glob('*.png')}
        return code, written.out, written.err, pictures

    return run


def test_one_picture_shows_the_methods_for_each_class(why):
    code, output, _, pictures = why(SEVEN, '--class=7,3', '--method=gradient,grad_cam')
    assert code == 0
    assert list(pictures) == ['why-seven-7-3.png']
    width, height = Image.open(io.BytesIO(pictures['why-seven-7-3.png'])).size
    assert 1.3 < height / width < 2  # three columns, four rows
    assert 'what speaks for 7 ' in output
    assert ' and 3 ' in output
    assert 'by Grad-CAM, Gradient' in output


@pytest.mark.parametrize(
    ('names', 'legend'),
    [
        (['grad_cam'], 'Yellow is for it (Grad-CAM).'),
        (['gradient'], 'Red is for it, blue against it.'),
        (
            ['grad_cam', 'occlusion'],
            'Yellow is for it (Grad-CAM). Red is for it, blue against it.',
        ),
    ],
)
def test_the_legend_is_that_of_the_methods_shown(names, legend):
    assert explained.legend(names) == legend


@pytest.mark.parametrize(
    ('option', 'sentence'),
    [
        ('--class=13', 'error: why: "13" is no part of the answer that can be explained; there'),
        ('--stage=dense1', 'error: why: "dense1" is no stage with feature maps; there are conv1'),
        ('--stage=conv9', 'error: --stage=conv9: the network has the stages conv1, pool1, conv2'),
        ('--method=gradcam', 'there is no method "gradcam"; there are grad_cam, occlusion'),
    ],
)
def test_what_does_not_exist_is_named_in_a_sentence(why, option, sentence):
    try:
        code, _, errors, pictures = why(SEVEN, '--method=grad_cam', option)
    except UserError as error:
        code, errors, pictures = error.exit_code, f'error: {error}', {}
    assert code == 2
    assert sentence in errors
    assert pictures == {}


def test_the_help_names_all_methods():
    assert ', '.join(METHODS) in ' '.join(inspect.parser().format_help().split())


@pytest.mark.slow
def test_a_fully_connected_network_is_explained_without_grad_cam(why, small_run, tmp_path):
    digit = tmp_path / 'digit.png'
    Image.fromarray(np.squeeze(digits.load('test').images[0])).save(digit)
    code, output, _, pictures = why(str(digit), workdir=small_run)
    assert code == 0
    assert list(pictures) == ['why-digit.png']
    assert 'without Grad-CAM: config.model.name=fcn has no feature maps' in output
    assert 'by Occlusion, Integrated gradients, SmoothGrad, Gradient' in output
    code, _, errors, _ = why(str(digit), '--method=grad_cam', workdir=small_run)
    assert code == 2
    assert 'error: why: config.model.name=fcn has no feature maps' in errors
