"""tools.inspect as a command: which parts it does, what it refuses, and which files are its own."""

import json
import re
import shutil
from pathlib import Path

import pytest

import command
from tests.conftest import ROOT
from tests.inspection.drawn import pixels_of
from tests.support import train_here, write_config
from tests.tasks import turned
from tools import inspect
from tools.inspect import output

SEVEN = str(ROOT / 'docs' / 'images' / 'seven.png')


@pytest.fixture
def run(lenet_run, tmp_path, capsys):
    """Runs the command on the trained LeNet; returns (exit code, its output, its folder)."""

    def run(*arguments, workdir=lenet_run, folder=tmp_path / 'seen'):
        given = [f'--workdir={workdir}', *(f'--output={f}' for f in [folder] if f), *arguments]
        code = command.call(inspect.main, given)
        said = capsys.readouterr()
        return code, said.out + said.err, folder

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures are made and not painted, which takes most of the time."""
    monkeypatch.setattr('inspection.drawing.png', lambda figure: b'PNG')


@pytest.fixture(scope='module')
def elsewhere(lenet_run, tmp_path_factory):
    """The workdir on a machine without its data set, which is no embedded one."""
    workdir = tmp_path_factory.mktemp('elsewhere') / 'run'
    shutil.copytree(lenet_run, workdir)
    config = json.loads((workdir / 'config.json').read_text())
    config['data'] |= {'name': 'mnist', 'dir': str(workdir / 'none')}
    (workdir / 'config.json').write_text(json.dumps(config))
    return workdir


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures('undrawn')
def test_the_page_shows_every_file_that_was_written(run):
    code, said, folder = run('--only=filters,units,maps', SEVEN)
    assert code == 0
    listed = [entry['name'] for entry in json.loads((folder / 'inspect.json').read_text())['files']]
    assert sorted([*listed, 'inspect.json']) == written(folder)
    page = (folder / 'index.html').read_text()
    for name in listed:
        if name != 'index.html':
            assert f'"{name}"' in page
            assert f'{folder / name}: ' in said
    assert not re.search(r'src="?(https?:|/)|<script', page)
    stages = ('conv1', 'pool1', 'conv2', 'pool2', 'dense1', 'dense2')
    assert {f'maps-seven-{stage}.png' for stage in stages} <= set(listed)
    assert {'filters-conv1.png', 'filters-head.png', 'filters-statistics.txt'} <= set(listed)
    # One picture says little of units, so the split was looked at.
    assert {'units-validation.png', 'units-validation.txt'} <= set(listed)
    assert '143 pictures' in said


@pytest.mark.usefixtures('undrawn')
def test_without_the_data_set_what_needs_it_is_left_out(run, elsewhere):
    code, said, _ = run(workdir=elsewhere, folder=None)
    assert code == 0
    assert said.count('left out: Data set "mnist" is not prepared in ') == 1
    assert said.count('left out: for the same reason') == 3
    assert 'left out: maps, which needs an IMAGE' in said
    assert 'filters-conv1.png' in written(elsewhere / 'inspect')
    assert not any(name.startswith('units') for name in written(elsewhere / 'inspect'))


@pytest.mark.usefixtures('undrawn')
def test_what_was_asked_for_and_needs_the_data_set_is_an_error(run, elsewhere):
    code, said, folder = run('--only=units,maps', '--stage=conv1', SEVEN, workdir=elsewhere)
    assert code == 2
    assert 'error: units: Data set "mnist" is not prepared in ' in said
    assert 'maps-seven-conv1.png' in written(folder)


@pytest.mark.slow
@pytest.mark.usefixtures('undrawn')
def test_an_option_of_several_parts_asks_for_none_of_them(run, elsewhere):
    code, said, folder = run('--stage=conv1', '--method=gradient', SEVEN, workdir=elsewhere)
    assert code == 0
    assert 'maps-seven-conv1.png' in written(folder)
    assert 'likes: the pictures that excite a unit most\n  left out' in said
    code, said, _ = run('--unit=conv1:0', workdir=elsewhere)
    assert code == 2
    assert 'error: likes: ' in said


@pytest.mark.slow
@pytest.mark.usefixtures('undrawn')
def test_units_of_several_pictures_need_no_data_set(run, elsewhere, tmp_path):
    other = shutil.copy(SEVEN, tmp_path / 'other.png')
    code, said, folder = run('--only=units', SEVEN, str(other), workdir=elsewhere)
    assert code == 0
    assert 'units answer to none of 2 pictures' in said
    assert 'units-images.png' in written(folder)


@pytest.mark.usefixtures('undrawn')
def test_one_layer_and_one_stage(run):
    code, _, folder = run('--only=filters', '--layer=conv2')
    assert (code, written(folder)) == (0, ['filters-conv2.png', 'index.html', 'inspect.json'])
    # What an earlier call has written stays, and stays on the page.
    code, _, folder = run('--only=maps', '--stage=pool1', SEVEN)
    assert code == 0
    page = (folder / 'index.html').read_text()
    assert 'filters-conv2.png' in page
    assert 'maps-seven-pool1.png' in page


@pytest.mark.usefixtures('undrawn')
def test_of_many_layers_without_a_sheet_a_few_are_named(run, monkeypatch):
    monkeypatch.setattr('tools.inspect.filters.MOST_SHEETS', 2)
    monkeypatch.setattr('tools.inspect.filters.MOST_NAMES', 2)
    _, said, folder = run('--only=filters')
    assert {'filters-conv1.png', 'filters-head.png'} <= set(written(folder))
    assert '3 of 5 layers with filters have no sheet yet' in said
    assert said.count('lists them: conv2, dense1, ...\n') == 1


@pytest.mark.usefixtures('undrawn')
def test_with_an_output_nothing_in_the_workdir_is_touched(run, lenet_run):
    def found():
        return {path: path.stat().st_mtime_ns for path in lenet_run.rglob('*')}

    before = found()
    assert run('--only=filters,maps', '--layer=conv1', '--stage=conv1', SEVEN)[0] == 0
    assert found() == before


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--only=filtres'], 'there is no part "filtres"'),
        (['--only=maps'], '--only=maps needs an IMAGE'),
        (['--stage=conv9', SEVEN], '--stage=conv9: the network has the stages conv1, pool1'),
        (['--layer=con1'], 'Did you mean "conv1"?'),
        (['--only=filters', '--layer=pool1'], 'filters: pool1 has no weights: it is max pool'),
        (['--only=filters', '--stage=conv1'], '--stage means nothing to what is to be done'),
        (['--stage=conv1', '--only=filters,units', SEVEN], '--stage means nothing'),
        (['--unit=conv9:1'], 'error: --unit=conv9:1: name a stage and the number of a unit'),
        (['--unit=conv2:16', SEVEN], 'error: --unit=conv2:16: the units of conv2 have the numbers'),
        (['--method=gradcam', SEVEN], 'error: --method: there is no method "gradcam"'),
        (['--class=', '--only=filters'], '--class means nothing to what is to be done'),
        (['--checkpoint=7'], '--checkpoint=7: choose last, best, or one of the steps'),
        (['nothing.png'], 'nothing.png does not exist'),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(run, arguments, sentence):
    code, said, _ = run(*arguments)
    assert code == 2
    assert sentence in said
    assert said.count('\n') <= 4  # nothing was computed before


def test_a_damaged_workdir_is_a_sentence_and_nothing_is_written(run, lenet_run, tmp_path):
    workdir = tmp_path / 'damaged'
    shutil.copytree(lenet_run, workdir)
    (workdir / 'config.json').write_text('{"data": ')
    code, said, _ = run(workdir=workdir, folder=None)
    assert (code, said.count('\n')) == (2, 1)
    assert 'config.json cannot be used' in said
    assert not (workdir / 'inspect').exists()


@pytest.mark.usefixtures('undrawn')
def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_shown(run, tmp_path):
    broken = tmp_path / 'broken.png'
    broken.write_text('x')
    code, said, folder = run('--only=maps', '--stage=conv1', str(broken), SEVEN)
    assert code == 2
    assert f'error: {broken} is not a picture' in said
    assert 'maps-seven-conv1.png' in written(folder)
    code, said, _ = run('--only=maps', str(broken), str(broken))
    assert 'None of the pictures can be read.' in said


@pytest.mark.usefixtures('undrawn')
def test_pictures_of_the_same_name_do_not_replace_each_other(run, tmp_path):
    (tmp_path / 'more').mkdir()
    other = shutil.copy(SEVEN, tmp_path / 'more' / 'seven.png')
    odd = shutil.copy(SEVEN, tmp_path / '<b>"&\n#.png')
    code, _, folder = run('--only=maps', '--stage=conv1', SEVEN, str(other), str(odd))
    assert code == 0
    assert written(folder)[2:] == [
        'maps-_b_____-conv1.png', 'maps-seven-conv1.png', 'maps-seven_2-conv1.png',
    ]  # fmt: skip
    assert '<b>' not in (folder / 'index.html').read_text()


@pytest.mark.usefixtures('undrawn')
def test_pictures_whose_names_are_alike_once_written_keep_their_files(run, tmp_path):
    names = ['a b', 'a_b', 'x', 'x_2', 'L' * 90 + '1', 'L' * 90 + '2', 'L' * 90 + '3']
    (tmp_path / 'more').mkdir()
    paths = [tmp_path / f'{name}.png' for name in names] + [tmp_path / 'more' / 'x.png']
    for path in paths:
        shutil.copy(SEVEN, path)
    code, said, folder = run('--only=maps', '--stage=conv1', *map(str, paths))
    assert code == 0
    assert len([*folder.glob('maps-*.png')]) == len(paths)
    assert f'{len(paths)} files in ' in said


# --- the folder ----------------------------------------------------------------------------------


def test_a_folder_with_foreign_files_is_refused(run, tmp_path):
    folder = tmp_path / 'mine'
    folder.mkdir()
    (folder / 'filters-conv1.png').write_text('mine')
    code, said, _ = run('--only=filters', folder=folder)
    assert code == 2
    assert 'has files that tools.inspect did not write' in said
    (folder / 'inspect.json').write_text('{"command": "another", "files": []}')
    assert run('--only=filters', folder=folder)[0] == 2
    assert (folder / 'filters-conv1.png').read_text() == 'mine'
    file = tmp_path / 'file'
    file.write_text('mine')
    code, said, _ = run(folder=file)
    assert 'is no folder' in said


@pytest.mark.parametrize('name', ['a.png', 'index.html'])
def test_a_foreign_file_in_our_folder_is_not_replaced(tmp_path, name):
    ours = output.Output(tmp_path / 'ours', 'title', 'step 1')
    (tmp_path / 'ours' / name).symlink_to(tmp_path / 'target')
    write = ours.page if name == 'index.html' else lambda: ours.save(name, b'new', 'a caption')
    with pytest.raises(output.CannotWriteError, match=f'{name} was not written by tools.inspect'):
        write()
    assert not (tmp_path / 'target').exists()


def test_a_file_of_an_earlier_call_is_replaced_unless_it_was_removed_and_made_anew(tmp_path):
    folder = tmp_path / 'ours'
    output.Output(folder, 'title', 'step 1').save('a.png', b'old', 'old caption')
    output.Output(folder, 'title', 'step 2').save('a.png', b'new', 'new caption')
    assert (folder / 'a.png').read_bytes() == b'new'
    (folder / 'a.png').unlink()
    later = output.Output(folder, 'title', 'step 3')
    (folder / 'a.png').write_text('mine')
    with pytest.raises(output.CannotWriteError):
        later.save('a.png', b'newer', 'caption')


def test_two_calls_at_once_keep_each_others_files(tmp_path):
    first, second = (output.Output(tmp_path, 'title', f'step {i}') for i in range(2))
    with first.of('filters'), second.of('maps'):
        first.save('a.png', b'', 'first')
        second.save('b.png', b'', 'second')
    page = first.page().read_text()
    assert 'a.png' in page
    assert 'b.png' in page
    second.page()


def test_a_write_that_was_interrupted_leaves_a_file_that_is_still_ours(tmp_path, monkeypatch):
    ours = output.Output(tmp_path, 'title', 'step 1')
    monkeypatch.setattr('files._flush', lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ours.save('a.png', b'old', 'caption')
    monkeypatch.undo()
    output.Output(tmp_path, 'title', 'step 1').save('a.png', b'new', 'caption')
    assert (tmp_path / 'a.png').read_bytes() == b'new'


def test_what_a_stranger_wrote_into_the_index_leads_nowhere(tmp_path):
    (tmp_path / 'secret').write_text('secret')
    folder = tmp_path / 'ours'
    folder.mkdir()
    entry = {'part': '<script>', 'caption': '<script>', 'of': '"'}
    names = ['../secret', '/etc/hostname', 'a\ud800.png', 'a\0', '..', 'b.png']
    files = [{'name': name, **entry} for name in names]
    (folder / 'b.png').write_text('')
    (folder / 'inspect.json').write_text(json.dumps({'command': 'tools.inspect', 'files': files}))
    page = output.Output(folder, '<script>', 'step 1').page().read_text()
    assert 'b.png' in page
    assert 'secret' not in page
    assert 'hostname' not in page
    assert '<script' not in page


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(run):
    code, said, _ = run('--only=filters', folder=Path('/proc/nothing'))
    assert code == 2
    assert said.endswith('Choose another folder by --output=DIR.\n')


@pytest.mark.parametrize('part', ['a/b c', '..', 'ä猫-1.x', 'x' * 500, '\ud800"<'])
def test_names_of_files_are_harmless(part):
    name = output.named('maps', part)
    assert re.fullmatch(r'maps-[\w.-]{1,60}\.png', name)
    assert len(name.encode()) <= 255


@pytest.mark.parametrize('part', ['x' * 30, '猫' * 60])
def test_a_name_of_many_parts_is_short_and_another_one_for_other_parts(part):
    first, second = (output.named('why', *[part] * 9, last) for last in 'ab')
    assert first != second
    assert max(len(name.encode()) for name in (first, second)) <= 210
    assert first.startswith(f'why-{part[:20]}')


# --- another task --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_task_without_classes_is_looked_into_as_well(run, tmp_path):
    assert turned.Turned.name == 'turned'
    fields = {'model__name': 'strided_cnn', 'model__width': 0.05, 'batch_size': 64, 'steps': 2}
    config = write_config(tmp_path, task='turned', data__name=turned.NAME, **fields)
    workdir = tmp_path / 'run'
    assert train_here(config, workdir) == 0
    code, _, folder = run(
        '--only=filters,units,maps,mistakes,likes,embedding', SEVEN, workdir=workdir
    )
    assert code == 0
    assert {'filters-head.png', 'maps-seven-conv1.png'} <= set(written(folder))
    assert all(pixels_of(path.read_bytes()).std() > 0.01 for path in folder.glob('*.png'))
