"""Random-access sources of videos: source[i] is the i-th video by name.

A source has `names`, `shape` (T, D, C), `__len__`, `__getitem__`, `labels` and
`video_names`, nothing else; the index plan of `pipeline` does the rest.
Here the npz folder of the official program (method.md, section 1).
"""

import io
from collections.abc import Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
from etils import epath

from backtal_jax import IGNORED, errors, files
from backtal_jax.data import npz


class Example(NamedTuple):
  """One video as the network and the evaluation need it."""

  name: str  # key into the ground truth
  feature: np.ndarray  # [T, D] float32
  label: np.ndarray  # [C] float32, multi-hot
  click: np.ndarray  # [T] int32: background C, action 0…C-1, else IGNORED
  frame_num: int  # length in frames
  fps: float  # frames a second
  duration: float  # seconds


def write_video(
  path,
  *,
  feat_spa,
  feat_tem,
  cls_label,
  vid_name,
  frame_num,
  fps,
  duration,
  point_label=None,
):
  """Write one video in the official npz form, uncompressed, whole or not.

  Args:
    path: ends in .npz.
    feat_spa: [D1, T] features of the first stream (RGB), channels first.
    feat_tem: [D2, T] features of the second stream (flow).
    cls_label: [C] multi-hot.
    vid_name: key into the ground truth.
    frame_num: length in frames.
    fps: frames a second.
    duration: seconds.
    point_label: [T], background C, action 0…C-1, IGNORED elsewhere; none for
      videos that are only evaluated.
  """
  arrays = {
    'feat_spa': np.asarray(feat_spa, np.float32),
    'feat_tem': np.asarray(feat_tem, np.float32),
    'cls_label': np.asarray(cls_label, np.float32),
    'vid_name': np.asarray(str(vid_name)),
    'frame_num': np.asarray(int(frame_num)),
    'fps': np.asarray(float(fps)),
    'duration': np.asarray(float(duration)),
  }
  if point_label is not None:
    arrays['point_label'] = np.asarray(point_label, np.int64)
  raw = io.BytesIO()  # a zip file is written with seeks, a bucket has none
  np.savez(raw, **arrays)
  with files.atomic(path) as f:
    f.write(raw.getvalue())


class NpzSource(Sequence):
  """The npz files of one folder, in name order.

  Args:
    folder: holds one .npz a video; any path etils.epath can read.
    num_snippets: T.
    feature_dim: D.
    num_classes: C.

  Raises:
    errors.InputError: the folder is missing or holds no .npz file; when a
      video is read, whatever is wrong with its file.
  """

  def __init__(self, folder, *, num_snippets, feature_dim, num_classes):
    folder = epath.Path(folder)
    if not folder.is_dir():
      raise errors.InputError(
        f'{folder}: no such folder; expected one .npz file a video in it '
        '(data/README.md shows the tree)'
      )
    self.paths = sorted(
      p for p in folder.iterdir() if p.name.endswith('.npz')
      and not p.name.startswith('.')
    )  # fmt: skip
    if not self.paths:
      raise errors.InputError(
        f'{folder}: no .npz file in it; expected one a video'
      )
    self.shape = (num_snippets, feature_dim, num_classes)
    self.names = [p.name.removesuffix('.npz') for p in self.paths]

  def __len__(self):
    return len(self.paths)

  def __getitem__(self, i) -> Example:
    path = self.paths[i]
    return parse_video(npz.read(path), path, *self.shape)

  def labels(self) -> np.ndarray:
    """Return every video's label [N, C] without reading its features."""
    num_classes = self.shape[2]
    return np.stack(
      [
        _label(label, num_classes, path)
        for label, path in zip(self._read('cls_label'), self.paths, strict=True)
      ]
    )

  def video_names(self) -> list[str]:
    """Return every video's key into the ground truth."""
    return [str(name) for name in self._read('vid_name')]

  def _read(self, key):
    def one(path):
      arrays = npz.read(path, (key,))
      _require(arrays, (key,), path)
      return arrays[key]

    with futures.ThreadPoolExecutor(8) as pool:
      return list(pool.map(one, self.paths))


