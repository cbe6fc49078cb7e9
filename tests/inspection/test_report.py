"""evaluate.py --report: the page says what the run's files say, and leaves them as they are."""

import base64
import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import evaluate
import input_pipeline
import train
from configs import reading
from data_sources import digits
from errors import UserError
from inspection import examples, grad_cam, opened, overlay, report
from tasks.classification import Classification
from tasks.confusion import ConfusionReport
from tasks.section import Section
from tasks.task import Task
from tests.support import files_of_at_most, result
from training import trained
from training.evaluation import Evaluation

FIGURES = 'body/header/dl/div'


def page_of(folder: Path, *more: str, split='test') -> ElementTree.Element:
    """The root of the page that the command makes."""
    assert evaluate.main([f'--workdir={folder}', '--report', f'--split={split}', *more]) == 0
    name = {'test': 'report.html', 'validation': 'report_validation.html'}[split]
    output = [Path(m.partition('=')[2]) for m in more if m.startswith('--output=')]
    return ElementTree.parse((output or [folder])[0] / name).getroot()


def section(root, title):
    for node in root.iter('section'):
        if node.find('h2').text == title:
            return node
    raise AssertionError(f'no section "{title}"')


def text(node) -> str:
    return ' '.join(' '.join(node.itertext()).split())


def titled(node, title):
    """The part with a title, which may be a pattern."""
    for holder in (*node.iter('div'), *node.iter('details')):
        if len(holder) > 1 and re.fullmatch(title, holder[0].text or ''):
            return holder
    raise AssertionError(f'no part "{title}"')


def table(node, title) -> list[list[str]]:
    """The rows of the table with a title."""
    return [[text(cell) for cell in row] for row in titled(node, title).iter('tr')]


def verbatim(node, title) -> str:
    return titled(node, title).find('.//pre').text


@pytest.fixture(scope='module')
def made(lenet_run, tmp_path_factory):
    """A workdir with a page, the page, and what evaluation alone had written there."""
    folder = Path(shutil.copytree(lenet_run, tmp_path_factory.mktemp('report') / 'run'))
    assert evaluate.main([f'--workdir={folder}']) == 0
    before = contents(folder)
    return folder, page_of(folder), before


@pytest.fixture(scope='module')
def evaluated(lenet_run):
    """The evaluation that a page is made of, without running the command."""
    network = trained.load(lenet_run)
    split = input_pipeline.open_split(network.experiment.config, 'test')
    confusion = 30 * np.eye(10, dtype=int)
    confusion[3, 5] = 2
    sums = {'count': 302, 'correct': 300, 'loss': 6.04, 'bad': 4}
    classes = network.experiment.class_names
    return report.Evaluated(
        lenet_run, network, split, Evaluation(sums, None), ConfusionReport(confusion, classes), 'A'
    )


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture
def quickly(monkeypatch):
    """Leaves out of pages the sections that compile a program."""
    for module, name in ((report.answers, 'section'), (report.network, 'filters_section')):
        monkeypatch.setattr(module, name, lambda *_, name=name: Section(name, []))


@pytest.fixture
def without_curves(monkeypatch):
    """Pages have no curves, which take a second to draw."""
    monkeypatch.setattr(report.curves, 'pictures', lambda *_: [])


def drawn(evaluated, **changes):
    return ElementTree.fromstring(report.page(dataclasses.replace(evaluated, **changes)))


def test_the_figures_are_those_of_the_evaluation(made):
    folder, root, _ = made
    found = json.loads((folder / 'evaluation_test.json').read_text())
    figures = {text(tile.find('dt')): text(tile.find('dd')) for tile in root.findall(FIGURES)}
    assert figures == {
        'accuracy': f'{100 * found["accuracy"]:.2f} %',
        'loss (nats per example)': f'{found["loss"]:.4f}',
        'examples': '359',
        'records that did not decode': '0',
    }
    rows = table(section(root, 'Results by class'), 'The 10 classes')
    assert [row[-1] for row in rows[1:]] == [str(c['support']) for c in found['classes']]


def test_a_page_adds_one_file_and_changes_none(made):
    folder, _, before = made
    after = contents(folder)
    assert {path.name for path in after.keys() - before.keys()} == {'report.html'}
    assert {path: after[path] for path in before} == before


