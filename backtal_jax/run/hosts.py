"""The processes of a run: how they start, agree and end.

Everything here works the same in a run of one process.
"""

import contextlib
import itertools
import os
import pickle
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from backtal_jax import errors
from backtal_jax.run import fatal

_T = TypeVar('_T')
# Seconds without a sign of life after which a process counts as lost.
_HEARTBEAT = 60
_LOST = (
  'the other processes of the run are lost, one may have died (its own output '
  'says why); the same command on all goes on from the last checkpoint'
)
_ADDRESS, _NUMBER = ('HOST:PORT', r'\S+:\d+'), ('a number', r'\d+')
# What a collective says when one of the processes is gone.
_HUNG_UP = re.compile('Gloo|NCCL|heartbeat|UNAVAILABLE|ABORTED')
# What tells a process of a cluster that it is one of several; by launcher.
_TASKS = {
  'Slurm': ('SLURM_STEP_NUM_TASKS', ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST',
                                     'SLURM_PROCID', 'SLURM_LOCALID')),
  'Open MPI': ('OMPI_COMM_WORLD_SIZE', ('OMPI_MCA_orte_hnp_uri',
                                        'OMPI_COMM_WORLD_RANK')),
}  # fmt: skip


def initialize(
  address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  timeout: float = 300,
) -> None:
  """Join the processes of a run, of which there may be just this one.

  From the arguments; else from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID or JOB_COMPLETION_INDEX (an indexed Kubernetes Job); else
  from what Slurm, Open MPI or a TPU slice tell their processes.

  The address is HOST:PORT of process 0, the timeout is in seconds.

  Raises:
    errors.InputError: The cluster is set half, or the others do not come.
  """
  env = os.environ
  given: dict[str, str | int | None] = {
    '--coordinator_address': address or env.get('JAX_COORDINATOR_ADDRESS'),
    '--num_processes': num_processes or env.get('JAX_NUM_PROCESSES'),
    '--process_id': env.get('JAX_PROCESS_ID', env.get('JOB_COMPLETION_INDEX'))
    if process_id is None
    else process_id,
  }
  # A plain indexed Job has an index but is no cluster of ours.
  if given['--coordinator_address'] or given['--num_processes']:
    _join(timeout, *_check_cluster(given))
    return
  for launcher, (count, needed) in _TASKS.items():
    if int(env.get(count, 1)) > 1:
      missing = [name for name in needed if name not in env]
      if missing:
        raise errors.InputError(
          f'{launcher} started {env[count]} processes ({count}) but '
          f'{", ".join(missing)} is not set; give --coordinator_address, '
          '--num_processes and --process_id'
        )
      _join(timeout, *(_slurm() if launcher == 'Slurm' else ()))
      return
  if len(env.get('TPU_WORKER_HOSTNAMES', '').split(',')) > 1:
    _join(timeout)
  elif int(env.get('SLURM_NTASKS', 1)) > 1 and 'SLURM_STEP_ID' not in env:
    print(
      f"Slurm's job has {env['SLURM_NTASKS']} tasks, but srun did not start "
      'this one: it runs alone, on one node',
      file=sys.stderr,
    )


def _check_cluster(given):
  """Return the values of {flag: value}, unless a cluster is set half."""
  missing = [name for name, value in given.items() if value in (None, '')]
  if missing:
    raise errors.InputError(
      f'{" and ".join(missing)} missing; given: '
      + ', '.join(f'{k}={v}' for k, v in given.items() if k not in missing)
    )
  for name, value in given.items():
    kind = _ADDRESS if name == '--coordinator_address' else _NUMBER
    if not re.fullmatch(kind[1], str(value)):
      raise errors.InputError(f'{name} is {value!r}, expected {kind[0]}')
  number, count = int(given['--process_id']), int(given['--num_processes'])
  if number >= count:
    raise errors.InputError(
      f'--process_id is {number}, expected less than --num_processes={count}'
    )
  return str(given['--coordinator_address']), count, number


def _slurm():
  """Return the address, number and id of a task that srun started.

  As jax would find them, but for the port: steps of one allocation that run at
  once have one each.
  """
  env = os.environ
  # The first of, say, rack[1-2]node[001,007-015],other.
  first = re.match(r'(?:[^,[]|\[[^]]*])*', env['SLURM_STEP_NODELIST'])
  assert first is not None  # it matches anything
  node = re.sub(r'\[(\w+)[^]]*]', r'\1', first[0])
  job, step = int(env['SLURM_JOB_ID']), int(env.get('SLURM_STEP_ID', 0))
  # Above the ports that systems give away; neighbouring jobs are far apart.
  port = env.get('JAX_COORDINATOR_PORT') or 61440 + (613 * job + step) % 4096
  count, number = env['SLURM_STEP_NUM_TASKS'], env['SLURM_PROCID']
  return f'{node}:{port}', int(count), int(number)


