"""Who joins whom, with whose GPUs, at which port, asked to end when."""

import itertools
import os
import signal
import subprocess
import sys

import jax
import processes
import pytest
from jax.experimental import multihost_utils

from backtal_jax import errors
from backtal_jax.run import ending, fatal, hosts


@pytest.fixture
def join(monkeypatch):
  """Return a function of an environment: what jax is told to join by it.

  It returns the arguments and the GPUs, None where nothing was joined.
  """
  calls = []
  told = lambda *a, **k: calls.append((a, k['local_device_ids']))
  monkeypatch.setattr(jax.distributed, 'initialize', told)
  monkeypatch.setattr(fatal, 'explain', lambda _: None)

  def initialize(*args, **env):
    for name in [*os.environ]:
      if name.startswith(('SLURM_', 'OMPI_', 'JAX_', 'CUDA_', 'TPU_', 'JOB_')):
        monkeypatch.delenv(name)
    for name, value in env.items():
      monkeypatch.setenv(name, str(value))
    hosts.initialize(*args)
    return calls.pop() if calls else None

  return initialize


# As srun of Slurm 22.05.8 set it in `srun --nodes=2 --ntasks=2`.
_SLURM = {
  'SLURM_JOB_ID': 7,
  'SLURM_STEP_ID': 0,
  'SLURM_NTASKS': 2,
  'SLURM_STEP_NUM_TASKS': 2,
  'SLURM_STEP_NODELIST': 'node[1-2]',
  'SLURM_STEP_TASKS_PER_NODE': '1(x2)',
  'SLURM_NODEID': 1,
  'SLURM_PROCID': 1,
  'SLURM_LOCALID': 0,
}
_EIGHT = '0,1,2,3,4,5,6,7'


@pytest.mark.parametrize(
  'tasks, node, local, visible, on_node, expected',
  [
    # One task a node, --gpus-per-node=8: all of them.
    ('1(x2)', 1, 0, _EIGHT, 8, []),
    ('4,1', 1, 0, _EIGHT, 8, []),
    # Several that see the same: a share each.
    ('8(x2)', 1, 3, _EIGHT, 8, [3]),
    ('2(x2)', 0, 1, _EIGHT, 8, [4, 5, 6, 7]),
    ('1,3', 1, 2, _EIGHT, 8, [4, 5]),
    # --gpus-per-task: what each sees is its own.
    ('3,1', 0, 2, '2', 3, []),
    ('3,1', 0, 1, '2,3', 6, []),
    ('3,1', 0, 1, '0', 3, []),  # where cgroups hide the others
    # Not shared out by Slurm: as jax does.
    ('2,1', 0, 1, None, None, [1]),
    ('2,1', 0, 1, 'NoDevFiles', None, [1]),
    ('2,1', 1, 0, None, None, []),
  ],
)
def test_a_task_takes_its_gpus_and_one_alone_takes_all(
  join, tasks, node, local, visible, on_node, expected
):
  env = _SLURM | {
    'SLURM_STEP_TASKS_PER_NODE': tasks,
    'SLURM_NODEID': node,
    'SLURM_LOCALID': local,
  }
  if visible:
    env['CUDA_VISIBLE_DEVICES'] = visible
  if on_node:
    env['SLURM_GPUS_ON_NODE'] = on_node
  assert join(**env)[1] == expected
  # Who names the cluster in flags is no other task.
  named = {'JAX_COORDINATOR_ADDRESS': 'a:1', 'JAX_NUM_PROCESSES': 2}
  assert join(**env, **named, JAX_PROCESS_ID=1) == (('a:1', 2, 1), expected)


def test_open_mpi_and_a_choice_of_ones_own(join):
  mpi = {
    'OMPI_COMM_WORLD_SIZE': 2,
    'OMPI_MCA_orte_hnp_uri': '1.0;tcp://10.0.0.1:1',
    'OMPI_COMM_WORLD_RANK': 1,
    'OMPI_COMM_WORLD_LOCAL_SIZE': 1,
    'OMPI_COMM_WORLD_LOCAL_RANK': 0,
    'CUDA_VISIBLE_DEVICES': _EIGHT,
  }
  assert join(**mpi) == ((), [])
  both = {'OMPI_COMM_WORLD_LOCAL_SIZE': 2, 'OMPI_COMM_WORLD_LOCAL_RANK': 1}
  assert join(**mpi | both)[1] == [4, 5, 6, 7]
  assert join(**_SLURM, JAX_LOCAL_DEVICE_IDS='5')[1] is None  # jax reads it


