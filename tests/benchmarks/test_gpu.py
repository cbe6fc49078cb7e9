"""The benchmark of accelerators: its arithmetic, time and memory; and that it runs, on a CPU."""

import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import command
from benchmarks import gpu, gpu_parts, gpu_tables, gpu_work
from benchmarks.gpu_work import Budget, GpuPart
from tests.conftest import ROOT
from tests.support import QUICKLY
from training import flops
from training.flops import ProgramCost
from training.runner import RUN_AHEAD

H200 = {'peak': 989.4e12, 'bandwidth': 4.8e12}
EXHAUSTED = 'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes.'


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Ear:
    """Hears what a part says."""

    def __init__(self):
        self.rows, self.notes, self.said = [], [], []

    def __call__(self, **said):
        self.said.append(said)
        self.rows = said.get('rows', self.rows)
        self.notes += [said['note']] if 'note' in said else []


def make_part(ear, seconds=1000.0, clock=None, quick=True, name='resnet50') -> GpuPart:
    budget = Budget(seconds, clock) if clock else Budget(seconds)
    return GpuPart(name, quick, budget, ear)


def tiny(sizes) -> gpu_parts.StepCase:
    """A network that compiles within a second or two."""
    return gpu_parts.StepCase('fcn', sizes, 8, {'units': 8, 'depth': 1})


# --- the command -------------------------------------------------------------------------------


@pytest.mark.slow
def test_quick_runs_on_a_cpu(tmp_path):
    output = tmp_path / 'figures.json'
    # So many minutes, lest a slow machine leave something out.
    arguments = ['--quick', '--only=lenet,population,densenet121', '--minutes=60', '--markdown']
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.gpu', *arguments, f'--output={output}'],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    parts = found['parts']
    assert list(parts) == ['lenet', 'population', 'densenet121']
    assert found['platform'] == 'cpu'
    for part in parts.values():
        assert part['done']
        assert not part['notes']
        for row in part['rows']:
            assert row['slowest'] <= row['rate'] <= row['fastest']
            # XLA's count agrees with the layers' own, and has what is not in it besides.
            assert 0.7 < row['counts']['flops'] / row['counts']['model_flops'] < 3
            assert row['counts']['bytes'] > 0
            assert row['memory'] > 0
    assert [row['updates'] for row in parts['lenet']['rows']] == [8, 8]
    one, several = (row['accuracy'] for row in parts['lenet']['rows'])
    assert one == pytest.approx(several, abs=0.05)  # the same updates, whatever their number a call
    assert [row['lanes'] for row in parts['population']['rows']] == [0, 2]
    alone, two = parts['population']['rows']
    assert two['images'] == 2 * alone['images']
    assert done.stdout.count('| --- |') == 3
    assert 'XLA_CLIENT_MEM_FRACTION=' in done.stdout


def test_without_an_accelerator_it_says_so():
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.gpu'],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert 'no accelerator' in done.stderr
    assert '--quick' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('--only=resnet5', 'Did you mean "resnet50"'),
        ('--minutes=0', '--minutes=0: a number from 1'),
        ('--minutes=soon', '--minutes=soon: a number from 1'),
    ],
)
def test_mistakes_are_told(argument, message, capsys):
    assert command.call(gpu.main, [argument]) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path, capsys):
    output = tmp_path / 'mine.json'
    output.write_text('mine')
    assert command.call(gpu.main, ['--quick', f'--output={output}']) == 2
    assert 'is there already' in capsys.readouterr().err
    assert output.read_text() == 'mine'


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, capsys):
    output = tmp_path / 'nowhere' / 'mine.json'
    assert command.call(gpu.main, ['--quick', f'--output={output}']) == 2
    assert 'in a folder that does not exist' in capsys.readouterr().err


def test_a_part_whose_time_is_up_is_ended(capsys):
    found = gpu.run_part('lenet', quick=True, seconds=60.0, limit=0.3)
    assert found['rows'] == []
    assert 'its time was up' in found['notes'][0]


def test_a_part_that_breaks_off_leaves_its_reason():
    found = gpu.run_part('no such part', quick=True, seconds=60.0, limit=60.0)
    assert 'KeyError' in found['notes'][0]


def test_parts_have_shares_and_shares_parts():
    assert list(gpu.SHARES) == list(gpu_parts.PARTS)
    assert set(gpu_parts.NETWORKS) == set(gpu_parts.QUICK_NETWORKS)


