"""Index plan to tf.data to batches.

Order is a pure function of (seed, epoch): NumPy makes the plan [steps, B] of
(epoch, video) pairs, tf.data only loads. Resuming is a row slice of the plan,
several hosts are a column slice; no iterator state exists.
"""

from collections.abc import Iterator

import numpy as np

from backtal_jax import IGNORED, errors
from backtal_jax.data import sources

# Columns of B videos, see `batches`.
Batch = dict[str, np.ndarray]

PADDING = -1
# What is loaded of a video, and its types.
_TYPES = {
  'feature': np.float32, 'label': np.float32, 'click': np.int32,
  'frame_num': np.int32, 'duration': np.float64,
}  # fmt: skip
# Videos read at once: a few, as network file systems make one wait; not many,
# as threads wait for each other, too (more than 4 were slower on local disks).
_PARALLEL_VIDEOS = 4


def train_plan(
  videos: np.ndarray, batch_size: int, *, seed: int, num_epochs: int
) -> np.ndarray:
  """Shuffle the videos' indices for every epoch anew.

  Returns:
    [num_epochs · steps, B, 2] of (epoch, video), B over all hosts; video is
    PADDING where the last batch of an epoch is not full.
  """
  rng = lambda epoch: np.random.default_rng([seed, epoch])
  return np.concatenate(
    [
      _padded(epoch, rng(epoch).permutation(videos), batch_size)
      for epoch in range(num_epochs)
    ]
  )


def num_steps(num_videos: int, batch_size: int) -> int:
  """Return how many batches all videos make, the last of which is filled up."""
  return -(-num_videos // batch_size)


def eval_plan(num_videos: int, batch_size: int) -> np.ndarray:
  """Return [steps, B, 2]: every video once, in order, then padding."""
  return _padded(0, np.arange(num_videos), batch_size)


def _padded(epoch, videos, batch_size):
  steps = num_steps(len(videos), batch_size)
  plan = np.full((steps * batch_size, 2), (epoch, PADDING), np.int64)
  plan[: len(videos), 1] = videos
  return plan.reshape(steps, batch_size, 2)


def _shapes(source):
  """Return the shapes of what is loaded of a video, in the order of _TYPES."""
  num_snippets, feature_dim, num_classes = source.shape
  return (num_snippets, feature_dim), (num_classes,), (num_snippets,), (), ()


def _values(source, clicks, epoch, i):
  """Load a video; padding stays neutral."""
  if i == PADDING:
    kinds = zip(_shapes(source), _TYPES.values(), strict=True)
    feature, label, click, *lengths = (np.zeros(*kind) for kind in kinds)
    return feature, label, click + np.int32(IGNORED), *lengths
  video = source[i]
  click = clicks(video, epoch) if clicks else video.click
  lengths = np.int32(video.frame_num), np.float64(video.duration)
  return video.feature, video.label, click, *lengths


def batches(
  source: sources.Videos,
  plan: np.ndarray,
  clicks: sources.Labeller | None = None,
) -> Iterator[Batch]:
  """Load the plan's rows in order, in parallel, ahead of their use.

  Args:
    source: Source of the videos.
    plan: [steps, B, 2] of (epoch, video).
    clicks: Gives the snippet labels instead of the source's own.

  Yields:
    Dicts of feature [B, T, D] float32, label [B, C] float32, click [B, T]
    int32, mask [B] bool (False for padding), video_index [B] int32, frame_num
    [B] int32, duration [B] float64 seconds.

  Raises:
    errors.InputError: A video's file is wrong.
  """
  # Late: it takes seconds.
  tf = errors.need('tensorflow', 'train', 'training or evaluating')

  shapes = _shapes(source)
  failures = []  # tf.data would bury them in errors of its own

  def load(row):
    try:
      return _values(source, clicks, *row)
    except Exception as e:
      failures.append(e)
      raise

  def tensors(row):
    """Make the named tensors of a row, which TensorFlow can batch."""
    values = tf.numpy_function(load, [row], [*_TYPES.values()], stateful=False)
    for value, shape in zip(values, shapes, strict=True):
      value.set_shape(shape)
    index = tf.cast(row[1], tf.int32)
    return dict(zip(_TYPES, values, strict=True)) | {
      'mask': index != PADDING,
      'video_index': index,
    }

  options = tf.data.Options()
  options.deterministic = True
  # Nothing here is tuned, and its thread, asleep for up to a minute, is waited
  # for when the iterator ends: seconds after every evaluation.
  options.autotune.enabled = False
  dataset = (
    tf.data.Dataset.from_tensor_slices(plan.reshape(-1, 2))
    .map(tensors, num_parallel_calls=_PARALLEL_VIDEOS)
    .batch(plan.shape[1], drop_remainder=True)
    .prefetch(1)
    .with_options(options)
  )
  try:
    yield from dataset.as_numpy_iterator()
  except tf.errors.OpError:
    if failures:
      raise failures[0] from None
    raise
