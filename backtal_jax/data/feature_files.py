"""One file of features in any form that docs/formats.md lists.

The one reader, for training, `prepare` and prediction alike: what lies in the
file, which way round it lies, and that it is numbers.
"""

import collections
import io
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from numpy import typing as npt

from backtal_jax import IGNORED, errors, files
from backtal_jax.data import (
  arrays,
  containers,
  feature_records,
  marks,
  npz,
  resampling,
  sources,
)

SUFFIXES = ('.npy', '.npz', *containers.SUFFIXES)
# Names of arrays that hold the streams: BackTAL's, OpenTAD's, and plain words.
_KEYS = (('feat_spa', 'feat_tem'), ('feats',), ('rgb', 'flow'))
_WAYS = False, True  # [T', D], and turned: [D, T']
_I3D = 1024  # channels of a stream of nearly all published features
# Snippets, and the share of them, by which two streams of a video may differ.
_APART, _SHARE = 2, 0.1
# Segments are cut at frames; where a file does not say how many there are,
# they are counted at this rate, and no snippet is cut finer than this.
_FPS = 30.0
_MAX_FRAMES_PER_SNIPPET = 1000


class Features(NamedTuple):
  """What a file holds."""

  streams: list[np.ndarray]  # one or two matrices of numbers, either way round
  about: dict[str, np.ndarray]  # the other arrays by name


def read(path: epath.Path, *, allow_pickle: bool = False) -> Features:
  """Read a file, whatever its name; an .npy is mapped where it can be.

  That is an .npy, or a file of named arrays, see `choose`: .npz or one of those
  of containers.py. Pickled objects can run any code: they are read if allowed.

  Raises:
    errors.InputError: The file is damaged, pickled or holds no such matrices.
  """
  if containers.kind(path):
    return choose(containers.read(path), path)
  if path.suffix == '.npz' or _is_zip(path):
    return choose(npz.read(path), path)
  array = load(path, allow_pickle)
  return Features([arrays.matrix(array, path, allow_pickle)], {})


def choose(about: dict[str, np.ndarray], where: object) -> Features:
  """Tell the streams among the named arrays of a video.

  They are feat_spa and feat_tem (BackTAL), feats (OpenTAD), rgb and flow, or
  the one matrix of any name.

  Raises:
    errors.InputError: Names `where` there are no such arrays.
  """
  keys = next((keys for keys in _KEYS if {*keys} <= about.keys()), None)
  if keys is None and not {*_KEYS[0]} & about.keys():
    # Of any name the only matrix.
    keys = [k for k, x in about.items() if x.ndim > 1 and x.dtype.kind in 'fiu']
    keys = keys or [k for k, x in about.items() if x.ndim]  # to say why not
  if not keys or (len(keys) != 1 and keys not in _KEYS):
    raise errors.InputError(
      f'{where}: holds {errors.few(sorted(about)) or "nothing"}, expected '
      f'{" or ".join(" and ".join(keys) for keys in _KEYS)}, or one matrix'
    )
  streams = [arrays.matrix(about[key], where) for key in keys]
  return Features(streams, {k: x for k, x in about.items() if k not in keys})


def _is_zip(path):
  """Check for an .npz file of another name."""
  if not path.is_file():
    return False
  with path.open('rb') as f:
    return f.read(2) == b'PK'


def load(path: epath.Path, allow_pickle: bool = False) -> np.ndarray:
  """Return the array of an .npy file, mapped where that can be."""
  if not path.is_file():
    raise errors.InputError(f'{path}: no such file')
  try:
    with npz.HEADERS:
      if os.path.isfile(path):
        return np.load(path, mmap_mode='r')
      return np.load(io.BytesIO(path.read_bytes()))
  except npz.DAMAGED as e:
    if not re.search('pickle|Python objects', str(e)):
      raise errors.InputError(f'{path}: not a whole .npy array: {e}') from e
  if not allow_pickle:
    raise errors.InputError(
      f'{path}: not a whole .npy array, or pickled objects, which can run any '
      'code when they are read; in `prepare custom` --allow-pickle reads them'
    )
  try:
    # latin1: W-TALC's files were written by Python 2.
    raw = io.BytesIO(path.read_bytes())
    return np.load(raw, allow_pickle=True, encoding='latin1')
  except Exception as e:  # what runs any code can raise anything
    raise errors.InputError(f'{path}: cannot be unpickled: {e!r}') from e