def test_what_the_user_has_set_stands():
    assert gpu.environment({}) == {'XLA_CLIENT_MEM_FRACTION': gpu.MEMORY_SHARE}
    assert gpu.environment({'XLA_CLIENT_MEM_FRACTION': '.5'}) == {}
    assert gpu.environment({'XLA_PYTHON_CLIENT_MEM_FRACTION': '.5'}) == {}
    flags = gpu.environment({'XLA_FLAGS': '--mine=1'}, quick=True)['XLA_FLAGS']
    assert flags.startswith('--mine=1 --xla')


# --- the roofline ------------------------------------------------------------------------------


def test_the_nearer_limit_counts():
    # 400 MB and 24 GFLOP an image: 4.8e12 / 4e8 = 12,000 by memory, 41,225 by arithmetic.
    counts = ProgramCost(flops=256 * 24e9, bytes=256 * 4e8, model_flops=256 * 20e9)
    at = gpu_tables.evaluate(6000.0, 256, counts, **H200)
    assert at.limit == 'memory'
    assert at.bound == pytest.approx(12_000)
    assert at.share == pytest.approx(0.5)
    assert at.flops_per_second == pytest.approx(6000 * 24e9)
    assert at.bytes_per_second == pytest.approx(2.4e12)
    assert at.utilisation == pytest.approx(6000 * 20e9 / 989.4e12)
    lean = gpu_tables.evaluate(6000.0, 256, ProgramCost(256 * 24e9, 256 * 4e6, 256 * 20e9), **H200)
    assert lean.limit == 'arithmetic'
    assert lean.bound == pytest.approx(989.4e12 / 24e9)


def test_what_is_not_known_is_left_open():
    counts = ProgramCost(256 * 24e9, None, 256 * 20e9)
    unknown = gpu_tables.evaluate(6000.0, 256, counts, None, None)
    assert (unknown.bound, unknown.share, unknown.bytes_per_second) == (None, None, None)
    assert gpu_tables.evaluate(6000.0, 256, counts, 989.4e12, 4.8e12).limit == 'arithmetic'
    assert flops.bandwidth('NVIDIA GeForce GTX 1080') is None
    assert flops.bandwidth('NVIDIA H100 80GB HBM3 MIG 1g.10gb') is None


def test_devices_are_known_by_the_longest_name():
    assert flops.bandwidth('NVIDIA H200') == 4.8e12
    assert flops.bandwidth('NVIDIA H100 80GB HBM3') == 3.35e12
    assert flops.bandwidth('NVIDIA H100 PCIe') == 2.0e12
    assert flops.bandwidth('NVIDIA A100-SXM4-40GB') == 1.555e12
    assert flops.bandwidth('TPU v5 lite') == 0.819e12
    assert flops.bandwidth('NVIDIA L40S') is None


LIBRARY_CALLS = """
%fused (p.1: bf16[8,4]) -> bf16[8,4] {
  ROOT %p.1 = bf16[8,4]{1,0} parameter(0)
}

ENTRY %main.2 (x.1: bf16[8,32,32,64], y.1: bf16[64,3,3,64]) -> f32[4] {
  %y.1 = bf16[64,3,3,64]{3,2,1,0:T(8,128)} parameter(1), metadata={op_name="y"}
  %x.1 = bf16[8,32,32,64]{3,2,1,0} parameter(0), sharding={replicated}
  %cudnn-conv.1 = (bf16[8,32,32,64]{3,2,1,0}, u8[4096]{0}) custom-call(%x.1, %y.1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", metadata={op_name="conv(%x.1)"}
  %topk = f32[1000]{0} custom-call(%x.1), custom_call_target="__gpu$TopK"
  ROOT %cublas-gemm.1 = (f32[4]{0}, s8[1024]{0}) custom-call(%topk), custom_call_target="__cublas$lt$matmul"
}
"""  # noqa: E501


def test_library_calls_are_read_off_the_program():
    images, kernel = 2 * 8 * 32 * 32 * 64, 2 * 64 * 3 * 3 * 64
    product = 4 * 4 + 4 * 1000
    assert flops.library_bytes(LIBRARY_CALLS) == 2 * images + kernel + product


def test_library_calls_count_once():
    calls = flops.library_bytes(LIBRARY_CALLS)
    blind = flops.program_cost({'flops': 1e6, 'bytes accessed': 5e3}, LIBRARY_CALLS, 1e9)
    assert blind == ProgramCost(1e9 + 1e6, 5e3 + calls, 1e9)
    seeing = flops.program_cost({'flops': 1.1e9, 'bytes accessed': 9e6}, LIBRARY_CALLS, 1e9)
    assert seeing == ProgramCost(1.1e9, 9e6, 1e9)
    assert flops.program_cost(None, '', 1e9) == ProgramCost(1e9, None, 1e9)
    assert ProgramCost(1.0, 2.0, 3.0).times(4) == ProgramCost(4.0, 8.0, 12.0)


