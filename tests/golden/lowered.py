"""Hashes of the programs that a run is lowered to: the step must not change while code moves.

    python -m tests.golden.lowered                  compare with lowered.json
    python -m tests.golden.lowered --write          record lowered.json
    python -m tests.golden.lowered --texts=FOLDER   write the texts; `diff -r` of two trees' folders

All of this (this file, lowered.json and tests/training/test_lowered.py) goes when the restructuring
is over; tests/abstract.py stays.

What is hashed is StableHLO as JAX lowers it for a CPU, without the names that Python code gives:
locations, names of arguments and results, of the module and of its private functions. A function is
called by the hash of its own body, so that neither its name, nor its place, nor how many equal
copies of it there are matters. Renaming and moving Python functions, modules and classes, and
another structure of the static spec, leave the hashes as they are. Any change of an operation, of
its order, of a shape, dtype or constant, or of what is donated, changes them.

They do change, with the same arithmetic, where

* a key of hyper, batch, dataset, state or metrics is renamed, added or removed, because JAX sorts
  the keys of a dict and so numbers arguments and results; record anew in the commit that does
  this and nothing else, after a look at the difference of the texts;
* a helper becomes a function under jax.jit, or is none any more;
* the mapped axis of the runners is renamed.

Texts are those of one release of JAX, Flax and Optax each, and the test is skipped for others.
"""

import argparse
import functools
import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

import input_pipeline
from sweeps.population import Population
from tests.abstract import abstract, array, stacked
from training.runner import Runner
from training.step import eval_step, train_step

RECORDED = Path(__file__).with_name('lowered.json')
LIBRARIES = ('jax', 'flax', 'optax')
LANES, CALL = 2, 3  # lanes of the population; updates of a call of several
RECIPE = {
    'model__name': 'resnet18',
    'model__stochastic_depth': 0.05,
    'dtype': 'bfloat16',
    'augment__erase': 0.25,
    'ema_decay': 0.999,
}
# Everything that the step does to images in memory and streamed ones do not get, and what else
# is off by default.
SWITCHES = {
    'accumulate': 2,
    'label_smoothing': 0.1,
    'ema_decay': 0.9,
    'model__dropout_rate': 0.1,
    'augment__crop': 2,
    'augment__flip': 0.5,
    'augment__mixup': 0.2,
    'augment__erase': 0.5,
    'augment__erase_mode': 'zero',
    'optimizer__name': 'adamw',
    'optimizer__weight_decay': 0.01,
    'optimizer__clip_norm': 1.0,
    'freeze': 'conv1/*',
    'layer_decay': 0.9,
}
# What it starts from is not read here.
PROBE = {'linear_probe': True, 'init_from': 'some_run'} | {
    f'augment__{name}': 0 for name in ('shift', 'rotate', 'scale')
}


def alone(path: str, **fields) -> dict[str, str]:
    """The step by plain jit: one device has the whole batch."""
    found = abstract(path, **fields)
    train = jax.jit(functools.partial(train_step, found.spec))
    score = jax.jit(functools.partial(eval_step, found.spec))
    variables = found.state.variables()
    return {
        'train': _text(train, found.state, found.hyper, found.batch, found.dataset),
        'evaluate': _text(score, variables, found.eval_batch, found.eval_dataset),
    }


def over_devices(kind: str) -> dict[str, str]:
    """The runner's programs, on one device: with collectives over an axis, and donation."""
    found = abstract('configs/digits_lenet.py')
    runner = Runner(found.spec, kind, jax.devices()[:1], detailed=True)
    devices = (1,) if kind == 'pmap' else ()
    state, batch = (found.state, found.hyper), stacked(found.batch, *devices)
    several, eval_batch = stacked(batch, CALL), stacked(found.eval_batch, *devices)
    variables = found.state.variables()
    return {
        'train': _text(runner.train, *state, batch, found.dataset),
        'train_many': _text(runner.train_many, *state, several, found.dataset),
        'evaluate': _text(runner.evaluate, variables, eval_batch, found.eval_dataset),
    }


class _Programs(Population):
    """A population that has its programs, and no states: making those would be compiled."""

    def _make_lanes(self, blocks: int) -> None:
        """Makes none."""