def ways_round(
  shapes: Iterable[Sequence[tuple[int, ...]]],
  feature_dim: int | None = None,
  given: bool | None = None,
) -> list[bool]:
  """Return which ways round features may lie.

  Right is what gives most videos the same channels; of these what is `given`;
  else what gives more videos streams of as many snippets, or nearly as many: N
  frames have N - 1 flows.

  Args:
    shapes: Of every video the shapes of its streams.
    feature_dim: D of all streams together, None if unknown.
    given: What the user says.

  Returns:
    None, one or both of False ([T', D]) and True ([D, T']).
  """
  scores: dict[bool, tuple[int, int]] = {}
  for turned in _WAYS:
    channels, even = collections.Counter(), collections.Counter()
    for streams in shapes:
      key = tuple(shape[not turned] for shape in streams)
      if feature_dim in (None, sum(key)):
        channels[key] += 1
        even[key] += _as_long([shape[turned] for shape in streams], key)
    if channels:
      scores[turned] = max((n, even[k]) for k, n in channels.items())
  most = max((count for count, _ in scores.values()), default=0)
  if given in scores and scores[given][0] == most:
    return [given]
  return [k for k, score in scores.items() if score == max(scores.values())]


def _as_long(counts, channels):
  """Check that streams of these channels are as long, or nearly."""
  if {*counts} == {_I3D} and len({*channels}) > 1:
    return False  # these are the channels; it is the snippets that differ
  return max(counts) - min(counts) <= max(_APART, _SHARE * max(counts))


def find(path: epath.Path) -> list[epath.Path]:
  """List the feature files of a folder by name, or the one file itself."""
  if not path.is_dir():
    return [path]
  found = files.listed(path, *SUFFIXES)
  if not found:
    raise errors.InputError(
      f'{path}: no feature file in it ({", ".join(SUFFIXES)})'
    )
  return found


def read_video(
  path: epath.Path, duration: float | None = None, *, shape: tuple[int, int]
) -> sources.Example:
  """Read a file to predict from: any length, no labels.

  The duration is seconds, of a file that does not say; the shape is (T, D) of
  the network's input.

  Returns:
    See `make_video`; `click` as in the file, where it has any.

  Raises:
    errors.InputError: The file is damaged or cannot be used.
  """
  streams, about = read(path)
  told = _told(about)
  grid = feature_records.read_grid(path)
  own = grid.duration if grid else told.get('duration')
  if own and duration and abs(own - duration) > marks.BEYOND:
    print(
      f'{path}: tells that it lasts {own:g} s; the {duration:g} s that were '
      'given are not used',
      file=sys.stderr,
    )
  duration = duration if own is None else own
  if duration is None:
    raise errors.InputError(
      f'{path}: tells no duration; expected one there, or as --duration '
      'SECONDS, or in a --video_list that has the video'
    )
  if 'fps' in told:
    told.setdefault('frame_num', told['fps'] * duration)
  frame_num = told.get('frame_num')
  video = make_video(path, streams, duration, frame_num, grid=grid, shape=shape)
  return video._replace(
    name=arrays.text(about.get('vid_name', path.stem), f'{path}: vid_name'),
    click=np.ravel(about.get('point_label', video.click)),
  )


