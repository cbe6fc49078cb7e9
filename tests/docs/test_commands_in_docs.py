"""Every command in README.md, docs/ and cluster/README.md is one that can be pasted as it stands.

Each is parsed by its own parser and its configuration is checked. Those that need no download and
end within a minute are run, in a copy of the repository; NOT_RUN lists the others.
"""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import configs
from configs import base, reading, schema, search
from tests.conftest import ROOT
from tests.docs import pages
from tests.support import once
from tests.support_pictures import box_folder, digit_folder, mask_folder
from training import checks

# A configuration of a page may register a model.
pytestmark = pytest.mark.usefixtures('own_are_forgotten')

# Why a command is not run here: the commands, as they stand in the pages.
NOT_RUN = {
    'installs or downloads packages': (
        'source .venv/bin/activate',
        'pip install tensorboard xprof',
        'pip install -r requirements.txt "jax[cuda13]"',
        'pip install -r requirements.txt "jax[cuda12]"',
        'pip install -r requirements.txt "jax[tpu]"',
        'pip install -r requirements-slurm.txt',
        'pip install -r requirements-ray.txt',
    ),
    'installs packages, then runs the training that `trained` runs here': ('make train',),
    'runs these tests, or a part of them': (
        'make test',
        'make test-slow',
        'make test-full',
        'make test-cluster',
        'make test-ray',
        'make test-page',
        'make lint',
        'pytest tests/models/test_torch_parity.py -m ""',
        'python -m tests.data_sources.photographed --workdir=runs/mnist_lenet',
        'python -m tests.data_sources.photographed --workdir=runs/digits_lenet',
        'python -m tests.data_sources.drawn --workdir=runs/mnist_lenet',
        'python -m tests.data_sources.drawn --workdir=runs/digits_lenet',
        'python -m tests.inspection.sanity --workdir=runs/digits_lenet',
        'python -m tests.tools.page.picture --workdir=runs/digits_lenet '
        '--output=docs/images/page.png',
        'python -m tests.tools.page.picture --workdir=runs/bccd '
        '--output=docs/images/page_boxes.png --picture=cells.jpg '
        '--box="WBC #1" --width=1110 --colors=224',
    ),
    'needs a browser': (
        'chromium --headless --hide-scrollbars --window-size=1400,1830 '
        '--force-device-scale-factor=0.5 --screenshot=docs/images/report.png '
        'runs/digits_lenet/report.html',
    ),
    'serves until it is stopped': (
        'tensorboard --logdir=runs/profile',
        'python -m tools.page --workdir=runs/digits_lenet',
    ),
    'downloads MNIST, or trains on it: tests/test_mnist.py does, where it is': (
        'python -m tools.prepare_data mnist',
        'python -m tools.prepare_data mnist --source=$HOME/mnist',
        'python train.py --config=configs/mnist_lenet.py --workdir=runs/lenet',
        'python train.py --config=configs/mnist_lenet.py '
        '--workdir=runs/results/mnist/lenet_5/seed0',
    ),
    'starts from a network that was trained on MNIST': (
        'python train.py --config=configs/transfer_finetune.py --workdir=runs/finetune '
        '--config.init_from=runs/lenet',
        'python train.py --config=configs/transfer_probe.py --workdir=runs/probe '
        '--config.init_from=runs/lenet',
        'python train.py --config=configs/transfer_finetune.py --workdir=runs/frozen '
        '--config.init_from=runs/lenet --config.freeze="(\'conv1/*\',\'conv2/*\')"',
        'python train.py --config=configs/transfer_finetune.py --workdir=runs/fast_head '
        '--config.init_from=runs/lenet --config.multipliers="(\'head/*=10\',)"',
        'python train.py --config=configs/transfer_finetune.py --workdir=runs/decay '
        '--config.init_from=runs/lenet --config.layer_decay=0.7',
    ),
    'reads files that have to be downloaded: tests/preparation has small ones': (
        'python -m tools.prepare_data idx --name=fashion_mnist --source=$HOME/fashion_mnist',
        'python -m tools.prepare_data cifar10 --source=$HOME/cifar-10-python.tar.gz',
        'python -m tools.prepare_data cifar100 --source=$HOME/cifar-100-python.tar.gz',
        'python -m tools.prepare_data imagenet2012 --source=$HOME/imagenet',
        'python -m tools.prepare_data masks --name=nuclei --source=$HOME/nuclei --instances '
        '--splits=configs/nuclei_splits.json --stretch=0.5',
        'python train.py --config=configs/nuclei_unet.py --workdir=runs/nuclei',
        'python evaluate.py --workdir=runs/nuclei',
        'python -m tools.prepare_data coco --name=street --source=$HOME/street '
        '--annotations $HOME/street/instances_train.json',
        'python -m tools.prepare_data from_tfrecord '
        '--source=$HOME/tensorflow_datasets/imagenet2012/5.1.0',
    ),
    'downloads weights, or starts from them': (
        'python -m tools.convert_weights --model=resnet50 --pretrained=hub:timm/resnet50.a1_in1k '
        '--out=weights/resnet50',
        'python -m tools.convert_weights --model=resnet18 --source=$HOME/resnet18.pth '
        '--out=weights/resnet18',
        'python -m tools.convert_weights --to=torch --source=weights/resnet50 '
        '--out=resnet50.safetensors',
        'python train.py --config=configs/folder_finetune.py --workdir=runs/pets_finetuned '
        '--config.data.name=pets --config.init_from=weights/resnet50',
    ),
    'needs the data set BCCD': (
        'python -m tools.prepare_data voc --name=bccd --source=$HOME/BCCD_Dataset/BCCD',
        'python train.py --config=configs/bccd_fcos.py --workdir=runs/bccd',
        'python evaluate.py --workdir=runs/bccd',
    ),
    'needs ImageNet': (
        'python train.py --config=configs/imagenet_resnet50.py --workdir=runs/resnet50',
        'python train.py --config=configs/imagenet_resnet50.py --workdir=runs/smoke '
        '--config.smoke=true',
        'python -m tools.show_batch --config=configs/imagenet_resnet50_rsb_a2.py',
        'python -m tools.preflight --config=configs/imagenet_resnet50.py --hosts=4 --devices=8',
    ),
    'needs several hosts, SLURM or Ray': (
        'python train.py --config=configs/imagenet_resnet50.py --workdir=/shared/resnet50 '
        '--config.distributed=$HOST:12345,2,0',
        'python train.py --config=configs/imagenet_resnet50.py --workdir=/shared/resnet50 '
        '--config.distributed=$HOST:12345,2,1',
        'python sweep.py --config=configs/digits_lenet.py --sweep=configs/sweeps/lenet.py '
        '--workdir=runs/sweep_slurm --engine=slurm --jobs=16 --gpus=1 --slurm=partition=gpu',
        'python sweep.py --config=configs/digits_lenet.py --sweep=configs/sweeps/lenet.py '
        '--workdir=runs/sweep_ray --engine=ray --jobs=16 --gpus=1 --ray_address=auto',
        'srun --nodes=2 --ntasks-per-node=1 python -m tools.preflight '
        '--config=configs/imagenet_resnet50.py --workdir=/shared/resnet50',
        'python sweep.py --config=configs/digits_lenet.py --sweep=configs/sweeps/lenet.py '
        '--workdir=/shared/sweep --engine=slurm --jobs=16 --cpus=8 --gpus=1 '
        '--slurm=partition=gpu --slurm=timeout_min=240',
        'python sweep.py --config=configs/digits_lenet.py --sweep=configs/sweeps/lenet.py '
        '--workdir=/shared/sweep --engine=ray --jobs=16 --cpus=8 --gpus=1 --ray_address=auto',
    ),
    'takes more than a minute': (
        'python train.py --config=configs/scenes_unet.py --workdir=runs/scenes',
        'python train.py --config=configs/digits_lenet.py --workdir=runs/digits_resnet '
        '--config.model.name=resnet18 --config.model.stem=mnist --config.model.width=0.25 '
        '--config.epochs=20',
        'python train.py --config=configs/scenes_fcos.py --workdir=runs/scenes_boxes',
        'python train.py --config=configs/scenes_fcos.py --workdir=runs/boxes_tuned '
        '--config.epochs=3 --config.eval_every=3 --config.checkpoint.every=3 '
        '--config.init_from=runs/scenes',
        'python train.py --config=configs/scenes_fcos.py --workdir=runs/boxes_frozen '
        '--config.epochs=3 --config.eval_every=3 --config.checkpoint.every=3 '
        "--config.init_from=runs/scenes --config.freeze='[!h]*'",
        'python train.py --config=configs/scenes_unet.py --workdir=runs/scenes_tuned '
        '--config.epochs=4 --config.eval_every=4 --config.init_from=runs/digits_resnet',
        'python -m tools.results digits',
        'python train.py --config=configs/folder_overfit.py --workdir=runs/overfit '
        '--config.data.name=sample',
        'python -m tools.drill --minutes=5',
        'python -m tools.drill --only=kills --trials=200 --minutes=60',
        'python -m tools.drill --trials=kills=200,signals=50,damage=100,room=50,configs=1000,'
        'files=10000,sweeps=50 --minutes=120',
        'make bench',
        'make bench BENCH="--only=step,evaluation"',
        'python -m benchmarks.run --update_docs',
        'python -m benchmarks.gpu',
        'python -m benchmarks.gpu --quick',
    ),
    'needs Pythons with TensorFlow and PyTorch': (
        'python -m benchmarks.input_pipeline --source=$JPEGS --shorter_side=256 '
        '--tensorflow_python=.venv-tf/bin/python --torch_python=.venv-torch/bin/python',
    ),
    'would replace the figures of docs/results.md': (
        'python -m tools.results --update_docs',
    ),
}  # fmt: skip
REASONS = {text: reason for reason, texts in NOT_RUN.items() for text in texts}
# Where the pages have pictures of the user's, and what makes them here.
FOLDERS = {'pets': digit_folder, 'pictures/sample': digit_folder, 'cells': mask_folder,
           'blood': box_folder}  # fmt: skip