# --- memory and time ---------------------------------------------------------------------------


def test_growing_stops_where_memory_ends():
    tried, ear = [], Ear()

    def attempt(size):
        tried.append(size)
        if size >= 512:
            raise jax.errors.JaxRuntimeError(EXHAUSTED)
        return size

    sizes = (256, 512, 1024, 128)
    found = make_part(ear).grow(sizes, attempt)
    assert tried == [256, 512, 128]
    assert found == {256: 256, 128: 128}
    assert ear.notes == ['512 does not fit into memory.']


def test_another_failure_leaves_the_larger_sizes():
    def attempt(size):
        if size == 2:
            raise jax.errors.JaxRuntimeError('INTERNAL: no algorithm worked\nmore')
        return size

    ear = Ear()
    assert list(make_part(ear).grow((1, 2, 3), attempt)) == [1, 3]
    assert ear.notes == ['2 failed: INTERNAL: no algorithm worked']


def test_a_mistake_of_the_program_is_no_lack_of_memory():
    def attempt(size):
        raise TypeError('a mistake')

    with pytest.raises(TypeError):
        make_part(Ear()).grow((1,), attempt)


def test_what_would_not_end_in_time_is_left_out(monkeypatch):
    clock, ear = Clock(), Ear()
    monkeypatch.setattr(gpu_work.time, 'monotonic', clock)

    def attempt(size):
        clock.now += 30
        return size

    monkeypatch.setattr(GpuPart, 'window', 2.0)
    part = make_part(ear, 100, clock)
    found = part.grow((256, 512, 1024), attempt, windows=4)
    assert list(found) == [256, 512]  # a third would end at 90, and leave no 24 s for its windows
    assert ear.notes == ['1024 and what comes after it would not end in time: left out.']


def test_windows_take_turns_and_their_number_heeds_the_time():
    clock, ear, order = Clock(), Ear(), []

    def window(key, seconds):
        order.append(key)
        clock.now += seconds
        return seconds

    part = make_part(ear, seconds=21, clock=clock, quick=False)
    rows = {'a': {'name': 'a'}, 'b': {'name': 'b'}}
    windows = {'a': lambda: window('a', 2.0), 'b': lambda: window('b', 4.0)}
    gpu_work.measure(part, rows, windows, 5, {'a': 20, 'b': 20}.get)
    assert order == ['a', 'b'] * 3
    assert ear.notes == ['3 in place of 5 windows for each row, for lack of time.']
    assert [row['rate'] for row in ear.rows] == [10.0, 5.0]
    assert gpu_work.rates([1.0, 2.0, 4.0], 8) == {'rate': 4.0, 'slowest': 2.0, 'fastest': 8.0}


def test_training_goes_on_after_memory_is_out(monkeypatch):
    """The call that fails has taken the state with it: the next size needs a new one."""
    monkeypatch.setitem(gpu_parts.QUICK_NETWORKS, 'resnet50', tiny((4, 8, 2)))
    compile_ahead = gpu_work.compile_ahead

    def compiled(function, state, hyper, batch, dataset):
        found = compile_ahead(function, state, hyper, batch, dataset)
        if batch['index'].size < 4:
            return found

        def call(state, *rest):
            jax.tree.map(lambda x: x.delete(), state)
            raise jax.errors.JaxRuntimeError(EXHAUSTED)

        found.call = call
        return found

    monkeypatch.setattr(gpu_work, 'compile_ahead', compiled)
    ear = Ear()
    gpu_parts.training(make_part(ear))
    assert [row['size'] for row in ear.rows] == [2]
    assert ear.notes == ['4 does not fit into memory.']


# --- windows -----------------------------------------------------------------------------------


def add(state, hyper, batch, dataset):
    return state + batch, state


def test_a_window_with_a_transfer_is_an_error():
    call = jax.jit(add)
    device = jnp.zeros(3)
    state, last = gpu_work.drive(call, device, [jnp.ones(3), 2 * jnp.ones(3)], 3, None, None)
    np.testing.assert_array_equal(state, [4.0] * 3)  # 1, 2, and 1 again
    np.testing.assert_array_equal(last, [3.0] * 3)
    with pytest.raises(Exception, match=r'[Dd]isallowed host-to-device transfer'):
        gpu_work.drive(call, device, [np.ones(3)], 1, None, None)


