"""What the sections compare, and what they make of it."""

import contextlib
import dataclasses
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import contest, detection, growth, networks, run, segmentation, step_trace, tables
from benchmarks.contestants import our_detection, our_networks, our_segmentation
from errors import UserError
from tests.conftest import ROOT
from training import evaluation as training_evaluation
from training import runner

# As published: LeNet-5, ResNet-18 for CIFAR and ResNet-50; deep_cnn and VGG-11 for small images by
# hand: 416 + 32 + 12,832 + 64 + 15,690, and 9,225,984 (convolutions, batch norm) + 2 x 262,656
# + 5,130.
PARAMETERS = {
    'lenet': 61_706,
    'deep_cnn': 29_034,
    'resnet18': 11_173_962,
    'vgg11_bn': 9_756_426,
    'resnet50': 25_557_032,
}
# threads: more than there are cores, for this process must not be kept to some.
WORK = {
    'task': 'train',
    'model': 'lenet',
    'size': 28,
    'channels': 1,
    'classes': 10,
    'threads': 1024,
}


def context_of(tmp_path, said=None, **changes):
    say = (said if said is not None else []).append
    return tables.BenchmarkContext(
        tmp_path, None, tmp_path, rounds=2, quick=True, say=say, **changes
    )


def ours(case):
    """The sizes of the parameters of our network of a case, sorted."""
    import jax

    (own,) = networks.make_contestants(case, 'train', None)
    ready = our_networks.prepare({**own.work, 'threads': 1024, 'batch_size': 1, 'examples': 1})
    params = ready.experiment.abstract_state(ready.spec).params
    return sorted(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize('case', networks.CASES, ids=lambda case: case.model)
def test_our_networks_are_those_that_are_declared(case):
    assert sum(ours(case)) == PARAMETERS[case.model]


def test_the_networks_of_pytorch_have_the_same_parameters():
    python = run.TORCH_PYTHON
    if not python.exists():
        python = sys.executable
        if not importlib.util.find_spec('torch'):
            pytest.skip('needs PyTorch: `make bench` makes an environment with it')
    code = (
        'import json, sys, torch_networks\n'
        'cases = json.loads(sys.argv[1])\n'
        'networks = [torch_networks.create(*case) for case in cases]\n'
        'print(json.dumps([sorted(p.numel() for p in n.parameters()) for n in networks]))'
    )
    cases = [(case.model, case.channels, case.classes, case.small) for case in networks.CASES]
    folder = ROOT / 'benchmarks' / 'contestants'
    printed = subprocess.check_output([python, '-c', code, json.dumps(cases)], cwd=folder)
    assert json.loads(printed) == [ours(case) for case in networks.CASES]


def test_a_turn_of_evaluation_is_a_pass(monkeypatch):

    passes, evaluate = [], training_evaluation.Evaluator.__call__

    def counted(self, variables):
        passes.append(evaluate(self, variables))
        return passes[-1]

    monkeypatch.setattr(training_evaluation.Evaluator, '__call__', counted)
    work = {**WORK, 'batch_size': 4, 'examples': 12}
    batches = our_networks.evaluation(our_networks.prepare(work, detailed=True))
    assert {len(next(batches)) for _ in range(3)} == {4}
    assert len(passes) == 1
    for _ in range(3):
        next(batches)
    assert len(passes) == 2
    assert passes[0].sums['count'] == 12
    assert passes[0].sums['confusion'].sum() == 12  # as evaluate.py has it


def test_evaluation_takes_the_cases_of_the_step():
    assert [case.model for case in networks.evaluation_cases()] == [
        case.model for case in networks.CASES
    ]
    for case in networks.evaluation_cases():
        (own,) = networks.make_contestants(case, 'evaluate', None)
        assert own.work['examples'] == case.steps * case.batch_size


def test_training_on_a_split_goes_by_the_plan_of_train(monkeypatch):
    import input_pipeline
    from training.runner import Runner

    seen, split = [], Runner.split
    monkeypatch.setattr(Runner, 'split', lambda self, b: seen.append(b) or split(self, b))
    work = {**WORK, 'batch_size': 4, 'examples': 10}
    batches = our_networks.updates(our_networks.prepare(work))
    assert [len(next(batches)) for _ in range(5)] == [4] * 5
    for number, batch in enumerate(seen):
        example, epoch = input_pipeline.indices(0, 10, 4, number)
        np.testing.assert_array_equal(batch['index'], example)
        np.testing.assert_array_equal(batch['epoch'], epoch)


def test_ours_must_run_and_others_may_be_left_out(tmp_path):
    said, shown = [], []
    script = (
        'import channel\n'
        'class Batch(list): shape, dtype = (3,), "uint8"\n'
        'def compete(answers, work): answers.serve(iter(lambda: Batch([0] * 3), None))\n'
        'channel.run(compete)'
    )
    (tmp_path / 'it.py').write_text(
        f'import sys; sys.path.insert(0, {str(ROOT / "benchmarks" / "contestants")!r})\n{script}'
    )
    it = contest.Contestant('ours', [sys.executable, tmp_path / 'it.py'], {})
    absent = contest.Contestant('theirs', ['/nowhere/python'], {})
    context = context_of(tmp_path, said, show=shown.append)
    turns = contest.side_by_side([it, absent], 2, context, 'test')
    assert [[turn.images for turn in own] for own in turns.values()] == [[6, 6]]
    assert said == ['test: theirs is left out: /nowhere/python cannot be started: No such file or '
                    'directory.']  # fmt: skip
    assert shown[0] == 'test: starting ours'
    assert shown[-1] == 'test: ours, round 2 of 2'
    with pytest.raises(UserError, match='test: ours does not run: /nowhere/python cannot be'):
        contest.side_by_side([absent, it], 2, context, 'test')

    said.clear(), shown.clear()
    turns = contest.side_by_side([it, absent], 2, context, 'test', processes=3)
    assert [[turn.images for turn in own] for own in turns.values()] == [[6] * 6]
    assert [line.partition(' is left')[0] for line in said] == ['test: theirs']
    assert shown[0] == 'test: starting ours, process 1'
    assert shown[-4:-2] == [f'test: ours, process {n}, round {r} of 2' for n, r in ((3, 1), (1, 2))]
    with pytest.raises(UserError, match='test: ours does not run: /nowhere/python cannot be'):
        contest.side_by_side([absent, it], 2, context, 'test', processes=3)


def test_the_first_update_is_over_before_the_first_turn(monkeypatch, tmp_path):
    asked = []

    @contextlib.contextmanager
    def started(contestants, *arguments):
        yield {contestant.name: None for contestant in contestants}

    def play(running, rounds, batches, warm_up):
        asked.append((batches, warm_up))
        return iter(())

    monkeypatch.setattr(contest, 'started', started)
    monkeypatch.setattr(contest, 'play', play)
    for batches in (1, 3, 100):
        ours = [contest.Contestant('ours', [], {})]
        contest.side_by_side(ours, batches, context_of(tmp_path, []), 'test')
    assert asked == [(1, 4), (3, 4), (100, 25)]
    assert contest.WARM_UP > runner.RUN_AHEAD


def test_processes_of_large_networks_come_one_after_the_other(monkeypatch, tmp_path):
    """Five of a small one run at once. PyTorch does not start beside the first of the large one."""
    calls = []

    def play(contestants, batches, context, what, processes=1):
        calls.append((what, context.rounds, processes))
        who = ['ours', 'PyTorch'] if len(calls) != 2 else ['ours']
        turn = contest.Turn(100 * len(calls), 1.0, 1.0)
        return {name: [turn] * context.rounds for name in who}

    monkeypatch.setattr(networks, 'side_by_side', play)
    context = dataclasses.replace(context_of(tmp_path), quick=False, rounds=5)
    assert networks.compare(networks.CASES[0], 'train', context)[0].rate == 100
    own, other = networks.compare(networks.CASES[2], 'train', context)
    assert calls == [
        ('lenet', 5, 5),
        *((f'resnet18, process {number} of 3', 2, 1) for number in (1, 2, 3)),
    ]
    assert (own.slowest, own.rate, own.fastest) == (200, 300, 400)
    assert (other.slowest, other.rate, other.fastest) == (300, 350, 400)
    assert 'in 3, one after the other, with 2 each' in networks.describe_turns(context, 'turns')


@pytest.mark.parametrize(
    ('place', 'expected'),
    [
        ('jit(_fun)/jvp(LeNet)/LeNet.stages/conv1/dot_general', 'convolution, forward'),
        (
            'jit(_fun)/transpose(jvp(A))/A.stages/block0/shortcut_conv/transpose()/pad',
            'convolution, backward',
        ),
        ('jit(_fun)/jvp(ResNet)/ResNet.stages/block0/norm1/psum', 'normalisation, forward'),
        ('jit(_fun)/transpose(jvp(A))/A.stages/stem.pool/max_pool/pad', 'pooling, backward'),
        ('jit(_fun)/jvp(A)/A.logits/A.classify/head/dot_general', 'dense layers, forward'),
        # The operation is called so, and stands in no layer.
        (
            'jit(_fun)/transpose(jvp(A))/A.stages/conv_general_dilated',
            'activations, sums and loss, backward',
        ),
        ('jit(_fun)/shard_map/add', 'batch, optimiser and metrics'),
        ('', 'batch, optimiser and metrics'),
    ],
)
def test_what_a_place_in_the_program_belongs_to(place, expected):
    assert step_trace.kind(place) == expected


def test_an_operation_has_the_place_of_what_is_fused_in_it():
    program = """
%sums (p: f32[8]) -> f32[] {
  %p = f32[8]{0} parameter(0)
  ROOT %r = f32[] reduce(%p), metadata={op_name="a/norm1/reduce_sum" id=3}
}

ENTRY %main.1 (x: f32[8]) -> f32[] {
  %x = f32[8]{0} parameter(0)
  %copy = f32[8]{0} copy(%x)
  %ynn_fusion.2 = f32[] fusion(%copy), kind=kCustom, calls=%sums, backend_config={}
  ROOT %after = f32[] copy(%ynn_fusion.2)
}
"""
    found = step_trace.locations(program)
    assert found['ynn_fusion.2'] == found['r'] == found['after'] == 'a/norm1/reduce_sum'
    assert found['copy'] == ''


def test_operations_that_run_at_once_share_the_time():
    events = [('a', 0, 4), ('b', 2, 6), ('b', 4, 5), ('c', 8, 9), ('a', 9, 9)]
    assert step_trace.elapsed(events) == {'a': 3, 'b': 3, 'c': 1}


def test_small_shares_are_one_row():
    times = {'large': 90.0, 'small': 1.0, 'middle': 8.0, 'smaller': 1.0}
    rows = step_trace.with_small_ones_together(times, times)
    assert [row[0] for row in rows] == ['large', 'middle', step_trace.TOGETHER]
    assert rows[-1][1:] == (2.0, 2.0)


def test_what_is_lost_by_devices(monkeypatch, tmp_path):
    rates = {'1 device': 100.0, '8 devices, pmap': 80.0, '8 devices, shard_map': 125.0}
    turns = {name: [contest.Turn(100, 100 / rate, 1.0)] for name, rate in rates.items()}
    monkeypatch.setattr(networks, 'side_by_side', lambda *_: turns)
    table = networks.devices(context_of(tmp_path))
    assert [row[-1] for row in table.rows] == ['-', '+20 %', '-25 %']


def test_growth_is_found_and_swings_are_not():
    assert growth.growth([10, 90, 100, 101, 99, 100, 100, 99, 101, 100]) == pytest.approx(0, abs=1)
    assert growth.growth([10, 90, 100, 110, 120, 130, 140, 150, 160, 170]) == 40


def test_growth_is_said(tmp_path):
    def caption(cost, memory):
        sizes = [growth.SetSize(count, 1e-5, 1e-7, count, 10**9 + count) for count in (1000, 10**6)]
        points = enumerate(zip([None, *cost], memory, strict=True))
        return growth.caption(sizes, [growth.Mark(n, *point) for n, point in points])

    flat = caption([1.0, 2.0, 1.0, 1.0, 1.0, 1.0], [10**8] * 7)
    assert 'costs 1.00 of one of 1,000, and memory beside the images is 1,000 to 1,000' in flat
    assert 'later half costs 1.00 of the earlier (flat), and memory grew by 0.0 MB (flat)' in flat
    risen = caption([1.0] * 3 + [1.2] * 3, [n * 10**8 for n in range(7)])
    assert 'costs 1.20 of the earlier (NOT FLAT), and memory grew by 300.0 MB (GROWING)' in risen


def test_a_run_that_fails_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(growth, 'CONFIG', 'configs/nowhere.py')
    with pytest.raises(UserError, match=r'^train\.py failed: .*configs/nowhere\.py'):
        growth.long_run(context_of(tmp_path))


@pytest.mark.parametrize(('number', 'parameters'), [(0, 895_731), (1, 14_328_115)])
def test_our_u_nets_are_those_that_are_declared(number, parameters):
    """As many as the one in contestants/torch_segmentation.py has."""
    import jax

    case = segmentation.CASES[number]
    work = {**dataclasses.asdict(case), 'threads': 1024, 'examples': 1, 'batch_size': 1}
    ready = our_segmentation.prepare(work)
    params = ready.experiment.abstract_state(ready.spec).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def test_our_detector_is_the_one_that_is_declared():
    """As many parameters as torchvision's, less four vectors of biases, and with five scales."""
    import jax

    work = {**dataclasses.asdict(detection.CASE), 'threads': 1024, 'batch_size': 1}
    ready = our_detection.prepare(work)
    params = ready.experiment.abstract_state(ready.spec).params
    theirs = 11_571_528
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == theirs - 4 * 64 + 5
    boxes = ready.split.targets['objects'][0]
    there = boxes[(boxes[:, 2:4] > boxes[:, :2]).all(1)]
    assert len(there) == detection.CASE.objects
    assert (there[:, :4] >= 0).all()
    assert (there[:, 2:4] <= (240, 320)).all()