def _local_devices():
  """Return which of the GPUs that this process sees are its own; [] for all.

  Left alone, jax takes one a task, also where a node has one task for all.
  """
  env = os.environ
  if 'JAX_LOCAL_DEVICE_IDS' in env:
    return None  # jax reads it
  if 'SLURM_STEP_TASKS_PER_NODE' in env:  # 8(x2),4: of the nodes in turn
    nodes = re.findall(
      r'(\d+)(?:\(x(\d+)\))?', env['SLURM_STEP_TASKS_PER_NODE']
    )
    counts = [int(n) for n, times in nodes for _ in range(int(times or 1))]
    tasks = counts[int(env.get('SLURM_NODEID', 0))]
    place = int(env.get('SLURM_LOCALID', 0))
    on_node = int(env.get('SLURM_GPUS_ON_NODE', 0))
  else:
    tasks, place, on_node = (
      int(env.get(f'OMPI_COMM_WORLD_LOCAL_{name}', default))
      for name, default in (('SIZE', 1), ('RANK', 0), ('', 0))
    )
  seen = env.get('CUDA_VISIBLE_DEVICES', '').replace('NoDevFiles', '')
  number = len(seen.split(',')) if seen else 0
  if tasks == 1 or 0 < number < on_node:  # the launcher has shared them
    return []
  share = max(1, number // tasks)
  return list(range(place * share, (place + 1) * share))


def _join(timeout, *cluster):
  """Call jax.distributed.initialize, its failures told in one line."""
  message = (
    'the processes of the run did not find each other (address, number and '
    f'id: {cluster or "from the environment"})'
  )
  # At its own time limit jax would abort the process with a stack trace.
  limit = threading.Timer(
    timeout, _leave, [f'error: {message} within --startup_timeout={timeout} s']
  )
  limit.daemon = True
  limit.start()
  fatal.explain(_LOST)
  try:
    jax.distributed.initialize(
      *cluster,
      local_device_ids=_local_devices(),
      initialization_timeout=timeout + 60,
      heartbeat_timeout_seconds=_HEARTBEAT,
    )
  except Exception as e:
    raise errors.InputError(f'{message}: {e}') from e
  finally:
    limit.cancel()


@contextlib.contextmanager
def end_together() -> Iterator[None]:
  """End at once when this process, one of several, fails.

  Leaving as usual would wait for the others at a barrier, while they wait for
  this one in a collective; when it is gone, theirs fail.
  """
  try:
    with errors.one_line():
      yield
  except BaseException as e:
    if not jax.distributed.is_initialized():
      raise
    text = traceback.format_exc()
    if isinstance(e, SystemExit) and not isinstance(e.code, str):
      # All of them were asked to end, and do. When the first is gone, srun
      # asks the others, too: none should die of that, with another status.
      jax.distributed.shutdown()
      signal.signal(signal.SIGTERM, signal.SIG_IGN)
      raise
    if isinstance(e, SystemExit):
      text = e.code
    elif is_lost(e):
      text = f'error: {_LOST}: {str(e).splitlines()[0].split(". ")[0]}'
    _leave(text)


def is_lost(error: BaseException) -> bool:
  """Return whether an error says that another process of the run is gone.

  Of several types, by where in the run a collective failed.
  """
  return jax.distributed.is_initialized() and bool(_HUNG_UP.search(str(error)))


def _leave(text):
  """End the process now, with a last line."""
  print(text, file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(1)


def is_main_process() -> bool:
  """Return whether this process is the one that writes."""
  return jax.process_index() == 0


def check_same(values: dict[str, object]) -> None:
  """Refuse processes that were told different things: two runs have met.

  Raises:
    errors.InputError: Names what differs, of `values` by name, and how.
  """
  first, *others = gather_objects(values)
  for i, other in enumerate(others, 1):
    for name in sorted(first.keys() | other.keys()):
      ours, theirs = first.get(name), other.get(name)
      if ours != theirs:
        raise errors.InputError(
          f'{name} is {ours!r} in process 0, {theirs!r} in process {i}; '
          'expected one command for all processes of a run: two runs may have '
          'met at one address'
        )


def gather_objects(value: _T) -> list[_T]:
  """Return every host's `value` (anything), by host."""
  if jax.process_count() == 1:
    return [value]
  raw = np.frombuffer(pickle.dumps(value), np.uint8)
  sizes = multihost_utils.process_allgather(np.asarray(raw.size))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: raw.size] = raw
  rows = multihost_utils.process_allgather(padded)
  return [
    pickle.loads(row[:size].tobytes())
    for row, size in zip(rows, sizes, strict=True)
  ]


def by_one(compute: Callable[[], _T]) -> _T:
  """Return to every process what process 0 computes."""
  value = [compute()] if is_main_process() else []
  return gather_objects(value)[0][0]


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[], bool]]:
  """Let a run end whole when it is asked to (SIGTERM).

  Yields:
    A function that every host calls after each step: whether to stop there,
    the same on all.
  """
  if jax.process_count() > 1:  # jax's own service listens, and tells all hosts
    # It has them stop at the call after the last one, which it knows by number
    # and takes for 1 when there was none: not the step of a resumed run.
    calls = itertools.count(1)
    yield lambda: multihost_utils.reached_preemption_sync_point(next(calls))
    return
  asked, before = [], None
  if threading.current_thread() is threading.main_thread():
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
  try:
    yield lambda: bool(asked)
  finally:
    if before is not None:
      signal.signal(signal.SIGTERM, before)
