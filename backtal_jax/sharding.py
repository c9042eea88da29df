"""Meshes, where arrays live, and start-up on several hosts.

The only file that knows devices. Everything is data parallel: a batch is split
over the mesh's one axis, the training state is on every device.
"""

import collections
import contextlib
import itertools
import os
import pickle
import re
import sys
import threading
import traceback

import jax
import numpy as np
from jax.experimental import multihost_utils

from backtal_jax import errors, fatal

_AXIS = 'data'
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


def initialize(address='', num_processes=0, process_id=-1, timeout=300):
  """Join the processes of a run, of which there may be just this one.

  From the arguments; else from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID or JOB_COMPLETION_INDEX (an indexed Kubernetes Job); else
  from what Slurm, Open MPI or a TPU slice tell their processes.

  Args:
    address: HOST:PORT of process 0.
    num_processes: of the run.
    process_id: of this one, from 0.
    timeout: seconds to wait for the others.

  Raises:
    errors.InputError: the cluster is set half, or the others do not come.
  """
  env = os.environ
  given = {
    '--coordinator_address': address or env.get('JAX_COORDINATOR_ADDRESS'),
    '--num_processes': num_processes or env.get('JAX_NUM_PROCESSES'),
    '--process_id': process_id
    if process_id >= 0
    else env.get('JAX_PROCESS_ID', env.get('JOB_COMPLETION_INDEX')),
  }
  # A plain indexed Job has an index but is no cluster of ours.
  if given['--coordinator_address'] or given['--num_processes']:
    _check_cluster(given)
    address, num_processes, process_id = given.values()
    _join(timeout, address, int(num_processes), int(process_id))
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
      _join(timeout)
      return
  if len(env.get('TPU_WORKER_HOSTNAMES', '').split(',')) > 1:
    _join(timeout)


def _check_cluster(given):
  """Refuse {flag: value} of a cluster that is set half, or wrongly."""
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
      initialization_timeout=timeout + 60,
      heartbeat_timeout_seconds=_HEARTBEAT,
    )
  except Exception as e:
    raise errors.InputError(f'{message}: {e}') from e
  finally:
    limit.cancel()


@contextlib.contextmanager
def end_together():
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
      raise  # all of them were asked to end
    if isinstance(e, SystemExit):
      text = e.code
    elif is_lost(e):
      text = f'error: {_LOST}: {str(e).splitlines()[0].split(". ")[0]}'
    _leave(text)


def is_lost(error) -> bool:
  """Tell whether an error says that another process of the run is gone.

  Of several types, by where in the run a collective failed.
  """
  return jax.distributed.is_initialized() and bool(_HUNG_UP.search(str(error)))


def _leave(text):
  """End the process now, with a last line."""
  print(text, file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(1)


def make_mesh(shape=()) -> jax.sharding.Mesh:
  """Put the devices of all hosts into one data-parallel axis.

  Args:
    shape: (how many,), or () for all.

  Raises:
    errors.InputError: more than there are, or not as many of each process.
  """
  devices, processes = jax.devices(), jax.process_count()
  (num_devices,) = shape or (len(devices),)
  if not 0 < num_devices <= len(devices):
    raise errors.InputError(
      f'config.mesh is {num_devices}, but there are {len(devices)} devices'
    )
  if num_devices % processes:
    raise errors.InputError(
      f'config.mesh is {num_devices}, which {processes} processes cannot share'
    )
  # Of fewer than all, every process has as many: each loads as many videos.
  share = num_devices // processes
  of = lambda i: [d for d in devices if d.process_index == i][:share]
  # Auto: with the default Explicit axes gathers on sharded batches fail.
  return jax.make_mesh(
    (num_devices,),
    (_AXIS,),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=[d for i in range(processes) for d in of(i)],
  )


def replicated(mesh) -> jax.sharding.NamedSharding:
  """Return the sharding that puts an array on every device."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def split(mesh) -> jax.sharding.NamedSharding:
  """Return the sharding that splits an array's first axis over the mesh."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_AXIS))


def layout(tree, mesh, shard):
  """Choose where each array of a training state lives.

  Args:
    tree: of arrays or shapes.
    mesh: of devices.
    shard: split each array over the mesh along its last axis that divides
      evenly (the outputs, so that groups of input channels stay together);
      otherwise, and where none does, every device has all of it.

  Returns:
    A tree of shardings.
  """

  def place(x):
    even = [i for i, n in enumerate(x.shape) if n and n % mesh.size == 0]
    if not shard or not even:
      return replicated(mesh)
    spec = [None] * x.ndim
    spec[even[-1]] = _AXIS
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))

  return jax.tree.map(place, tree)


