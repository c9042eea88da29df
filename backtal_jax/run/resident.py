"""A split in the memory of the devices (config.data.placement = device).

On an accelerator a step takes milliseconds and reading files cannot keep up.
The features are read once; of each batch only the indices, labels and clicks
still come from the host.
"""

from collections.abc import Callable
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np

from backtal_jax.data import sources
from backtal_jax.run import sharding


class _Videos(list[sources.Example]):
  """A sources.Videos in host memory."""

  shape: tuple[int, int, int]


def load(
  source: sources.Videos, mesh: jax.sharding.Mesh, dtype: str
) -> tuple[
  sources.Videos, Callable[[dict[str, jax.Array]], dict[str, jax.Array]]
]:
  """Put the features of a source on every device of the mesh.

  There they are float32 or, for half the memory, bfloat16.

  Returns:
    A source of the same videos without features; and a function that gives a
    batch of these, with its `video_index`, the features [B, T, D] it lacks.

  Raises:
    errors.InputError: The split does not fit.
  """
  num_snippets, feature_dim, num_classes = source.shape
  shape, dtype = (len(source), num_snippets, feature_dim), jnp.dtype(dtype)
  size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
  sharding.check_fits(size, mesh, 'config.data.placement=device: the split')
  features = np.empty(shape, dtype)

  def read(i):
    video = source[i]
    features[i] = video.feature
    return video._replace(feature=np.zeros((num_snippets, 0), np.float32))

  with futures.ThreadPoolExecutor(8) as pool:
    videos = _Videos(pool.map(read, range(len(source))))
  videos.shape = num_snippets, 0, num_classes
  features = jax.device_put(features, sharding.replicated(mesh))

  def gather(features, batch):
    rows = jnp.take(features, batch['video_index'], axis=0, mode='clip')
    feature = jnp.where(batch['mask'][:, None, None], rows, 0)
    return batch | {'feature': feature}

  gather = jax.jit(gather, out_shardings=sharding.split(mesh))
  return videos, lambda batch: gather(features, batch)
