"""How JAX is started: addresses, launchers, virtual devices, the compilation cache."""

import os
import types
import zlib

import pytest

from configs import base
from distributed import devices
from errors import UserError
from tests.support import train_here


@pytest.mark.parametrize(
    ('environment', 'several'),
    [
        ({}, False),
        ({'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4'}, False),  # in a batch script, not under srun
        ({'SLURM_STEP_NUM_TASKS': '4'}, True),
        ({'SLURM_STEP_NUM_TASKS': '1'}, False),
        ({'OMPI_COMM_WORLD_SIZE': '2'}, True),
        ({'JAX_NUM_PROCESSES': '2'}, True),
        ({'JAX_NUM_PROCESSES': '1'}, False),
        ({'JAX_NUM_PROCESSES': ''}, False),
        ({'TPU_WORKER_HOSTNAMES': 'a,b'}, True),
        ({'TPU_WORKER_HOSTNAMES': 'localhost'}, False),
    ],
)
def test_a_launcher_is_recognised(environment, several):
    assert devices.several_processes(environment) is several


@pytest.mark.parametrize(
    ('setting', 'expected'),
    [
        ('10.0.0.1:1234,2,0', ('10.0.0.1:1234', 2, 0)),
        ('localhost:9,16,15', ('localhost:9', 16, 15)),
        ('[::1]:9,2,1', ('[::1]:9', 2, 1)),
    ],
)
def test_an_address_is_parsed(setting, expected):
    assert tuple(devices.parse_address(setting).values()) == expected


@pytest.mark.parametrize(
    'setting', ['on', '', 'host,2,0', 'host:1', 'host:1,2', 'host:1,2,2', 'host:1,0,0', 'h:1,2,-1',
                'host:x,2,0', 'host:1,2,0,0', 'a b:1,2,0'],
)  # fmt: skip
def test_a_malformed_address_is_refused(setting):
    with pytest.raises(UserError) as caught:
        devices.parse_address(setting)
    assert str(caught.value) == (
        f'config.distributed={setting!r} is invalid: it must be auto, off, or '
        'host:port,processes,index with index below processes, such as 10.0.0.1:1234,2,0.'
    )


@pytest.mark.parametrize(
    'setting', ['host:99999,1,0', 'host:65536,2,1', 'host:0,2,0', 'host:1,100001,0']
)
def test_an_address_that_no_machine_has_is_refused(setting):
    with pytest.raises(UserError, match=r'a port is at most 65535 and above 0, .* 100,000 proc'):
        devices.parse_address(setting)


@pytest.mark.parametrize(
    'setting', ['host:\u0661,2,0', 'host:1,\u0662,0', 'host:1,²,0', 'x' * 3999]
)
def test_digits_of_other_scripts_are_no_address(setting):
    with pytest.raises(UserError, match='is invalid: it must be auto, off, or'):
        devices.parse_address(setting)
    assert not devices.several_processes(
        {'JAX_NUM_PROCESSES': '²', 'SLURM_STEP_NUM_TASKS': '9' * 99}
    )


def fake(process_index, platform='cpu'):
    return types.SimpleNamespace(process_index=process_index, platform=platform)


def test_equally_many_devices_of_every_process_are_chosen():
    present = [fake(process) for process in (0, 0, 0, 1, 1)]
    assert devices.choose(present, 0) == present
    assert devices.choose(present, 2) == [present[0], present[1], present[3], present[4]]


def test_more_devices_than_there_are():
    with pytest.raises(
        UserError, match=r'devices is 3, but process 1 has 2 gpu device\(s\).*at most 2'
    ):
        devices.choose([fake(i, 'gpu') for i in (0, 0, 0, 1, 1)], 3)


@pytest.mark.parametrize(
    ('number', 'flags', 'threads'),
    [
        (0, '', None),
        (1, '', None),
        (64, '', '128'),
        (0, '--xla_force_host_platform_device_count=32', '64'),
    ],
)
def test_virtual_devices_get_two_threads_each(number, flags, threads, monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', flags)
    monkeypatch.setenv('PJRT_NPROC', 'to be restored')
    monkeypatch.delenv('PJRT_NPROC')
    config = base.get_config()
    config.devices = number
    devices.prepare_environment(config)
    assert os.environ.get('PJRT_NPROC') == threads


def test_deterministic_asks_a_gpu_once_and_keeps_other_flags(monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '--xla_other')
    config = base.get_config()
    config.deterministic = True
    for _ in range(2):
        devices.prepare_environment(config)
    assert os.environ['XLA_FLAGS'] == '--xla_other --xla_gpu_deterministic_ops=true'


def test_a_cache_that_cannot_be_made_is_no_reason_not_to_train(small, tmp_path):
    (tmp_path / 'file').write_text('')
    cache = tmp_path / 'file' / 'cache'
    assert train_here(small, tmp_path / 'run', steps=1, compilation_cache=cache) == 0


HASH = '0123456789abcdef' * 4


def test_only_what_jax_wrote_half_is_removed_from_a_cache(tmp_path):
    """Every other file of the folder is somebody's own, whatever it is named."""
    own, cache = tmp_path / 'own', tmp_path / 'cache'
    own.write_bytes(b'')
    nested = cache / f'jit_nested-{HASH}-cache'
    nested.mkdir(parents=True)
    kept = [
        'photos-cache', '-cache', f'{HASH}-cache', f'photos-{HASH}-cache', f'jit_f-{HASH}-atime',
        f'jit_f-{HASH[1:]}-cache', f'jit_f-{HASH.upper()}-cache', f'jit_f-{HASH}-cache.txt',
        f'jit_f\n-{HASH}-cache', f'{nested.name}/jit_f-{HASH}-cache',
    ]  # fmt: skip
    for name in kept:
        (cache / name).write_bytes(b'')
    (cache / f'jit_link-{HASH}-cache').symlink_to(own)
    os.mkfifo(cache / f'jit_pipe-{HASH}-cache')  # reading it would never end
    kept += [f'jit_link-{HASH}-cache', f'jit_pipe-{HASH}-cache']
    half = [f'jit__fun-{HASH}-cache', f'jit_f(x) -.-{HASH}-cache', f'pmap_step-{HASH}-cache']
    for name, content in zip(half, (b'', b'\x78\x9c', zlib.compress(b'x' * 99)[:-1]), strict=True):
        (cache / name).write_bytes(content)
    config = base.get_config()
    config.compilation_cache = str(cache)
    devices.start(config)
    assert own.exists()
    assert [name for name in kept if not os.path.lexists(cache / name)] == []
    assert [name for name in half if os.path.lexists(cache / name)] == []