def replicate(tree, mesh):
  """Put a tree of arrays, however laid out, whole on every device."""
  whole = replicated(mesh)
  if all(
    x.sharding.is_equivalent_to(whole, x.ndim) for x in jax.tree.leaves(tree)
  ):
    return tree
  return jax.jit(lambda t: t, out_shardings=whole)(tree)


def stop_requested(step, flagged) -> bool:
  """Tell whether to stop after a step, the same on every host.

  Args:
    step: the number of steps done.
    flagged: whether this process, if it is the only one, was asked to.
  """
  if jax.process_count() == 1:
    return flagged
  return multihost_utils.reached_preemption_sync_point(step)


def is_main_process() -> bool:
  """Tell whether this process is the one that writes."""
  return jax.process_index() == 0


def batch_size(requested, mesh) -> int:
  """Round a batch size up to a multiple of the mesh; the rest is masked."""
  return -(-requested // mesh.size) * mesh.size


def local_columns(plan) -> np.ndarray:
  """Return the columns of an index plan [steps, B, …] this host loads."""
  width = plan.shape[1] // jax.process_count()
  start = jax.process_index() * width
  return plan[:, start : start + width]


def shard_batch(batch, mesh) -> dict:
  """Make one global batch of this host's columns of it."""
  sharding = split(mesh)
  return {
    key: jax.make_array_from_process_local_data(sharding, value)
    for key, value in batch.items()
  }


def prefetch(batches, mesh, keys, size=2):
  """Yield (batch on the devices, batch on this host), copying ahead.

  Args:
    batches: of this host's arrays.
    mesh: to split them over.
    keys: which arrays go to the devices.
    size: how many batches are on their way at once.
  """
  queue = collections.deque()
  batches = iter(batches)

  def enqueue(count):
    for batch in itertools.islice(batches, count):
      queue.append((shard_batch({k: batch[k] for k in keys}, mesh), batch))

  enqueue(size)
  while queue:
    yield queue.popleft()
    enqueue(1)


def check_fits(num_bytes, mesh, what):
  """Refuse what every device of the mesh cannot hold a copy of.

  Raises:
    errors.InputError: names both sizes.
  """
  stats = mesh.local_devices[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    free = stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  else:  # CPU devices share the machine's
    pages = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    free = pages // len(mesh.local_devices)
  if num_bytes > free:
    raise errors.InputError(
      f'{what} takes {num_bytes / 2**30:.3g} GiB on every device, '
      f'{free / 2**30:.3g} GiB are free there'
    )


def use_compilation_cache():
  """Keep compiled programs for the next run, unless JAX is told where.

  In $XDG_CACHE_HOME (default ~/.cache).
  """
  if not jax.config.jax_compilation_cache_dir:
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    folder = os.path.join(cache, 'backtal_jax', 'xla')
    jax.config.update('jax_compilation_cache_dir', folder)


def local_rows(array) -> np.ndarray:
  """Return this host's rows of an array split over the mesh, in order."""
  shards = sorted(
    array.addressable_shards, key=lambda shard: shard.index[0].start or 0
  )
  return np.concatenate([np.asarray(shard.data) for shard in shards])


def gather_objects(value) -> list:
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