def population() -> dict[str, str]:
    """What sweep.py compiles for lanes of digits_lenet; private names, for want of public ones."""
    found = abstract('configs/digits_lenet.py')
    config = found.experiment.config
    splits = [input_pipeline.open_split(config, name) for name in ('train', 'validation')]
    lanes = _Programs(config, *splits, LANES, jax.devices()[:1])
    flag = array(LANES, dtype=bool)
    state, hyper, batch = (stacked(x, LANES) for x in (found.state, found.hyper, found.batch))
    return {
        'train': _text(lanes._train, state, hyper, batch, found.dataset, flag, flag),
        'evaluate': _text(lanes._evaluate, state.variables(), found.eval_batch, found.eval_dataset),
    }


# Name -> its programs' texts.
CASES: dict[str, Callable[[], dict[str, str]]] = {
    'digits_lenet': functools.partial(alone, 'configs/digits_lenet.py'),
    'digits_lenet_switches': functools.partial(alone, 'configs/digits_lenet.py', **SWITCHES),
    'digits_lenet_probe': functools.partial(alone, 'configs/digits_lenet.py', **PROBE),
    'cifar10_resnet18': functools.partial(alone, 'configs/cifar10_resnet18.py'),
    'streamed_resnet18': functools.partial(
        alone, 'configs/imagenet_resnet18.py', data__on_bad_record='skip'
    ),
    'streamed_recipe': functools.partial(alone, 'configs/imagenet_resnet50_rsb_a3.py', **RECIPE),
    'pmap': functools.partial(over_devices, 'pmap'),
    'shard_map': functools.partial(over_devices, 'shard_map'),
    'population': population,
}


def _text(function, *arguments) -> str:
    return normalised(function.lower(*arguments).as_text())


def normalised(text: str) -> str:
    """Returns a module's text without the names of Python code; see the head of this file."""
    text = re.sub(r'^#loc.*\n', '', text, flags=re.MULTILINE)
    text = re.sub(r' loc\((?:[^()"]|"[^"]*"|\([^()]*\))*\)', '', text)
    text = re.sub(r'jax\.(?:result_info|arg_info) = "(?:[^"\\]|\\.)*"(?:, )?', '', text)
    text = text.replace(', }', '}').replace(' {}', '')
    text = re.sub(r'^module @\S+', 'module', text)
    functions, rest = {}, []
    for part in re.split(r'(?<=\n)(?=  func\.func )', text):
        head = re.match(r'  func\.func (?:public|private) @([\w.$-]+|"[^"]*")', part)
        if not head:
            rest.append(part)  # the module's own attributes, and its mesh
            continue
        body, end, after = part.partition('\n  }\n')
        functions[head[1]] = body + end
        rest.append(after)
    return ''.join([*rest, *_called(functions, 'main')])


def _called(functions: dict[str, str], main: str) -> Iterator[str]:
    """Yields the texts of a function and of all that it calls, each once and under its hash."""
    texts, done = {}, {}

    def renamed(match: re.Match) -> str:
        return '@' + body_of(match[1]) if match[1] in functions else match[0]

    def body_of(name: str) -> str:
        if name not in done:
            head, at, body = functions[name].partition(f'@{name}')
            body = re.sub(r'@([\w.$-]+|"[^"]*")', renamed, body)
            digest = f'f{hashlib.sha256(body.encode()).hexdigest()[:16]}'
            texts[digest] = f'{head}{at[0]}{digest}{body}'
            done[name] = digest
        return done[name]

    body_of(main)
    yield from texts.values()


def versions() -> dict[str, str]:
    """Returns the versions of what decides the texts."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def hashes(case: str) -> dict[str, str]:
    """Returns {program: hash of its text}."""
    return {name: hashlib.sha256(t.encode()).hexdigest() for name, t in CASES[case]().items()}


def main() -> int:
    """Compares, or records; see the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--write', action='store_true', help='record lowered.json')
    parser.add_argument('--texts', type=Path, help='folder for the texts')
    args = parser.parse_args()
    if args.texts:
        args.texts.mkdir(parents=True, exist_ok=True)
        for case, make in CASES.items():
            for name, text in make().items():
                (args.texts / f'{case}.{name}.mlir').write_text(text)
        return 0
    found = {'versions': versions(), 'hashes': {case: hashes(case) for case in CASES}}
    if args.write:
        RECORDED.write_text(json.dumps(found, indent=1) + '\n')
        return 0
    recorded = json.loads(RECORDED.read_text())
    changed = [case for case in CASES if found['hashes'][case] != recorded['hashes'].get(case)]
    print(f'changed: {", ".join(changed) or "nothing"}; {found["versions"]}')
    return bool(changed)


if __name__ == '__main__':
    sys.exit(main())