def _told(about):
  """Return what an npz tells of duration, frame_num and fps."""
  keys = 'duration', 'frame_num', 'fps'
  told = {key: arrays.number(about.get(key)) for key in keys}
  told = {key: value for key, value in told.items() if value > 0}
  if {'frame_num', 'fps'} <= told.keys():
    told.setdefault('duration', told['frame_num'] / told['fps'])
  return told


def require_one_length(paths: Iterable[epath.Path], duration: float) -> None:
  """Refuse one duration for files that tell none, where they differ in length.

  Raises:
    errors.InputError: Names two of them, and their shapes.
  """
  lengths = {}
  for path in paths:
    streams, about = read(path)
    if 'duration' not in _told(about) and not feature_records.read_grid(path):
      lengths.setdefault(tuple(stream.shape for stream in streams), path)
  if len(lengths) > 1:
    (a, first), (b, other), *_ = lengths.items()
    raise errors.InputError(
      f'--duration is {duration:g} s for files of several lengths: {first} has '
      f'features {a}, {other} {b}; expected --video_list, a CSV '
      'video_id,duration'
    )


def make_video(
  where: object,
  streams: Sequence[npt.ArrayLike],
  duration: float | None,
  frame_num: float | None = None,
  *,
  grid: feature_records.Grid | None = None,
  shape: tuple[int, int],
) -> sources.Example:
  """Check the features of a video and resample them to T snippets.

  Args:
    where: What errors call the video; its name, too.
    streams: One or two arrays [channels, T'] or [T', channels], any T' ≥ 2.
    duration: Seconds.
    frame_num: Number of frames; None is 30 a second.
    grid: Where the snippets lie, if features are [T', channels]; None is equal
      parts.
    shape: (T, D) of the network's input.

  Returns:
    Features [T, D], without labels and clicks; fps is NaN where nothing tells.

  Raises:
    errors.InputError: Another number of channels; snippets and channels cannot
      be told apart; NaN or Inf; fewer than two snippets; no duration.
  """
  num_snippets, feature_dim = shape
  parts = _upright(where, streams, feature_dim, (False,) if grid else _WAYS)
  if duration is None or not 0 < duration < math.inf:
    raise errors.InputError(
      f'{where}: duration is {duration}, expected seconds, more than 0'
    )
  if grid:
    frame_num = grid.duration * grid.fps
    parts = [grid.resample(part, num_snippets) for part in parts]
  else:  # each by itself, as they may differ in length; `prepare custom`, too
    parts = [resampling.resample(part, num_snippets) for part in parts]
  fps = math.nan if frame_num is None else frame_num / duration
  if frame_num is None:
    frame_num = min(_FPS * duration, _MAX_FRAMES_PER_SNIPPET * num_snippets)
  return sources.Example(
    name=str(where),
    feature=np.concatenate(parts, axis=1),
    label=np.zeros(0, np.float32),
    click=np.full(num_snippets, IGNORED),
    frame_num=max(1, round(frame_num)),
    fps=fps,
    duration=float(duration),
  )


def _upright(where, streams, feature_dim, allowed):
  """Return streams, which lie one of the allowed ways round, as [T', D]."""
  streams = [arrays.matrix(s, where) for s in streams]
  shapes = ' and '.join(str(s.shape) for s in streams)
  ways = ways_round([[s.shape for s in streams]], feature_dim)
  ways = [turned for turned in ways if turned in allowed]
  if len(ways) != 1:
    problem = (
      'cannot tell snippets from channels, (channels, snippets) and (snippets, '
      'channels) both fit'
      if ways
      else f'neither way round there are {feature_dim} channels'
    )
    raise errors.InputError(
      f'{where}: features have shape {shapes}, config.model.feature_dim is '
      f'{feature_dim}: {problem}'
    )
  streams = [arrays.finite(s.T if ways[0] else s, where) for s in streams]
  if (fewest := min(map(len, streams))) < 2:
    raise errors.InputError(f'{where}: {fewest} snippets, expected 2 or more')
  return streams