def _require(arrays, keys, path):
  missing = [key for key in keys if key not in arrays]
  if missing:
    raise errors.InputError(
      f'{path}: no {", ".join(missing)} in it; found '
      f'{", ".join(sorted(arrays)) or "nothing"}'
    )


def _label(label, num_classes, path):
  if label.shape != (num_classes,):
    raise errors.InputError(
      f'{path}: cls_label has shape {label.shape}, config.model.num_classes '
      f'is {num_classes}'
    )
  label = label.astype(np.float32)
  if not np.isin(label, (0, 1)).all():
    raise errors.InputError(
      f'{path}: cls_label holds {label[~np.isin(label, (0, 1))][0]}, expected '
      'only 0 and 1'
    )
  return label


def _feature(arrays, path, num_snippets, feature_dim):
  """Return [T, D] of the two channels-first streams, checked."""
  streams = [arrays['feat_spa'], arrays['feat_tem']]
  if any(s.ndim != 2 or s.dtype.kind not in 'fiu' for s in streams):
    raise errors.InputError(
      f'{path}: feat_spa and feat_tem have shapes '
      f'{" and ".join(str(s.shape) for s in streams)} of '
      f'{" and ".join(str(s.dtype) for s in streams)}, expected numbers '
      '[channels, snippets]'
    )
  channels = sum(s.shape[0] for s in streams)
  if channels != feature_dim:
    raise errors.InputError(
      f'{path}: features have {channels} channels, config.model.feature_dim '
      f'is {feature_dim}'
    )
  for key, stream in zip(('feat_spa', 'feat_tem'), streams, strict=True):
    if stream.shape[1] != num_snippets:
      raise errors.InputError(
        f'{path}: {key} has {stream.shape[1]} snippets, '
        f'config.data.num_snippets is {num_snippets}'
      )
  feature = np.empty((num_snippets, feature_dim), np.float32)
  np.concatenate([s.T for s in streams], axis=1, out=feature)
  if not np.isfinite(feature).all():
    wrong = np.count_nonzero(~np.isfinite(feature))
    raise errors.InputError(f'{path}: features hold {wrong} NaN or Inf values')
  return feature


def _click(click, path, num_snippets, num_classes):
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


def parse_video(
  arrays, path, num_snippets, feature_dim, num_classes
) -> Example:
  """Check the arrays of one npz and return the video.

  Args:
    arrays: of the npz, by key.
    path: named in errors.
    num_snippets: T.
    feature_dim: D.
    num_classes: C.
  """
  scalars = ('frame_num', 'fps', 'duration')
  _require(arrays, ('feat_spa', 'feat_tem', 'cls_label', 'vid_name'), path)
  told = [np.asarray(arrays.get(key, np.nan)) for key in scalars]
  frame_num, fps, duration = (
    float(value) if value.size == 1 and value.dtype.kind in 'fiu' else np.nan
    for value in told
  )
  click = arrays.get('point_label')
  if click is None:
    click = np.full(num_snippets, IGNORED, np.int32)
  return Example(
    name=str(arrays['vid_name']),
    feature=_feature(arrays, path, num_snippets, feature_dim),
    label=_label(arrays['cls_label'], num_classes, path),
    click=_click(click, path, num_snippets, num_classes),
    frame_num=0 if np.isnan(frame_num) else int(frame_num),
    fps=fps,
    duration=duration,
  )


def problems(arrays, path, num_snippets, feature_dim, num_classes) -> list[str]:
  """List everything for which `parse_video` would refuse these arrays."""
  parts = {
    ('vid_name',): lambda: None,
    ('feat_spa', 'feat_tem'): lambda: _feature(
      arrays, path, num_snippets, feature_dim
    ),
    ('cls_label',): lambda: _label(arrays['cls_label'], num_classes, path),
    (): lambda: (
      'point_label' in arrays
      and _click(arrays['point_label'], path, num_snippets, num_classes)
    ),
  }
  found = []
  for keys, part in parts.items():
    try:
      _require(arrays, keys, path)
      part()
    except errors.InputError as e:
      found.append(str(e))
  return found
