"""Runs another state of this project beside this one: same numbers, and no later a first step?

    python tests/golden/side_by_side.py --base=COMMIT_OR_FOLDER

Trains the digits and a small streamed set in both trees, each by its own train.py, with this
Python, on this machine; the streamed pictures pass through every augmentation there is. Compared
are params_sha256 and the test figures of result.json, and metrics.jsonl without times. Exits with 1
if anything differs. Then both start again, compiled, in turns, until the first step is reported:
the seconds are printed, and are for the reader to judge (they mean little on a busy machine).

For a change that must not change a number. Nothing of the project is imported, so that any two
states of it can be compared; what it relies on are the commands, the fields below and the files of
a run.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent.parent
TREES = ('base', 'new')
STARTS = 5
FIRST_STEP = re.compile(r'^step 1/')
TIMED = (
    'wall_seconds',
    'train/images_per_second',
    'train/input_wait',
    'train/model_flops_utilisation',
)
DIGITS = 'configs/digits_lenet.py'
# Lists, since this is written as JSON.
STREAMED = {
    'model.name': 'resnet18',
    'model.stem': 'cifar',
    'model.width': 0.125,
    'model.stochastic_depth': 0.1,
    'data.name': 'pictures',
    'data.image_size': 32,
    'data.crop_scale': [0.3, 1.0],
    'data.repeats': 2,
    'data.on_bad_record': 'skip',
    'augment.flip': 0.5,
    'augment.policy': 'randaugment',
    'augment.magnitude_std': 1.0,
    'augment.op_probability': 0.7,
    'augment.color_jitter': [0.3, 0.3, 0.3, 0.1],
    'augment.shift': 2.0,
    'augment.rotate': 10.0,
    'augment.scale': 0.1,
    'augment.erase': 0.5,
    'augment.mixup': 0.2,
    'augment.cutmix': 1.0,
    'augment.mix_probability': 0.8,
    'loss': 'bce',
    'bce_threshold': 0.2,
    'label_smoothing': 0.1,
    'ema_decay': 0.9,
    'optimizer.name': 'lamb',
    'optimizer.learning_rate': 0.01,
    'optimizer.weight_decay': 0.02,
    'optimizer.clip_norm': 1.0,
    'batch_size': 32,
    'epochs': 3.0,
    'log_every': 1,
}
# Writes a folder of class folders of small JPEGs, some of them odd; by this tree for both.
PICTURES = """
import sys
from pathlib import Path
from tests.support_pictures import digit_folder
digit_folder(Path(sys.argv[1]))
"""


def main() -> int:
    """Compares; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--base', required=True, help='a commit, or the folder of a tree')
    parser.add_argument('--epochs', type=int, default=6, help='of the run on the digits')
    parser.add_argument('--streamed_pictures', type=Path, help='a folder of class folders')
    parser.add_argument('--starts', type=int, default=STARTS, help='of each tree; 0: none')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, tree_of(args.base, Path(scratch)) as base:
        trees, folder = {'base': base, 'new': HERE}, Path(scratch)
        pictures = args.streamed_pictures or folder / 'source'
        if not args.streamed_pictures:
            call(HERE, '-c', PICTURES, pictures)
        (folder / 'streamed.json').write_text(json.dumps(STREAMED))
        equal = True
        for name, train in (('digits', train_digits), ('streamed', train_streamed)):
            runs = [train(trees[who], folder / who, pictures, args.epochs) for who in TREES]
            equal &= compare(name, *runs)
        if args.starts:
            measure(trees, folder, args.starts)
    print('all figures are equal' if equal else 'FIGURES DIFFER')
    return not equal


@contextlib.contextmanager
def tree_of(base: str, scratch: Path) -> Iterator[Path]:
    """The folder of the base: as given, or a worktree of a commit for as long as this lasts."""
    if Path(base).is_dir():
        yield Path(base).resolve()
        return
    tree = scratch / 'tree'
    git = ['git', '-C', str(HERE), 'worktree']
    subprocess.run([*git, 'add', '--quiet', '--detach', str(tree), base], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, 'remove', '--force', str(tree)], check=True)


