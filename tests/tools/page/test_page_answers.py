"""What the page says of a picture, by a real network on a machine without the data set."""

import base64
import dataclasses
import io
import json
import shutil
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import psutil
import pytest
from PIL import Image

import command
from data_sources import arrays
from models.trace import trace
from tests.conftest import ROOT
from tests.support import slow
from tests.tools.page.served import look, serving
from tools import page
from tools.page.answer import Answers
from tools.page.handler import as_json
from tools.page.server import Server
from training import prediction, trained

SEVEN = ROOT / 'docs' / 'images' / 'seven.png'


@pytest.fixture(scope='module')
def copied(lenet_run, small_run, tmp_path_factory):
    """The copy of a workdir on a machine that does not have the data set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(arrays.EMBEDDED, 'digits')
        yield shutil.copytree(lenet_run, tmp_path_factory.mktemp('copied') / 'run')


@pytest.fixture(scope='module')
def network(copied):
    return trained.load(copied)


@pytest.fixture(scope='module')
def answers(network, copied):
    return Answers(network, copied)


@pytest.fixture(scope='module')
def server(answers):
    with serving(answers) as server:
        yield server


def pixels(address: str) -> np.ndarray:
    """The picture in an address of the page."""
    kind, _, data = address.partition(',')
    assert kind == 'data:image/png;base64'
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def png(*size: int) -> bytes:
    file = io.BytesIO()
    Image.new('L', size, 255).save(file, 'PNG')
    return file.getvalue()


def test_it_says_what_the_network_is(answers, copied):
    about = answers.about()
    result = json.loads((copied / 'result.json').read_text())
    assert about['title'] == 'lenet on digits'
    assert about['facts']['Test accuracy'] == f'{100 * result["test_accuracy"]:.2f} %'
    assert about['facts']['Training'] == f'{result["steps"]:,} of {result["steps"]:,} steps'
    assert about['facts']['Input'] == '28x28 pixels, gray'
    assert about['classes'] == list('0123456789')
    assert about['handwriting'] is True
    assert answers.example() is None


def test_a_run_without_a_result_has_no_accuracy_to_show(network, copied, tmp_path):
    for content in (None, '{', '{"steps": 1, "test_accuracy": 0.5}'):
        folder = tmp_path / str(content).replace('/', '')[:3]
        folder.mkdir()
        if content:
            (folder / 'result.json').write_text(content)
        assert 'Test accuracy' not in Answers(network, folder).about()['facts']


def test_the_answer_is_that_of_predict(answers, network):
    found = answers.look(SEVEN.read_bytes())
    ((_, expected),) = prediction.predict(network, [SEVEN], most=10)
    assert [c['name'] for c in found['choices']] == [t['class'] for t in expected.values['top']]
    np.testing.assert_allclose(
        [choice['sureness'] for choice in found['choices']],
        [top['probability'] for top in expected.values['top']],
        atol=1e-5,
    )
    _, read = prediction.reader(network.experiment)
    np.testing.assert_array_equal(pixels(found['input']), read(SEVEN)[..., 0])


def test_every_stage_has_its_maps_on_one_scale(answers, network):
    found = answers.look(SEVEN.read_bytes())
    shape, read = prediction.reader(network.experiment)
    maps = answers._opened.look(read(SEVEN)[None]).stages
    stages = trace(network.spec.model, shape).stages
    assert [stage['name'] for stage in found['stages']] == list(stages)
    assert set(answers.about()['stages']) == set(stages)
    for stage in found['stages']:
        expected = maps[stage['name']][0]
        assert stage['size'] == 'x'.join(map(str, stages[stage['name']].shape))
        assert stage['count'] == stage['shown'] == expected.shape[-1]
        if stage['spatial']:
            expected = np.concatenate([expected[..., i] for i in range(expected.shape[-1])])
        levels = stage['low'] + pixels(stage['strip']) / 255 * (stage['high'] - stage['low'])
        step = (stage['high'] - stage['low']) / 255
        np.testing.assert_allclose(levels.ravel(), expected.ravel(), atol=0.51 * step)


def test_the_heat_map_is_of_the_class_and_stage_that_were_chosen(answers):
    seven = SEVEN.read_bytes()
    own, three = answers.look(seven)['heat'], answers.look(seven, choice='3')['heat']
    assert (own['choice'], three['choice']) == (answers.look(seven)['choices'][0]['name'], '3')
    assert own['picture'] != three['picture']
    assert answers.look(seven, stage='conv1')['heat']['picture'] != own['picture']
    assert answers.look(seven, stage='pool2')['heat'] == own
    for wanted in ({'choice': '10'}, {'stage': 'dense1'}, {'stage': '../conv1'}):
        assert answers.look(seven, **wanted)['heat'].keys() == {'problem'}


def test_a_network_without_maps_says_why_there_is_no_heat(small_run):
    answers = Answers(trained.load(small_run), small_run)
    found = answers.look(SEVEN.read_bytes())
    assert 'has no feature maps' in found['heat']['problem']
    assert len(found['choices']) == 10
    assert [stage['height'] for stage in found['stages']] == [1] * len(found['stages'])


def test_a_network_that_reads_no_handwriting_has_a_photograph_to_try(copied, tmp_path):
    other = shutil.copytree(copied, tmp_path / 'run')
    facts = json.loads((other / 'data.json').read_text())
    (other / 'data.json').write_text(json.dumps(facts | {'handwriting': False}))
    answers = Answers(trained.load(other), other)
    assert answers.about()['handwriting'] is False
    with Image.open(io.BytesIO(answers.example())) as photograph:
        assert min(photograph.size) > 300


@pytest.mark.parametrize('value', [np.nan, slow(np.inf), slow(1e38)])
def test_a_network_that_has_diverged_says_so(network, copied, value):
    params = jax.tree.map(lambda array: np.full_like(array, value), network.state.params)
    state = dataclasses.replace(network.state, params=params)
    answers = Answers(dataclasses.replace(network, state=state), copied)
    found = json.loads(as_json(answers.look(SEVEN.read_bytes())).body)
    assert found['heat'] == {'problem': 'There is no heat map: the network has diverged.'}
    assert {choice['sureness'] for choice in found['choices']} == {None}


# --- pictures that cannot be looked at, through the server ----------------------------------------


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says that it unpacks to 40 gigabytes."""
    header = b'IHDR' + (200_000).to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
    chunk = header + zlib.crc32(header).to_bytes(4)
    return png(9, 9)[:8] + (13).to_bytes(4) + chunk + png(9, 9)[33:]


