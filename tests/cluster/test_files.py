"""The files of cluster/ say what train.py and sweep.py understand."""

import re
import subprocess

import pytest
import yaml

import command
import train
from configs import reading
from tests.conftest import ROOT

FOLDER = ROOT / 'cluster'


@pytest.mark.parametrize('name', ['jobset_gpu.yaml', 'jobset_tpu.yaml'])
def test_a_job_set_starts_a_valid_run_and_knows_the_exit_codes(name):
    job_set = yaml.safe_load((FOLDER / name).read_text())
    assert (job_set['apiVersion'], job_set['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    workers = job_set['spec']['replicatedJobs'][0]
    job = workers['template']['spec']
    pod = job['template']['spec']
    container = pod['containers'][0]
    assert container['command'] == ['python', 'train.py']
    arguments, overrides = command.parse(train.parser(), container['args'])
    reading.from_arguments(str(ROOT / arguments.config), overrides)
    assert job['parallelism'] == job['completions']
    env = {entry['name']: entry.get('value') for entry in container['env']}
    if 'JAX_NUM_PROCESSES' in env:
        assert int(env['JAX_NUM_PROCESSES']) == job['completions']
        name = f'{job_set["metadata"]["name"]}-{workers["name"]}-0-0.{job_set["metadata"]["name"]}'
        assert env['JAX_COORDINATOR_ADDRESS'].startswith(f'{name}:')
    # A lost process (69), one that has saved (75) and one killed by a signal begin again.
    rule = job['podFailurePolicy']['rules'][0]
    assert rule['onExitCodes']['values'] == [1, 2]
    assert rule['onExitCodes']['containerName'] == container['name']
    mounted = {mount['name'] for mount in container['volumeMounts']}
    assert mounted == {volume['name'] for volume in pod['volumes']}


@pytest.mark.parametrize('name', ['one_node.sbatch', 'many_nodes.sbatch', 'step.sh'])
def test_a_script_is_sound_and_names_files_that_exist(name):
    path = FOLDER / name
    subprocess.run(['bash', '-n', path], check=True)
    text = path.read_text()
    for name in re.findall(r'\b(?:cluster|tests|configs)/[\w./]+\w', text):
        assert (ROOT / name).exists(), name
    if path.suffix == '.sbatch':
        assert '#SBATCH --requeue' in text
        assert '#SBATCH --signal=USR2@' in text


STUB = """#!/bin/sh
echo "$(basename $0) $*" >> {log}
exit {code}
"""


@pytest.fixture
def stubs(tmp_path):
    """Writes programs that log their calls and end with a code."""

    def write(**codes: int) -> None:
        for name, code in codes.items():
            stub = tmp_path / name
            stub.write_text(STUB.format(log=tmp_path / 'log', code=code))
            stub.chmod(0o755)

    write(scontrol=0, sleep=0)
    return write


def step(tmp_path, comment: str | None, **environment: str) -> tuple[int, list[str]]:
    """Runs step.sh in a job with a comment, None where SLURM does not answer."""
    answer = 'exit 1' if comment is None else f"echo '{comment}'"
    (tmp_path / 'squeue').write_text(f'#!/bin/sh\n{answer}\n')
    (tmp_path / 'squeue').chmod(0o755)
    env = {'PATH': f'{tmp_path}:/usr/bin:/bin', 'SLURM_JOB_ID': '7', **environment}
    script = [FOLDER / 'step.sh', '--workdir=a folder']
    done = subprocess.run(script, env=env, check=False, capture_output=True, cwd=ROOT)
    return done.returncode, (tmp_path / 'log').read_text().splitlines()


@pytest.mark.parametrize(
    ('code', 'failures', 'again'),
    [(0, 0, False), (1, 0, False), (2, 0, False), (75, 99, True), (69, 0, True), (69, 5, False),
     (137, 4, True), (134, 5, False)],
)  # fmt: skip
@pytest.mark.parametrize('own', ['', 'for a paper '])
def test_what_is_queued_again(code, failures, again, own, tmp_path, stubs):
    stubs(srun=code)
    ended, lines = step(tmp_path, f'{own}failures={failures}')
    assert ended == code
    assert lines[0].endswith('train.py --workdir=a folder')
    assert ('scontrol requeue 7' in lines) == again
    counted = f'scontrol update JobId=7 Comment={own}failures={failures + 1}'
    assert (counted in lines) == (again and code != 75)


@pytest.mark.parametrize('comment', ['', '(null)'])
def test_a_first_failure_is_counted(comment, tmp_path, stubs):
    stubs(srun=69)
    lines = step(tmp_path, comment)[1]
    assert lines[1:] == ['scontrol update JobId=7 Comment=failures=1', 'scontrol requeue 7']


@pytest.mark.parametrize(('starts', 'again'), [('4', True), ('5', False)])
def test_where_failures_cannot_be_counted_all_starts_are(starts, again, tmp_path, stubs):
    stubs(srun=69)
    lines = step(tmp_path, None, SLURM_RESTART_COUNT=starts)[1]
    assert ('scontrol requeue 7' in lines) == again
    assert not any('Comment' in line for line in lines)  # what is in it is not known


def test_a_busy_controller_is_asked_again(tmp_path, stubs):
    stubs(srun=75, scontrol=1)
    assert step(tmp_path, '')[1].count('scontrol requeue 7') == 5