@pytest.mark.parametrize(
  'nodes, first',
  [
    ('node1', 'node1'),
    ('node[1-2]', 'node1'),
    ('node[001,007-015],other', 'node001'),
    ('a-b3,node[1-2]', 'a-b3'),
    ('rack[1-2]n[05-09],x', 'rack1n05'),
    ('127.0.0.[1-2]', '127.0.0.1'),
  ],
)
def test_the_first_node_of_a_step_is_its_coordinator(join, nodes, first):
  (address, number, index), _ = join(
    **_SLURM | {'SLURM_STEP_NODELIST': nodes}, JAX_COORDINATOR_PORT='99'
  )
  assert (address, number, index) == (f'{first}:99', 2, 1)


def test_steps_that_run_at_once_have_a_port_each(join):
  jobs, steps = range(70000, 70006), range(16)
  ports = {
    join(**_SLURM | {'SLURM_JOB_ID': job, 'SLURM_STEP_ID': step})[0][0]
    for job, step in itertools.product(jobs, steps)
  }
  assert len(ports) == len(jobs) * len(steps)
  assert all(1024 < int(port.split(':')[1]) < 65536 for port in ports)


def test_tasks_that_srun_did_not_start_are_told(join, capsys):
  assert join(SLURM_NTASKS=4, SLURM_PROCID=0) is None
  assert 'has 4 tasks, but srun did not start' in capsys.readouterr().err
  assert join(SLURM_NTASKS=4, SLURM_STEP_ID=0, SLURM_STEP_NUM_TASKS=1) is None
  assert not capsys.readouterr().err


def _cluster(*values):
  """Return JAX's own variables of a cluster."""
  names = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
  return dict(zip(names, values, strict=False))


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


@pytest.mark.parametrize('env, message', _MIS_SET.values(), ids=_MIS_SET)
def test_a_cluster_set_half_is_an_error_never_solo_runs(join, env, message):
  with pytest.raises(errors.InputError, match=message):
    join(**env)
  assert join() is None  # nor was anything joined


def test_arguments_go_before_the_environment(join):
  env = {'JAX_COORDINATOR_ADDRESS': 'b:2', 'JOB_COMPLETION_INDEX': '3'}
  assert join('a:1', 4, **env)[0] == ('a:1', 4, 3)


def test_a_tpu_slice_is_left_to_jax(join):
  assert join(TPU_WORKER_HOSTNAMES='a,b')[0] == ()


def test_two_runs_that_met_end_in_one_line(monkeypatch):
  told = [
    {'--workdir': '/a', 'config.train.seed': 0},
    {'--workdir': '/a', 'config.train.seed': 0},
    {'--workdir': '/b', 'config.train.seed': 0},
  ]
  monkeypatch.setattr(hosts, 'gather_objects', lambda _: told)
  with pytest.raises(
    errors.InputError,
    match=r"^--workdir is '/a' in process 0, '/b' in process 2; expected",
  ):
    hosts.check_same(told[0])
  del told[2]['--workdir']
  with pytest.raises(errors.InputError, match="'/a' in process 0, None in"):
    hosts.check_same(told[0])
  told[2] = told[0]
  hosts.check_same(told[0])


def test_a_resumed_run_counts_its_calls_from_one_as_jax_does(monkeypatch):
  calls = []
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(
    multihost_utils, 'reached_preemption_sync_point', calls.append
  )
  with hosts.preemption() as preempted:
    for _ in range(3):
      preempted()
  assert calls == [1, 2, 3]


@pytest.mark.parametrize('process_id', [0, 1])
def test_processes_that_do_not_come_are_told_in_one_line(process_id):
  # Nobody listens at the port, and nobody comes to it.
  port = processes.free_port()
  code = (
    'from backtal_jax import errors\n'
    'from backtal_jax.run import hosts\n'
    'with errors.one_line():\n'
    f'  hosts.initialize("localhost:{port}", 2, {process_id}, timeout=2)'
  )
  ended = processes.python('-c', code)
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
    port = processes.free_port()
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


_CODE = """
import time
from backtal_jax.run import ending
ending.listen()
from backtal_jax.run import hosts
"""
_WAIT = """
print('here', flush=True)
hosts.initialize('localhost:{port}', 2, 0)
"""
_EVALUATE = """
hosts.initialize('localhost:{port}', 1, 0)
ending.listen()  # jax has taken the signal for its own
print('here', flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
  'code', [None, _WAIT, _EVALUATE], ids=['imports', 'waiting', 'evaluating']
)
def test_asked_to_end_with_nothing_to_save_a_run_ends_with_75(tmp_path, code):
  config = tmp_path / 'config.py'
  config.write_text('import time\nprint("here", flush=True)\ntime.sleep(60)')
  command = '-m', 'backtal_jax.main', f'--config={config}'
  if code:
    command = '-c', _CODE + code.format(port=processes.free_port())
  with subprocess.Popen(
    [sys.executable, *command], cwd=processes.ROOT,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  ) as process:  # fmt: skip
    assert process.stdout.readline() == 'here\n'
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
  assert process.returncode == ending.PREEMPTED == 75, said
  assert said.count('\n') == 1 and 'the same command goes on' in said
