"""Index plan to tf.data to batches.

Order is a pure function of (seed, epoch): NumPy makes the plan [steps, B] of
(epoch, video) pairs, tf.data only loads. Resuming is a row slice of the plan,
several hosts are a column slice; no iterator state exists.
"""

import math
import mmap
import weakref
from collections.abc import Iterator
from concurrent import futures

import numpy as np
import tensorflow as tf

from backtal_jax import IGNORED

PADDING = -1
# Videos read at once: a few, as network file systems make one wait; not many,
# as threads wait for each other, too (more than 4 were slower on local disks).
_PARALLEL_VIDEOS = 4


def train_plan(videos, batch_size, *, seed, num_epochs) -> np.ndarray:
  """Shuffle every epoch anew; the last batch of an epoch is padded.

  Args:
    videos: indices into the source.
    batch_size: B over all hosts.
    seed: of the order.
    num_epochs: how many.

  Returns:
    [num_epochs · steps, B, 2] of (epoch, video), video PADDING where the
    last batch of an epoch is not full.
  """
  return np.concatenate(
    [
      _padded(
        epoch,
        np.random.default_rng([seed, epoch]).permutation(videos),
        batch_size,
      )
      for epoch in range(num_epochs)
    ]
  )


def eval_plan(num_videos, batch_size) -> np.ndarray:
  """Return [steps, B, 2]: every video once, in order, then padding."""
  return _padded(0, np.arange(num_videos), batch_size)


def _padded(epoch, videos, batch_size):
  steps = -(-len(videos) // batch_size)
  plan = np.full((steps * batch_size, 2), (epoch, PADDING), np.int64)
  plan[: len(videos), 1] = videos
  return plan.reshape(steps, batch_size, 2)


class _Memory:
  """Memory for one large array after another.

  What nothing refers to any more is used again: fresh pages cost more than
  reading a file. On page boundaries, so that TensorFlow takes it uncopied.
  """

  def __init__(self, *shape):
    self._shape, self._free = shape, []

  def take(self) -> np.ndarray:
    """Return a float32 array of whatever values."""
    count = math.prod(self._shape)
    memory = self._free.pop() if self._free else _pages(4 * count)
    array = np.frombuffer(memory, np.float32, count)
    weakref.finalize(array, self._take_back, memory)
    return array.reshape(self._shape)  # refers to `array`, as TensorFlow will

  def _take_back(self, memory):
    if self._free is not None:
      self._free.append(memory)

  def close(self):
    """Give all of it back to the system, what is in use when that ends."""
    self._free = None


def _pages(size):
  """Map memory of so many bytes, in large pages where there are any."""
  memory = mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
  if hasattr(mmap, 'MADV_HUGEPAGE'):
    memory.madvise(mmap.MADV_HUGEPAGE)
  return memory


class _Loader:
  """Loads a batch straight into its arrays, its videos in parallel.

  Args:
    source: of videos.
    clicks: see `batches`.
    size: B.
  """

  def __init__(self, source, clicks, size):
    self._source, self._clicks, self._size = source, clicks, size
    self._memory = _Memory(size, *source.shape[:2])
    self.failures = []  # tf.data would bury them in errors of its own

  def __enter__(self):
    self._pool = futures.ThreadPoolExecutor(_PARALLEL_VIDEOS)
    return self

  def __exit__(self, *_):
    self._pool.shutdown()
    self._memory.close()  # TensorFlow keeps this loader

  def __call__(self, rows):
    """Return the arrays of rows [B, 2]; the padding stays neutral."""
    num_snippets, _, num_classes = self._source.shape
    batch = (
      self._memory.take(),
      np.zeros((self._size, num_classes), np.float32),
      np.full((self._size, num_snippets), IGNORED, np.int32),
      np.zeros(self._size, np.int32),
      np.zeros(self._size, np.float64),
    )
    try:
      list(
        self._pool.map(
          lambda k: self._fill(batch, k, *rows[k]), range(self._size)
        )
      )
    except Exception as e:
      self.failures.append(e)
      raise
    return batch

  def _fill(self, batch, k, epoch, i):
    if i == PADDING:
      batch[0][k] = 0
      return
    video = self._source.read(i, batch[0][k])
    click = self._clicks(video, epoch) if self._clicks else video.click
    values = video.label, click, video.frame_num, video.duration
    for array, value in zip(batch[1:], values, strict=True):
      array[k] = value


def _as_tensors(load, rows):
  """Make the named tensors of a batch of what `load` returns."""
  types = [tf.float32, tf.float32, tf.int32, tf.int32, tf.float64]
  values = tf.numpy_function(load, [rows], types, stateful=False)
  keys = ('feature', 'label', 'click', 'frame_num', 'duration')
  index = tf.cast(rows[:, 1], tf.int32)
  return dict(zip(keys, values, strict=True)) | {
    'mask': index != PADDING,
    'video_index': index,
  }


def batches(source, plan, clicks=None) -> Iterator[dict]:
  """Load the plan's rows in order, in parallel, ahead of their use.

  Args:
    source: of videos, see `sources`.
    plan: [steps, B, 2] of (epoch, video).
    clicks: (video, epoch) -> [T] snippet labels that replace the source's.

  Yields:
    Dicts of feature [B, T, D] float32, label [B, C] float32, click [B, T]
    int32, mask [B] bool (False for padding), video_index [B] int32, frame_num
    [B] int32, duration [B] float64 seconds.

  Raises:
    errors.InputError: a video's file is wrong.
  """
  size = plan.shape[1]
  options = tf.data.Options()
  options.deterministic = True
  # Nothing here is tuned, and its thread, asleep for up to a minute, is waited
  # for when the iterator ends: seconds after every evaluation.
  options.autotune.enabled = False
  with _Loader(source, clicks, size) as load:
    dataset = (
      tf.data.Dataset.from_tensor_slices(plan)
      .map(
        lambda rows: _as_tensors(load, rows),
        num_parallel_calls=max(1, _PARALLEL_VIDEOS // size),
      )
      .prefetch(1)
      .with_options(options)
    )
    try:
      yield from dataset.as_numpy_iterator()
    except tf.errors.OpError:
      if load.failures:
        raise load.failures[0] from None
      raise