def test_run_ahead_is_bounded(monkeypatch):
    started, waited, under_way = [], [], []
    monkeypatch.setattr(jax, 'block_until_ready', waited.append)

    def call(state, hyper, batch, dataset):
        started.append(batch)
        under_way.append(len(started) - len(waited))
        return state, batch

    gpu_work.drive(call, 0, range(3), 20, None, None)
    assert len(started) == 20
    assert max(under_way) == RUN_AHEAD + 1
    assert waited[-1] == (0, 1)  # the end of a window waits for its last call


def test_a_compiled_program_tells_its_cost():
    arrays = jnp.ones((64, 64)), jnp.ones((64, 64))
    found = gpu_work.compile_ahead(jax.jit(lambda a, b: a @ b), *arrays)
    assert found.cost['flops'] == pytest.approx(2 * 64**3, rel=0.05)
    assert found.memory >= 3 * 4 * 64**2
    assert not found.cached
    assert 'HloModule' in found.text


def test_lanes_learn_as_if_each_were_alone():
    experiment = gpu_parts.imagenet_like(tiny((64,)))
    function, state, hyper = experiment.lanes(2)
    start = experiment.runner.fetch(state)
    batches = experiment.lane_batches(2, 4, 2, seed=0)
    arguments = state, hyper, batches, experiment.dataset
    end, metrics = function.lower(*arguments).compile(QUICKLY)(*arguments)
    assert metrics['loss'].shape == (2, 2)
    alone, _, _ = experiment.lanes(0)
    for lane in range(2):
        own = jax.tree.map(lambda x, lane=lane: x[lane], (start, experiment.runner.fetch(hyper)))
        own_batches = {name: array[:, lane] for name, array in batches.items()}
        arguments = *own, own_batches, experiment.dataset
        if not lane:
            alone = alone.lower(*arguments).compile(QUICKLY)
        expected, _ = alone(*arguments)
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(end), strict=True):
            np.testing.assert_allclose(a, b[lane], rtol=1e-2, atol=1e-5)


def test_digits_are_of_their_kind():
    found = gpu_parts.digits(50)
    assert found['image'].shape == (50, 28, 28, 1)
    assert found['image'].dtype == np.uint8
    assert set(found['label']) <= set(range(10))
    again = gpu_parts.digits(50)
    assert all((found[name] == again[name]).all() for name in found)


# --- tables ------------------------------------------------------------------------------------


def row(**more):
    return {
        'name': 'batch 256', 'images': 256, 'rate': 8756.0, 'slowest': 8000.0, 'fastest': 9000.0,
        'seconds': [1.0], 'counts': {'flops': 256 * 24e9, 'bytes': 256 * 4e8, 'model_flops': 6e12},
        'compile_seconds': 31.4, 'cached': False, 'memory': 12e9, 'measured': True, **H200, **more,
    }  # fmt: skip


def test_the_table_says_what_the_device_allows():
    table = gpu_tables.make('resnet50', {'rows': [row()], 'notes': []}, {'device': 'NVIDIA H200'})
    assert '1.10 x the record' in table.caption
    text = dict(zip(table.head, table.rows[0], strict=True))
    assert text['images/s'] == '8,756'
    assert text['range'] == '8,000 to 9,000'
    assert text['at best'] == '12,000 (memory)'
    assert text['share'] == '73.0%'
    assert text['memory'] == '12.00 GB'
    assert float(text['TFLOP/s']) == pytest.approx(8756 * 24e9 / 1e12, abs=0.01)


def test_the_record_is_of_one_device_only():
    for name, device in (('resnet50', 'NVIDIA H100 80GB HBM3'), ('vgg16', 'NVIDIA H200')):
        table = gpu_tables.make(name, {'rows': [row()], 'notes': []}, {'device': device})
        assert 'record' not in table.caption


def test_what_is_not_known_is_a_dash():
    bare = row(peak=None, bandwidth=None, memory=None)
    bare['counts'] = {**bare['counts'], 'bytes': None}
    table = gpu_tables.make('resnet50', {'rows': [bare, {'name': 'unmeasured'}], 'notes': []}, {})
    assert len(table.rows) == 1
    text = dict(zip(table.head, table.rows[0], strict=True))
    assert {text[name] for name in ('GB/s', 'at best', 'share', 'MFU', 'memory')} == {'-'}


def test_populations_are_set_against_one():
    rows = [row(lanes=0, batch=128, rate=128e3), row(lanes=64, batch=128, rate=1280e3)]
    table = gpu_tables.make('population', {'rows': rows, 'notes': []}, {})
    assert [text[1] for text in table.rows] == ['1,000', '10,000']
    assert [text[3] for text in table.rows] == ['1.0', '10.0']
    assert math.isclose(float(table.rows[0][5].replace(',', '')), 128e3 * 24e9 / 1e12)
