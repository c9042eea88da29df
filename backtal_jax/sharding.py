"""Meshes, where arrays live, and start-up on several hosts.

The only file that knows devices. Everything is data parallel: a batch is split
over the mesh's one axis, the training state is on every device.
"""

import collections
import itertools
import json

import jax
import numpy as np
from jax.experimental import multihost_utils

from backtal_jax import errors

_AXIS = 'data'


def make_mesh(shape=()) -> jax.sharding.Mesh:
  """Put the devices of all hosts into one data-parallel axis.

  Args:
    shape: (how many,), or () for all.

  Raises:
    errors.InputError: more than there are.
  """
  devices = jax.devices()
  (num_devices,) = shape or (len(devices),)
  if not 0 < num_devices <= len(devices):
    raise errors.InputError(
      f'config.mesh is {num_devices}, but there are {len(devices)} devices'
    )
  # Auto: with the default Explicit axes gathers on sharded batches fail.
  return jax.make_mesh(
    (num_devices,),
    (_AXIS,),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=devices[:num_devices],
  )


def replicated(mesh) -> jax.sharding.NamedSharding:
  """Return the sharding that puts an array on every device."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def split(mesh) -> jax.sharding.NamedSharding:
  """Return the sharding that splits an array's first axis over the mesh."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_AXIS))


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


def local_rows(array) -> np.ndarray:
  """Return this host's rows of an array split over the mesh, in order."""
  shards = sorted(
    array.addressable_shards, key=lambda shard: shard.index[0].start or 0
  )
  return np.concatenate([np.asarray(shard.data) for shard in shards])


def gather_objects(value) -> list:
  """Return every host's `value` (anything JSON can hold), by host."""
  if jax.process_count() == 1:
    return [value]
  raw = np.frombuffer(json.dumps(value).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.asarray(raw.size))
  padded = np.zeros(sizes.max(), np.uint8)
  padded[: raw.size] = raw
  rows = multihost_utils.process_allgather(padded)
  return [
    json.loads(row[:size].tobytes())
    for row, size in zip(rows, sizes, strict=True)
  ]
