"""Start-up of several processes, and where the state lives."""

import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from train_test import tiny_config

from backtal_jax import errors, train
from backtal_jax.run import fatal, hosts, sharding

_ENVIRONMENT = (
  'JAX_COORDINATOR_ADDRESS',
  'JAX_NUM_PROCESSES',
  'JAX_PROCESS_ID',
  'JOB_COMPLETION_INDEX',
  'SLURM_STEP_NUM_TASKS',
  'SLURM_JOB_ID',
  'SLURM_STEP_NODELIST',
  'SLURM_PROCID',
  'SLURM_LOCALID',
  'OMPI_COMM_WORLD_SIZE',
  'TPU_WORKER_HOSTNAMES',
)


def _cluster(address, *numbers):
  """Return JAX's own variables of a cluster."""
  names = _ENVIRONMENT[: 1 + len(numbers)]
  return dict(zip(names, (address, *numbers), strict=True))


_MIS_SET = {
  'only an address': (
    _cluster('a:1'),
    '--num_processes and --process_id missing; given: --coordinator_address',
  ),
  'no index': (_cluster('a:1', '2'), '--process_id missing'),
  'no port': (
    _cluster('a', '2', '0'), "--coordinator_address is 'a', expected HOST:PORT"
  ),
  'no number': (
    _cluster('a:1', 'two', '0'), "--num_processes is 'two', expected a number"
  ),
  'more than there are': (
    _cluster('a:1', '2', '2'),
    '--process_id is 2, expected less than --num_processes=2',
  ),
  'Slurm': (
    {'SLURM_STEP_NUM_TASKS': '4', 'SLURM_JOB_ID': '1', 'SLURM_PROCID': '0'},
    'Slurm started 4 processes .* SLURM_STEP_NODELIST, SLURM_LOCALID',
  ),
  'Open MPI': (
    {'OMPI_COMM_WORLD_SIZE': '2'},
    'Open MPI started 2 processes .* OMPI_COMM_WORLD_RANK is not set',
  ),
}  # fmt: skip


@pytest.fixture
def joined(monkeypatch):
  """Clear the environment, and record instead of joining."""
  calls = []
  for name in _ENVIRONMENT:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(
    jax.distributed, 'initialize', lambda *a, **k: calls.append(a)
  )
  monkeypatch.setattr(fatal, 'explain', lambda _: None)
  return calls


@pytest.mark.parametrize('env, message', _MIS_SET.values(), ids=_MIS_SET)
def test_a_cluster_set_half_is_an_error_never_solo_runs(
  joined, monkeypatch, env, message
):
  for name, value in env.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(errors.InputError, match=message):
    hosts.initialize()
  assert not joined


def _free_port():
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]


@pytest.mark.parametrize('process_id', [0, 1])
def test_processes_that_do_not_come_are_told_in_one_line(process_id):
  # Nobody listens at the port, and nobody comes to it.
  port = _free_port()
  code = (
    'from backtal_jax import errors\n'
    'from backtal_jax.run import hosts\n'
    'with errors.one_line():\n'
    f'  hosts.initialize("localhost:{port}", 2, {process_id}, timeout=2)'
  )
  ended = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=60
  )
  assert ended.returncode == 1
  line = ended.stderr.strip().splitlines()[-1]
  assert line.startswith('error: the processes of the run did not find each')
  assert f'localhost:{port}' in line and 'startup_timeout=2 s' in line
  assert 'Traceback' not in ended.stderr


_JOIN = """
import os, signal, sys, time
from backtal_jax.run import hosts
port, index, victim = map(int, sys.argv[1:])
hosts._HEARTBEAT = 15  # seconds: a busy machine delays the living, too
hosts.initialize(f'localhost:{port}', 2, index)
time.sleep(1)
if index == victim:
  os.kill(os.getpid(), signal.SIGKILL)
time.sleep(100)  # as in a collective of GPUs, which waits for ever
"""


@pytest.mark.slow
def test_who_is_left_of_two_processes_says_so_in_one_line():
  started = []
  for victim in (0, 1):  # 0 is the coordinator; both cases wait at once
    port = _free_port()
    for index in (1 - victim, victim):
      arguments = map(str, (port, index, victim))
      started.append(
        subprocess.Popen(
          [sys.executable, '-c', _JOIN, *arguments],
          stderr=subprocess.PIPE,
          text=True,
        )
      )
  try:
    for left, killed in (started[:2], started[2:]):
      _, text = left.communicate(timeout=300)
      assert left.returncode == -signal.SIGABRT
      assert text.startswith('error: the other processes of the run are lost')
      assert text.count('\n') == 1, text
      assert killed.wait(timeout=60) == -signal.SIGKILL
  finally:
    for process in started:
      process.kill()
      process.communicate()


def test_arguments_go_before_the_environment(joined, monkeypatch):
  hosts.initialize()
  assert not joined  # without a cluster
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'b:2')
  monkeypatch.setenv('JOB_COMPLETION_INDEX', '3')
  hosts.initialize('a:1', 4)
  assert joined == [('a:1', 4, 3)]


def test_a_tpu_slice_is_left_to_jax(joined, monkeypatch):
  monkeypatch.setenv('TPU_WORKER_HOSTNAMES', 'a,b')
  hosts.initialize()
  assert joined == [()]


def test_a_mesh_that_the_processes_cannot_share_is_refused(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(errors.InputError, match='mesh is 3, which 2 processes'):
    sharding.make_mesh((3,))


def test_a_cache_that_cannot_be_made_is_a_warning(monkeypatch, capsys):
  cache = jax.config.jax_compilation_cache_dir
  monkeypatch.setenv('XDG_CACHE_HOME', '/dev/null')
  jax.config.update('jax_compilation_cache_dir', None)
  try:
    sharding.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
  finally:
    jax.config.update('jax_compilation_cache_dir', cache)
  said = capsys.readouterr().err
  assert said.startswith('/dev/null/backtal_jax/xla: Not a directory; what is')


def test_the_sharded_state_is_an_eighth_on_every_device(demo_root):
  config = tiny_config(demo_root, **{'train.shard_state': True})
  mesh = sharding.make_mesh((8,))
  _, new_state, layout, _ = train.build(config, mesh)
  shapes = jax.eval_shape(new_state)
  held = sum(
    np.prod(s.shard_shape(x.shape))
    for s, x in zip(
      jax.tree.leaves(layout), jax.tree.leaves(shapes), strict=True
    )
  )
  assert held < sum(x.size for x in jax.tree.leaves(shapes)) / 7