# --- reading -------------------------------------------------------------------------------------


class Parsed(Exception):  # noqa: N818
    """Ends a command when its arguments are parsed."""


@pytest.fixture
def stop_after_parsing(monkeypatch):
    """Commands raise Parsed(namespace, extras) from their outermost parser."""
    known = argparse.ArgumentParser.parse_known_args
    depth = []

    def parse_known_args(self, *args, **kwargs):
        depth.append(self)
        try:
            found = known(self, *args, **kwargs)
        finally:
            depth.pop()
        if depth:  # of a subcommand
            return found
        raise Parsed(*found)

    def parse_args(self, *args, **kwargs):
        try:
            return parse_known_args(self, *args, **kwargs), []
        except Parsed as parsed:
            if parsed.args[1]:
                self.error(f'unrecognized arguments: {parsed.args[1]}')
            raise

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_known_args', parse_known_args)
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)


@pytest.fixture(scope='module')
def workplace(tmp_path_factory) -> Path:
    """A copy of the repository with the files that the pages tell the reader to write."""
    return copied(tmp_path_factory.mktemp('workplace') / 'clone')


def copied(folder: Path) -> Path:
    left_out = shutil.ignore_patterns('.*', '__pycache__', 'tests', 'runs', 'data', 'weights')
    shutil.copytree(ROOT, folder, ignore=left_out)
    for page in pages.PAGES:
        for block in pages.blocks(page):
            if block.file:
                (folder / block.file).write_text(block.text)
    return folder