def test_the_page_says_what_made_the_run(made, lenet_run):
    _, root, _ = made
    origin = section(root, 'What made the run')
    facts = dict(table(origin, 'The run'))
    assert facts['checkpoint'] == 'step 61 of 61'
    assert facts['SHA-256 of its parameters'] == result(lenet_run)['params_sha256']
    assert facts['compared with result.json'] == 'the same'
    for name, then, now in table(origin, 'Versions')[1:]:
        assert then == now == result(lenet_run)['versions'][name]
    rows = table(origin, r'Configuration: the \d+ fields that were set')
    fields = {row[0]: row[1:] for row in rows}
    assert fields['optimizer.name'][:2] == ['adam', 'sgd']
    assert fields['epochs'][:2] == ['6.0', '20.0']
    assert 'data.name' not in fields


def test_the_configuration_of_the_page_is_that_of_the_run(made, tmp_path):
    folder, root, _ = made
    (tmp_path / 'config.json').write_text(verbatim(root, r'config\.json'))
    assert reading.load(str(tmp_path / 'config.json')) == reading.load(str(folder / 'config.json'))


@pytest.mark.slow
def test_the_commands_of_the_page_make_the_same_run(made, tmp_path, monkeypatch):
    folder, root, _ = made
    (tmp_path / 'config.json').write_text(verbatim(root, r'config\.json'))
    monkeypatch.chdir(tmp_path)
    for line, main in zip(
        verbatim(root, 'To make it again').splitlines(), (train.main, evaluate.main), strict=True
    ):
        assert main(line.split()[2:]) == 0
    again = tmp_path / 'runs' / 'again'
    assert result(again)['params_sha256'] == result(folder)['params_sha256']
    assert (again / 'report.html').is_file()


def test_the_page_lists_the_network(made):
    network = section(made[1], 'The network')
    assert '28x28x1' in text(network)
    assert '61,706 parameters' in text(network)
    stages = {row[0]: row[1:] for row in table(network, 'Its stages')}
    assert stages['pool2'] == ['5x5x16', '4', '16']
    layers = table(network, 'The 7 layers')
    parameters = [int(row[-2].replace(',', '')) for row in layers[1:]]
    assert sum(parameters) == 61_706


