"""The start of a run: nothing is imported or compiled that it can do without."""

import json
import os
from pathlib import Path

import pytest

from tests.support import arguments, run_child

# Runs train.py and writes to argv[1], in JSON, which packages were imported when the first step
# was done, and how many programs were asked of the compilation cache and not found there.
SCRIPT = """
import collections, json, sys
from pathlib import Path
import train
from training import progress

modules, counts = [], collections.Counter()
update = progress.Progress.update

def first_update(*arguments):
    if not modules:
        import jax.monitoring
        modules.extend(sys.modules)
    update(*arguments)

progress.Progress.update = first_update
import jax
jax.monitoring.register_event_listener(lambda event, **about: counts.update([event]))
assert train.main(sys.argv[2:]) == 0
Path(sys.argv[1]).write_text(json.dumps({'modules': modules, 'counts': counts}))
"""
# Half a second each, or not even installed with requirements.txt.
UNNEEDED = ('matplotlib', 'tensorflow_datasets', 'grain', 'PIL', 'pandas', 'scipy', 'tensorflow')
UNNEEDED += ('tensorboard', 'torch', 'sklearn', 'huggingface_hub', 'chex')
CACHE = '/jax/compilation_cache'


@pytest.fixture(scope='module')
def starts(small, tmp_path_factory) -> list[dict]:
    """What three runs one after the other said, with a cache of their own.

    Before the third an entry is cut short, as if a run had been killed while it wrote it.
    """
    folder, found = tmp_path_factory.mktemp('starts'), []
    for name in ('cold', 'warm', 'mended'):
        if name == 'mended':
            cut = max((folder / 'cache').glob('*-cache'), key=lambda entry: entry.stat().st_size)
            whole = cut.stat().st_size
            os.truncate(cut, whole // 2)
        argv = arguments(small, folder / name, compilation_cache=folder / 'cache')
        child = run_child([str(folder / 'said'), *argv], folder / f'{name}.log', SCRIPT)
        assert child.process.returncode == 0, child.output
        found.append(json.loads((folder / 'said').read_text()) | {'output': child.output})
    assert cut.stat().st_size > 0.9 * whole
    return found


@pytest.mark.slow
def test_the_second_run_compiles_nothing_and_the_next_what_was_spoilt(starts):
    cold, warm, mended = (start['counts'] for start in starts)
    asked = cold[f'{CACHE}/compile_requests_use_cache']
    # The initial state, the step, and evaluation of validation and test: no small ones beside.
    assert asked == cold[f'{CACHE}/cache_misses'] <= 4
    assert warm[f'{CACHE}/cache_hits'] == asked
    assert f'{CACHE}/cache_misses' not in warm
    assert mended[f'{CACHE}/cache_misses'] == 1
    assert 'Warning' not in starts[-1]['output']


@pytest.mark.slow
def test_the_first_step_waits_for_no_import_that_it_can_do_without(starts):
    imported = {name.partition('.')[0] for name in starts[0]['modules']}
    assert {'jax', 'numpy', 'training'} <= imported
    assert not imported & set(UNNEEDED)


def test_mistakes_in_the_command_do_not_wait_for_jax(tmp_path: Path):
    script = 'import sys, train; train.parser(); assert not {"jax", "numpy"} & set(sys.modules)'
    child = run_child([], tmp_path / 'log', script)
    assert child.process.returncode == 0, child.output
