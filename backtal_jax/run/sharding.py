"""Meshes, and where arrays live on them.

The only file that knows devices. Everything is data parallel: a batch is split
over the mesh's one axis, the training state is on every device.
"""

import contextlib
import ctypes
import errno
import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from backtal_jax import errors, files
from backtal_jax.run import hosts

_AXIS = 'data'
# The versions that the tests ran with, see setup.cfg: from, and below.
_JAX = '0.10.2', '0.13'
_T = TypeVar('_T')


def find_devices() -> list[jax.Device]:
  """Return all devices of all hosts.

  Raises:
    errors.InputError: JAX_PLATFORMS names what is not there; JAX is older or
      newer than what was tried.
  """
  number = lambda v: [int(n) for n in re.findall(r'\d+', v)[:3]]
  if not number(_JAX[0]) <= number(jax.__version__) < number(_JAX[1]):
    raise errors.InputError(
      f'jax {jax.__version__} is installed, expected {_JAX[0]} or newer and '
      f'below {_JAX[1]}: pip install "jax>={_JAX[0]},<{_JAX[1]}"'
    )
  try:
    return jax.devices()
  except (RuntimeError, AssertionError) as e:
    asked = jax.config.values['jax_platforms']
    if not asked or hosts.is_lost(e):
      raise
    # Of JAX_PLATFORMS=cuda without its plugin jax asserts, and says nothing.
    reason = str(e).partition('\n')[0] or 'jax finds no such device here'
    raise errors.InputError(f'JAX_PLATFORMS is {asked!r}: {reason}') from e


def make_mesh(shape: Sequence[int] = ()) -> jax.sharding.Mesh:
  """Put all devices of all hosts, or (how many,), into one data-parallel axis.

  Raises:
    errors.InputError: More than there are, or not as many of each process; or
      see `find_devices`.
  """
  devices, processes = find_devices(), jax.process_count()
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


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Return the sharding that puts an array on every device."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def split(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Return the sharding that splits an array's first axis over the mesh."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_AXIS))


def layout(tree: _T, mesh: jax.sharding.Mesh, shard: bool) -> _T:
  """Return the sharding of each array of a training state, or of its shapes.

  To `shard` splits each array over the mesh along its last axis that divides
  evenly (the outputs, so that groups of input channels stay together);
  otherwise, and where none does, every device holds the whole.
  """

  def place(x):
    even = [i for i, n in enumerate(x.shape) if n and n % mesh.size == 0]
    if not shard or not even:
      return replicated(mesh)
    spec = [_AXIS if i == even[-1] else None for i in range(x.ndim)]
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))

  return jax.tree.map(place, tree)


def replicate(tree: _T, mesh: jax.sharding.Mesh) -> _T:
  """Put a tree of arrays, however laid out, whole on every device."""
  whole = replicated(mesh)
  if all(
    x.sharding.is_equivalent_to(whole, x.ndim) for x in jax.tree.leaves(tree)
  ):
    return tree
  return jax.jit(lambda t: t, out_shardings=whole)(tree)


def batch_size(requested: int, mesh: jax.sharding.Mesh) -> int:
  """Round a batch size up to a multiple of the mesh; the rest is masked."""
  return -(-requested // mesh.size) * mesh.size


def local_columns(plan: np.ndarray) -> np.ndarray:
  """Return the columns of an index plan [steps, B, …] this host loads."""
  width = plan.shape[1] // jax.process_count()
  start = jax.process_index() * width
  return plan[:, start : start + width]


def shard_batch(
  batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> dict[str, jax.Array]:
  """Make one global batch of every host's columns."""
  sharding = split(mesh)
  return {
    key: jax.make_array_from_process_local_data(sharding, value)
    for key, value in batch.items()
  }


def ahead(items: Iterable[_T]) -> Iterator[_T]:
  """Yield what an iterable gives, fetching one more before it is asked for."""
  end: Any = None  # stands after the last one
  pairs = itertools.pairwise(itertools.chain(items, (end,)))
  return (item for item, _ in pairs)


def prefetch(
  batches: Iterable[dict[str, np.ndarray]],
  mesh: jax.sharding.Mesh,
  keys: Sequence[str],
) -> Iterator[tuple[dict[str, jax.Array], dict[str, np.ndarray]]]:
  """Yield (batch on the devices, batch on this host), copying one ahead.

  Of each batch of this host's arrays, those of `keys` go to the devices.
  """
  pairs = (
    (shard_batch({k: batch[k] for k in keys}, mesh), batch) for batch in batches
  )
  return ahead(pairs)


def check_fits(num_bytes: int, mesh: jax.sharding.Mesh, what: str) -> None:
  """Refuse what every device of the mesh cannot hold a copy of.

  Raises:
    errors.InputError: Names both sizes.
  """
  stats = mesh.local_devices[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    free = stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  else:  # CPU devices share the machine's
    try:
      pages = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (OSError, ValueError) as e:
      print(f'{what} is not checked to fit: {e}', file=sys.stderr)
      return
    free = pages // len(mesh.local_devices)
  if num_bytes > free:
    raise errors.InputError(
      f'{what} takes {num_bytes / 2**30:.3g} GiB on every device, '
      f'{free / 2**30:.3g} GiB are free there'
    )


def use_compilation_cache() -> None:
  """Keep compiled programs in files.cache, unless JAX is told where."""
  if not jax.config.values['jax_compilation_cache_dir']:
    folder = files.cache('xla')
    try:
      if folder is None:
        raise OSError(errno.ENOENT, 'no home folder')
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      print(
        f'{folder or "~"}: {e.strerror}; what is compiled is not kept for '
        'later runs',
        file=sys.stderr,
      )
    else:
      jax.config.update('jax_compilation_cache_dir', str(folder))


def keep_memory() -> None:
  """Let glibc, if it is there, keep the memory that a step frees.

  Or every step on a CPU asks the kernel anew for the pages of its buffers.
  """
  _tune_malloc(
    (-1, 2**31 - 1),  # M_TRIM_THRESHOLD
    (-4, 0),  # M_MMAP_MAX
    (-8, 1),  # M_ARENA_MAX: other arenas are mapped pieces of 64 MiB
  )


def keep_little_memory() -> None:
  """Let glibc, if it is there, give back most of what a program frees.

  For programs that are dispatched from several threads: it would raise its
  bounds to the largest buffer freed, and keep holes that few others fit into.
  At its own bound at the end of the heap, 128 KiB, the kernel would clear the
  same pages again and again.
  """
  _tune_malloc(
    (-1, 8 << 20),  # M_TRIM_THRESHOLD
    (-3, 32 << 20),  # M_MMAP_THRESHOLD
  )


def _tune_malloc(*options):
  """Set options of glibc's mallopt, numbers and values."""
  with contextlib.suppress(AttributeError, OSError, TypeError):
    mallopt = ctypes.CDLL(None).mallopt
    for option, value in options:
      mallopt(option, value)


def give_back_memory() -> None:
  """Give the kernel what is free, which glibc, if it is there, would keep."""
  with contextlib.suppress(AttributeError, OSError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)


def local_rows(array: jax.Array) -> np.ndarray:
  """Return this host's rows of an array split over the mesh, in order."""
  shards = sorted(
    array.addressable_shards, key=lambda shard: shard.index[0].start or 0
  )
  return np.concatenate([np.asarray(shard.data) for shard in shards])