def test_the_surest_mistakes_come_first_with_their_heat_maps(made):
    folder, root, _ = made
    found = json.loads((folder / 'evaluation_test.json').read_text())
    wrong = found['examples'] - found['correct']
    mistakes = section(root, 'The surest mistakes')
    assert f'{wrong} of 359 answers were wrong' in text(mistakes)
    source = digits.load('test')
    network = opened.of(trained.load(folder))
    probabilities = network.look(source.images).predictions
    answers, labels = probabilities.argmax(1), source.targets['label']
    sureness = np.where(answers == labels, 0, probabilities.max(1))
    expected = [
        f'Example {i}, and its heat map. True: {labels[i]}. '
        f'Answer: {answers[i]} {probabilities[i].max():.1%}.'
        for i in np.argsort(-sureness)[: min(wrong, 12)]
    ]
    images = [*mistakes.iter('img')]
    assert [image.get('alt') for image in images] == expected
    content = base64.b64decode(images[0].get('src').partition(',')[2])
    card = np.asarray(Image.open(io.BytesIO(content)))
    size = card.shape[0]
    assert card.shape == (size, 2 * size, 3)
    first = int(np.argmax(sureness))
    pixels = source.images[first : first + 1]
    np.testing.assert_array_equal(card[:: size // 28, : size : size // 28, 0], pixels[0, ..., 0])
    answer = network.choice(probabilities[first], str(answers[first]))
    heat = grad_cam.grad_cam(network, pixels, answer)[0]
    np.testing.assert_array_equal(card[:, size:], overlay.lay_over(card[:, :size], heat))


def test_a_network_without_maps_shows_its_mistakes_without_heat(small_run):
    network = opened.of(trained.load(small_run))
    looked = examples.of(network.experiment, 'validation')
    _, words, gallery = report.answers.section(network, looked).parts
    assert 'There are no heat maps. config.model.name=fcn has no feature maps' in words
    assert 'heat map' not in gallery.pictures[0].description
    assert Image.open(io.BytesIO(gallery.pictures[0].png)).size == (168, 168)


@pytest.mark.usefixtures('without_curves')
def test_a_task_that_knows_no_mistakes_says_so(evaluated, monkeypatch):
    monkeypatch.setattr(Classification, 'mistake', Task.mistake)
    reason = text(section(drawn(evaluated), 'The surest mistakes'))
    assert 'The task has not what this needs: tasks/task.py' in reason


def test_every_picture_is_described(made):
    images = [*made[1].iter('img')]
    assert len(images) >= 3
    assert all(len(image.get('alt')) > 20 for image in images)


@pytest.mark.usefixtures('quickly')
def test_what_a_workdir_lacks_is_said_in_its_place(evaluated, lenet_run, tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    shutil.copy(lenet_run / 'config.json', folder)
    root = drawn(evaluated, folder=folder)
    assert 'The workdir has no metrics.jsonl' in text(section(root, 'Training'))
    origin = section(root, 'What made the run')
    assert 'no result.json that can be read' in text(origin)
    assert {row[1] for row in table(origin, 'Versions')[1:]} == {'not known'}
    assert 'compared with result.json' not in text(origin)


@pytest.mark.usefixtures('quickly')
def test_damaged_records_are_said_in_their_place(evaluated, lenet_run, tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    shutil.copy(lenet_run / 'config.json', folder)
    whole = (lenet_run / 'metrics.jsonl').read_bytes()
    (folder / 'metrics.jsonl').write_bytes(whole[:-7])  # killed while it was written
    assert section(drawn(evaluated, folder=folder), 'Training').find('.//img') is not None
    (folder / 'metrics.jsonl').write_bytes(b'nonsense\n' + whole)
    (folder / 'result.json').write_text('{"steps": 61, "params_sha256": "another", "versions": {}}')
    root = drawn(evaluated, folder=folder)
    assert 'metrics.jsonl, line 1 is not a record' in text(section(root, 'Training'))
    assert 'result.json is of another run' in text(section(root, 'What made the run'))


@pytest.mark.usefixtures('quickly', 'without_curves')
def test_examples_that_were_left_out_are_named(evaluated):
    assert '4 record(s) did not decode and were not counted' in text(drawn(evaluated).find('body'))


@pytest.mark.usefixtures('quickly', 'without_curves')
def test_hostile_class_names_stay_text(evaluated):
    names = ['<script>alert(1)</script>', 'a & b', '"><img src=x onerror=y>', '$x^2$', 'قطة', '猫']
    names += [f'{"long " * 40}{i}' for i in range(4)]
    confusion = evaluated.report.confusion
    root = drawn(evaluated, report=ConfusionReport(confusion, names))
    rows = table(section(root, 'Results by class'), 'The 10 classes')
    assert [row[0] for row in rows[1:]] == names
    assert not [*root.iter('script')]
    assert all(image.get('src').startswith('data:image/png;base64,') for image in root.iter('img'))


@pytest.mark.usefixtures('quickly', 'without_curves')
def test_a_thousand_classes_make_no_large_page(evaluated):
    confusion = np.random.default_rng(0).integers(0, 3, (1000, 1000))
    names = [f'a class with a long name, {i}' for i in range(1000)]
    page = report.page(dataclasses.replace(evaluated, report=ConfusionReport(confusion, names)))
    assert len(page) < 3_000_000
    root = ElementTree.fromstring(page)
    (folded,) = section(root, 'Results by class').iter('details')
    assert folded.get('open') is None
    assert len([*folded.iter('tr')]) == 1001


@pytest.mark.slow
@pytest.mark.usefixtures('quickly', 'without_curves')
def test_the_page_goes_where_output_says(lenet_run, tmp_path):
    before = contents(lenet_run)
    root = page_of(lenet_run, f'--output={tmp_path}', split='validation')
    assert root.find('head/title').text == 'lenet on digits, validation split, step 61'
    assert '--split=validation --report' in text(section(root, 'What made the run'))
    assert contents(lenet_run) == before


@pytest.mark.usefixtures('quickly', 'without_curves')
def test_a_page_that_cannot_be_written_is_a_sentence(evaluated, tmp_path):
    sentence = r'Cannot write .*report\.html: File too large\. .* by --output=DIR\.'
    with files_of_at_most(1000), pytest.raises(UserError, match=sentence):
        report.write(tmp_path / 'report.html', evaluated)
    assert [*tmp_path.iterdir()] == []