def parse(command: pages.Command) -> tuple[argparse.Namespace, list[str]] | None:
    """Returns the arguments as the command's own parser reads them; None for --help."""
    module, arguments = command.python
    try:
        importlib.import_module(module).main(arguments)
    except Parsed as parsed:
        return parsed.args
    except SystemExit as ended:
        if not ended.code:
            return None
        raise AssertionError(f'exit code {ended.code}: {command.text}') from ended
    raise AssertionError(f'{command.text} has parsed nothing')


def check(given: argparse.Namespace, extras: list[str]) -> None:
    """Checks the configuration that the arguments mean, and the other files that they name."""
    assert all(extra.startswith('--config.') for extra in extras), extras
    path = getattr(given, 'config', None)
    if path and path.startswith('runs/'):
        return  # an earlier command makes it
    if path:
        checks.check(reading.from_arguments(path, extras))
    else:
        schema.override(base.get_config(), extras, base.fields())
    if getattr(given, 'sweep', None):
        search.load(given.sweep)
    for name in getattr(given, 'images', ()):
        assert name.startswith(('~', '$HOME/')) or Path(name).is_file()


@pytest.mark.parametrize('page', pages.PAGES)
def test_every_command_parses_and_its_configuration_is_valid(
    page, workplace, stop_after_parsing, monkeypatch
):
    monkeypatch.chdir(workplace)
    # A page may have the reader write a command, and a configuration that it imports.
    monkeypatch.syspath_prepend(workplace)
    monkeypatch.setattr(configs, '__path__', [*configs.__path__, str(workplace / 'configs')])
    for command in (*pages.commands(page), *pages.inline_commands(page)):
        if command.python is None or command.python[0] in ('pytest', 'venv'):
            continue
        parsed = parse(command)
        if parsed and not command.text.startswith(tuple(REFUSED)):
            check(*parsed)


