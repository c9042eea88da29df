"""Random-access sources of videos: source[i] is the i-th video by name.

The index plan of `pipeline` does the rest. Here what a `Source` has, and the
npz folder of the official program (method.md, section 1).
"""

import functools
import io
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple, Protocol

import numpy as np
from etils import epath
from numpy import typing as npt

from backtal_jax import IGNORED, errors, files
from backtal_jax.data import arrays, npz

# Videos of which the statistics of channels are: more tell hardly more.
_MEASURED = 500


class Example(NamedTuple):
  """One video as the network and the evaluation need it."""

  name: str  # key into the ground truth
  feature: np.ndarray  # [T, D] float32
  label: np.ndarray  # [C] float32, multi-hot
  click: np.ndarray  # [T] int32: background C, action 0…C-1, else IGNORED
  frame_num: int  # length in frames
  fps: float  # frames a second
  duration: float  # seconds


# (video, epoch) -> [T] labels, as `Example.click`.
Labeller = Callable[[Example, int], np.ndarray]


class Videos(Protocol):
  """Videos of one shape (T, D, C), as `pipeline.batches` loads them."""

  shape: tuple[int, int, int]

  def __len__(self) -> int: ...

  def __getitem__(self, i: int, /) -> Example: ...


class Source(Videos, Protocol):
  """The videos of a split, and what is known of them without their features."""

  names: list[str]  # of the files, which errors name

  def labels(self) -> np.ndarray:
    """Return every video's label [N, C]."""

  def video_names(self) -> list[str]:
    """Return every video's key into the ground truth."""

  def num_clicks(self) -> list[int]:
    """Return the number of labelled snippets of every video."""


def write_video(
  path: epath.Path,
  *,
  feat_spa: npt.ArrayLike,
  feat_tem: npt.ArrayLike,
  cls_label: npt.ArrayLike,
  vid_name: str,
  frame_num: int,
  fps: float,
  duration: float,
  point_label: npt.ArrayLike | None = None,
) -> None:
  """Write one video in the official npz form, uncompressed and atomically.

  Args:
    path: Ends in .npz.
    feat_spa, feat_tem: [D1, T] and [D2, T] features of the two streams (RGB and
      flow), channels first.
    cls_label: [C] multi-hot.
    vid_name: Key into the ground truth.
    frame_num, fps, duration: Frames, frames a second and seconds.
    point_label: [T], see `Example.click`; none of videos that are only
      evaluated.
  """
  values = {
    'feat_spa': np.asarray(feat_spa, np.float32),
    'feat_tem': np.asarray(feat_tem, np.float32),
    'cls_label': np.asarray(cls_label, np.float32),
    'vid_name': np.asarray(str(vid_name)),
    'frame_num': np.asarray(int(frame_num)),
    'fps': np.asarray(float(fps)),
    'duration': np.asarray(float(duration)),
  }
  if point_label is not None:
    values['point_label'] = np.asarray(point_label, np.int64)
  raw = io.BytesIO()  # a zip file is written with seeks, a bucket has none
  np.savez(raw, allow_pickle=False, **values)
  with files.atomic(path) as f:
    f.write(raw.getvalue())


