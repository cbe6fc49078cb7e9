"""The programs of a run stay what they are while code moves; goes when the restructuring is over.

tests/golden/lowered.py says what is compared, and how a change is looked at and recorded.
"""

import json

import jax
import pytest

from tests.golden import lowered

RECORDED = json.loads(lowered.RECORDED.read_text()) if lowered.RECORDED.exists() else {}


@pytest.mark.parametrize('case', lowered.CASES)
def test_the_lowered_programs_are_the_recorded_ones(case):
    if lowered.versions() != RECORDED['versions']:
        pytest.skip(f'texts of {RECORDED["versions"]} are recorded, not of {lowered.versions()}')
    if jax.default_backend() != 'cpu':
        pytest.skip('the forms of layers for a CPU are recorded')
    assert lowered.hashes(case) == RECORDED['hashes'][case]


def test_all_cases_are_recorded():
    assert RECORDED['hashes'].keys() == lowered.CASES.keys()


MODULE = """module @jit_step attributes {mhlo.num_partitions = 1 : i32} {
  func.func public @main(%arg0: tensor<2xf32>) -> (tensor<2xf32> {jax.result_info = "a['b']"}) {
    %0 = call @helper(%arg0) : (tensor<2xf32>) -> tensor<2xf32>
    %1 = call @helper_3(%0) : (tensor<2xf32>) -> tensor<2xf32>
    return %1 : tensor<2xf32>
  }
  func.func private @helper(%arg0: tensor<2xf32>) -> tensor<2xf32> {
    %0 = stablehlo.add %arg0, %arg0 : tensor<2xf32>
    return %0 : tensor<2xf32>
  }
  func.func private @helper_3(%arg0: tensor<2xf32>) -> tensor<2xf32> {
    %0 = call @helper(%arg0) : (tensor<2xf32>) -> tensor<2xf32>
    return %0 : tensor<2xf32>
  }
}
"""


@pytest.mark.parametrize(
    ('old', 'new'), [('helper_3', 'other'), ('jit_step', 'jit_update'), ("a['b']", 'c[0]')]
)
def test_names_of_python_code_leave_the_text_as_it_is(old, new):
    assert lowered.normalised(MODULE.replace(old, new)) == lowered.normalised(MODULE)


@pytest.mark.parametrize(
    ('old', 'new'), [('add', 'subtract'), ('2x', '3x'), ('call @helper(%arg0)', 'call @g(%arg0)')]
)
def test_any_other_operation_shape_or_call_changes_the_text(old, new):
    assert lowered.normalised(MODULE.replace(old, new)) != lowered.normalised(MODULE)