@pytest.mark.parametrize('page', pages.PAGES)
def test_what_a_run_starts_from_was_made_by_an_earlier_command(
    page, workplace, stop_after_parsing, monkeypatch
):
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(workplace)
    monkeypatch.setattr(configs, '__path__', [*configs.__path__, str(workplace / 'configs')])
    made = set()
    for command in pages.commands(page):
        if command.python is None or command.python[0] not in ('train', 'tools.convert_weights'):
            continue
        parsed = parse(command)
        if not parsed:
            continue
        given, extras = parsed
        of_a_file = command.python[0] == 'train' and str(given.config).endswith('.py')
        if of_a_file and not command.text.startswith(tuple(REFUSED)):
            source = reading.from_arguments(given.config, extras).init_from
            assert source is None or source in made, command.text
        made |= {str(vars(given).get(name)) for name in ('workdir', 'out')}


def test_every_command_is_run_or_there_is_a_reason():
    found = {command.text: command for page in pages.PAGES for command in pages.commands(page)}
    others = {text for text, command in found.items() if command.python is None}
    assert others <= set(REASONS), 'only Python is run'
    assert set(REASONS) <= set(found), 'NOT_RUN lists what no page has'


@pytest.mark.parametrize('page', pages.PAGES)
def test_every_block_says_what_it_is(page):
    assert {block.language for block in pages.blocks(page)} <= set(pages.LANGUAGES)
    assert '```' not in pages.prose(page)
    assert not re.search(r'\n\n {4,}\S', pages.prose(page)), 'indented code is not looked at'


@pytest.mark.parametrize('page', pages.PAGES)
def test_python_compiles_and_files_of_configs_are_valid(page, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    for block in pages.blocks(page):
        if block.language != 'python':
            continue
        compile(block.text, page, 'exec')
        if block.file and 'def get_config(' in block.text:
            checks.check(reading.from_arguments(block.file, []))
        if block.file and 'def get_sweep(' in block.text:
            search.load(block.file)


# --- running -------------------------------------------------------------------------------------

# What the pages show as mistakes: their output is the error.
REFUSED = (
    'python train.py --config=configs/digits_lenet.py --workdir=runs/typo ',
)  # fmt: skip


def refused() -> list[pages.Command]:
    found = [command for page in pages.PAGES for command in pages.commands(page)]
    return [command for command in found if command.text.startswith(REFUSED)]


@pytest.mark.parametrize('command', refused(), ids=lambda command: command.words[-1])
def test_mistakes_are_refused_as_shown(command, workplace, monkeypatch, capsys):
    from command import call

    monkeypatch.chdir(workplace)
    module, arguments = command.python
    assert call(importlib.import_module(module).main, arguments) == 2
    assert capsys.readouterr().err.splitlines() == list(command.expected)


def steps(page: str) -> Iterator[pages.Command | pages.Block]:
    """Yields what is run of a page, in order, without the commands that an earlier page has."""
    earlier = {
        command.text
        for other in pages.PAGES[: pages.PAGES.index(page)]
        for command in pages.commands(other)
    }
    for block in pages.blocks(page):
        if block.language == 'python' and not block.file:
            yield block
        for command in pages.commands_of(block):
            skipped = REASONS.keys() | earlier
            if command.text not in skipped and not command.text.startswith(REFUSED):
                yield command


@pytest.fixture(scope='session')
def trained(tmp_path_factory) -> Path:
    """The workdir that `make train` leaves."""

    def train(part: Path) -> None:
        recipe = re.search(r'^\t\$\(BIN\)/python (train\.py .*)$', makefile, re.MULTILINE)[1]
        arguments = recipe.replace('--workdir=runs/digits_lenet', f'--workdir={part}')
        assert arguments != recipe
        run([sys.executable, *arguments.split()], ROOT)

    makefile = (ROOT / 'Makefile').read_text()
    return once(tmp_path_factory, 'make_train', train)


def run(words: list[str], folder: Path, **more) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f'{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'
    return done.stdout


def expected_of(text: str) -> list[str]:
    """Returns the output that a block promises in comments behind its print lines."""
    return re.findall(r'^\s*print\(.*\)  # (.+)$', text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('page', [page for page in pages.PAGES if list(steps(page))])
def test_the_commands_of_a_page_run(page, trained, tmp_path):
    folder = copied(tmp_path / 'clone')
    shutil.copytree(trained, folder / 'runs' / 'digits_lenet')
    for name, make in FOLDERS.items():
        make(tmp_path / name)
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    env = os.environ | {'HOME': str(tmp_path), 'PATH': path}
    for step in steps(page):
        if isinstance(step, pages.Command):
            script = '\n'.join([*step.variables, step.text])
            printed = run(['bash', '-c', script], folder, env=env).splitlines()
            measures = step.text.startswith('python -m tools.preflight ')
            shown = [] if measures else [line for line in step.expected if line != '...']
            assert set(shown) <= set(printed)
        else:
            printed = run([sys.executable, '-c', step.text], folder, env=env).splitlines()
            expected = expected_of(step.text)
            assert printed[: len(expected)] == expected