def measure_channels(
  source: Videos, videos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return mean and standard deviation [D] of features over snippets.

  Of at most 500 of the videos, indices in the source, in even steps.
  """
  some = np.linspace(0, len(videos) - 1, min(_MEASURED, len(videos)))
  count, total, square = 0, 0.0, 0.0
  for i in videos[some.astype(int)].tolist():
    feature = source[i].feature.astype(np.float64)
    count += len(feature)
    total += feature.sum(axis=0)
    square += np.square(feature).sum(axis=0)
  mean = np.asarray(total) / count
  return mean, np.sqrt(np.maximum(np.asarray(square) / count - mean**2, 0))


class NpzSource:
  """The npz files of one folder, of shape (T, D, C) and in name order.

  Raises:
    errors.InputError: The folder is missing or holds no .npz file; when a
      video is read, whatever is wrong with its file.
  """

  def __init__(self, folder: epath.Path, shape: tuple[int, int, int]) -> None:
    if not folder.is_dir():
      raise errors.InputError(
        f'{folder}: no such folder; expected one .npz file a video in it '
        '(data/README.md shows the tree)'
      )
    self.paths = files.listed(folder, '.npz')
    if not self.paths:
      raise errors.InputError(
        f'{folder}: no .npz file in it; expected one a video'
      )
    self.shape = shape
    self.names = [p.stem for p in self.paths]

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, i: int) -> Example:
    path = self.paths[i]
    example, problems = parse(npz.read(path), path, self.shape)
    if example is None:
      raise errors.InputError(problems[0])
    return example

  def labels(self) -> np.ndarray:
    """See Source."""
    return np.stack([label for _, label, _ in self._marks])

  def video_names(self) -> list[str]:
    """See Source."""
    return [name for name, _, _ in self._marks]

  def num_clicks(self) -> list[int]:
    """See Source."""
    return [int((click != IGNORED).sum()) for _, _, click in self._marks]

  @functools.cached_property
  def _marks(self):
    """What is small in every file: (name, label, click)."""

    def read(path):
      found = npz.read(path, ('vid_name', 'cls_label', 'point_label'))
      return [part(found, path, self.shape) for part in (_name, _label, _click)]

    with futures.ThreadPoolExecutor(8) as pool:
      return list(pool.map(read, self.paths))


def parse(
  found: dict[str, np.ndarray],
  path: epath.Path,
  shape: tuple[int, int, int],
) -> tuple[Example | None, list[str]]:
  """Check the arrays of an npz for an example of shape (T, D, C).

  Returns:
    The example, None where there are problems; and all of these, which name
    the path.
  """
  example, problems = {}, []
  parts = {'name': _name, 'feature': _feature, 'label': _label, 'click': _click}
  for field, part in parts.items():
    try:
      example[field] = part(found, path, shape)
    except errors.InputError as e:
      problems.append(str(e))
  if problems:
    return None, problems
  for field in ('frame_num', 'fps', 'duration'):
    example[field] = arrays.number(found.get(field))
  # Lengths that int32 cannot hold are none.
  known = 0 < example['frame_num'] < 2**31
  example['frame_num'] = int(example['frame_num']) if known else 0
  return Example(**example), []


def _get(found, path, key):
  if key not in found:
    there = ', '.join(sorted(found)) or 'nothing'
    raise errors.InputError(f'{path}: no {key} in it; found {there}')
  return found[key]


def _name(found, path, shape):
  del shape
  return arrays.text(_get(found, path, 'vid_name'), f'{path}: vid_name')


def _label(found, path, shape):
  num_classes = shape[2]
  label = arrays.vector(_get(found, path, 'cls_label'))
  if label.shape != (num_classes,):
    raise errors.InputError(
      f'{path}: cls_label has shape {label.shape}, config.model.num_classes '
      f'is {num_classes}'
    )
  wrong = ~np.isin(label, (0, 1))
  if wrong.any():
    raise errors.InputError(
      f'{path}: cls_label holds {label[wrong][0]}, expected only 0 and 1'
    )
  return label.astype(np.float32)


def _feature(found, path, shape):
  """Return [T, D] of the two channels-first streams."""
  num_snippets, feature_dim, _ = shape
  keys = ('feat_spa', 'feat_tem')
  streams = [
    arrays.matrix(_get(found, path, key), f'{path}: {key}') for key in keys
  ]
  channels = sum(len(stream) for stream in streams)
  if channels != feature_dim:
    raise errors.InputError(
      f'{path}: features have {channels} channels, config.model.feature_dim '
      f'is {feature_dim}'
    )
  for key, stream in zip(keys, streams, strict=True):
    if stream.shape[1] != num_snippets:
      raise errors.InputError(
        f'{path}: {key} has {stream.shape[1]} snippets, '
        f'config.data.num_snippets is {num_snippets}'
      )
  return np.concatenate([arrays.finite(s, path).T for s in streams], axis=1)


def _click(found, path, shape):
  num_snippets, _, num_classes = shape
  if 'point_label' not in found:
    return np.full(num_snippets, IGNORED, np.int32)
  click = arrays.vector(found['point_label'])
  if click.shape != (num_snippets,) or click.dtype.kind not in 'fiu':
    raise errors.InputError(
      f'{path}: point_label has shape {click.shape} of {click.dtype}, expected '
      f'integers, one for each of config.data.num_snippets = {num_snippets}'
    )
  wrong = (click != IGNORED) & ~np.isin(click, np.arange(num_classes + 1))
  if wrong.any():
    raise errors.InputError(
      f'{path}: point_label holds {click[wrong][0]} at snippet '
      f'{np.flatnonzero(wrong)[0]}, expected {IGNORED} or 0…{num_classes}'
    )
  return click.astype(np.int32)