def call(tree: Path, *arguments) -> None:
    """Runs Python in a tree; ends this program, with its output, if it fails."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=tree, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f'{tree}: {" ".join(map(str, arguments))} failed:\n{done.stdout}')


def environment() -> dict[str, str]:
    """The present one without paths of Python, which would mix the trees."""
    kept = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    return kept | {'PYTHONUNBUFFERED': '1'}


def command(config, workdir: Path, cache: Path, **fields) -> list[str]:
    """Returns the arguments of Python for a run; compiled programs are kept in `cache`."""
    given = {'compilation_cache': cache, **fields}
    given = [f'--config.{name.replace("__", ".")}={value}' for name, value in given.items()]
    return ['train.py', f'--config={config}', f'--workdir={workdir}', *given]


def train_digits(tree: Path, own: Path, pictures: Path, epochs: int) -> Path:
    """Trains LeNet; returns the workdir."""
    call(tree, *command(DIGITS, own / 'digits', own / 'cache', epochs=epochs, log_every=1))
    return own / 'digits'


def train_streamed(tree: Path, own: Path, pictures: Path, epochs: int) -> Path:
    """Prepares the pictures and trains on them; returns the workdir."""
    prepare = ['folder', '--name=pictures', f'--source={pictures}', f'--data_dir={own / "data"}']
    call(tree, '-m', 'tools.prepare_data', *prepare)
    config = own.parent / 'streamed.json'
    call(tree, *command(config, own / 'streamed', own / 'cache', data__dir=own / 'data'))
    return own / 'streamed'


def compare(name: str, base: Path, new: Path) -> bool:
    """Prints what two runs have found; returns whether it is the same."""
    base_result, new_result = (json.loads((run / 'result.json').read_text()) for run in (base, new))
    names = [key for key in base_result | new_result if key.startswith('test_')]
    equal = True
    for key in ('params_sha256', 'parameters', 'steps', *names):
        equal &= row(f'{name}: {key}', base_result.get(key), new_result.get(key))
    records = [untimed(run / 'metrics.jsonl') for run in (base, new)]
    equal &= row(f'{name}: records', *map(len, records))
    for ours, theirs in zip(*records, strict=False):
        if ours != theirs:
            keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
            for key in keys:
                row(f'{name}: first other record: {key}', ours.get(key), theirs.get(key))
            return False
    return equal


def untimed(path: Path) -> list[dict]:
    """The records of a run without what no two runs have alike."""
    records = map(json.loads, path.read_text().splitlines())
    return [{key: v for key, v in record.items() if key not in TIMED} for record in records]


def row(what: str, base, new) -> bool:
    """Prints a line of the table; returns whether both are the same."""
    equal = base == new
    print(f'{what:<34} {base!s:<22.20} {new!s:<22.20} {"equal" if equal else "DIFFERS"}')
    return equal


def measure(trees: dict[str, Path], folder: Path, count: int) -> None:
    """Prints the seconds to the first step, compiled: one start of each that does not count."""
    seconds: dict[str, list[float]] = {who: [] for who in TREES}
    for number in range(-1, count):
        for who in TREES if number % 2 else TREES[::-1]:  # neither always follows the other
            workdir = folder / who / f'start{number}'
            took = start(trees[who], command(DIGITS, workdir, folder / who / 'cache', log_every=1))
            if number >= 0:
                seconds[who].append(took)
    for who in TREES:
        listed = ' '.join(f'{s:.2f}' for s in seconds[who])
        print(f'first step, {who}: median {statistics.median(seconds[who]):.2f} s of {listed}')
    base, new = (statistics.median(seconds[who]) for who in TREES)
    print(f'first step, new / base: {new / base:.3f}')


def start(tree: Path, arguments: list[str]) -> float:
    """Returns the seconds from the start of a process to its first step; then ends it."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=tree, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    lines = []
    with process, process.stdout:
        for line in process.stdout:
            lines.append(line)
            if FIRST_STEP.search(line):
                took = time.perf_counter() - begin
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                return took
    raise SystemExit(f'{tree}: no first step:\n{"".join(lines)}')


if __name__ == '__main__':
    sys.exit(main())