BROKEN = {
    b'': 'is empty (zero bytes)',
    b'no picture': 'is not a picture that can be read: not a picture',
    SEVEN.read_bytes()[:300]: 'cannot be read as a picture: ',
    bomb(): 'is too large to be read safely',
    png(90, 60): 'shows no ink',
    png(3, 3): 'is 3x3 pixels, too small to show a character',
    b'<svg xmlns="http://www.w3.org/2000/svg"/>': 'not a picture',
    b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n': 'not a picture',
}


def test_a_broken_picture_gets_a_sentence_and_the_next_its_answer(server):
    expected = look(server, SEVEN.read_bytes())
    for picture, said in BROKEN.items():
        got = look(server, picture)
        assert got.status == 422
        assert got.error.startswith('The picture ')
        assert said in got.error
        assert '\n' not in got.error
    assert look(server, SEVEN.read_bytes()).body == expected.body


def test_twenty_pictures_at_once_get_their_answers_and_memory_is_given_back(server):
    seven, broken = SEVEN.read_bytes(), list(BROKEN)
    expected = look(server, seven).body
    size = psutil.Process().memory_info().rss
    threads = threading.active_count()
    with ThreadPoolExecutor(20) as pool:
        pictures = [seven if i % 2 else broken[i // 2 % len(broken)] for i in range(40)]
        got = list(pool.map(lambda picture: look(server, picture), pictures))
    for i, one in enumerate(got):
        assert (one.status, one.body) == (200, expected) if i % 2 else one.status == 422
    assert threading.active_count() <= threads
    assert psutil.Process().memory_info().rss < size + (300 << 20)


# --- the command ---------------------------------------------------------------------------------


def test_ctrl_c_ends_it_quietly(copied, monkeypatch, capsys):
    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, 'serve_forever', interrupted)
    assert command.call(page.main, [f'--workdir={copied}', '--port=0']) == 0
    said = capsys.readouterr()
    assert 'lenet on digits: open http://127.0.0.1:' in said.out
    assert said.err == ''


def test_mistakes_of_the_command_line_are_said(server, copied, tmp_path, capsys):
    taken = server.server_address[1]
    for argument, sentence in {
        f'--port={taken}': f'error: --port={taken} is in use',
        '--host=192.0.2.1': 'error: --host=192.0.2.1 is no address of this machine',
        '--host=no.such.host.invalid': 'is no address of this machine: leave it out',
        f'--workdir={tmp_path}': 'error: ',
        '--checkpoint=9': 'error: --checkpoint=9: choose last, best',
    }.items():
        argv = [f'--workdir={copied}', *(['--port=0'] * ('port' not in argument)), argument]
        assert command.call(page.main, argv) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count('\n') == 1
    for port in ('65536', '-1', '80a', '٣'):
        with pytest.raises(SystemExit):
            page.main([f'--workdir={copied}', f'--port={port}'])
