"""One feature file to predict from: any length, either way round, no labels."""

import math

import numpy as np
from etils import epath

from backtal_jax import IGNORED, errors
from backtal_jax.data import feature_records, npz, resampling, sources

SUFFIXES = ('.npy', '.npz')
# Segments are cut at frames; where a file does not tell how many there are,
# they are counted at this rate, and no snippet is cut finer than this.
_FPS = 30.0
_MAX_FRAMES_PER_SNIPPET = 1000


def find(path) -> list[epath.Path]:
  """List the feature files of a folder by name, or the one file itself."""
  path = epath.Path(path)
  if not path.is_dir():
    return [path]
  found = sorted(
    p for p in path.iterdir()
    if p.suffix in SUFFIXES and not p.name.startswith('.')
  )  # fmt: skip
  if not found:
    raise errors.InputError(f'{path}: no .npz or .npy file in it')
  return found


def read_video(path, duration=None, *, shape) -> sources.Example:
  """Read a feature file.

  Args:
    path: .npz in BackTAL's form (method.md, section 1; labels and clicks may
      be missing), or .npy of [T', D] or [D, T'].
    duration: seconds, of a file that tells none.
    shape: (T, D) of the network's input.

  Returns:
    The video, see `make_video`; `click` as in the file, where it has any.

  Raises:
    errors.InputError: the file is damaged or cannot be used.
  """
  path = epath.Path(path)
  if path.suffix == '.npz':
    arrays = npz.read(path)
    streams = [arrays.get(key) for key in ('feat_spa', 'feat_tem')]
    if any(stream is None for stream in streams):
      raise errors.InputError(
        f'{path}: holds {", ".join(sorted(arrays)) or "nothing"}, expected '
        'feat_spa and feat_tem'
      )
  else:
    arrays, streams = {}, [_read_npy(path)]
  told = {
    key: float(arrays[key])
    for key in ('duration', 'frame_num', 'fps')
    if key in arrays
    and arrays[key].size == 1
    and arrays[key].dtype.kind in 'fiu'
    and arrays[key] > 0
  }
  if {'frame_num', 'fps'} <= told.keys():
    told.setdefault('duration', told['frame_num'] / told['fps'])
  grid = feature_records.read_grid(path)
  duration = grid.duration if grid else told.get('duration', duration)
  if duration is None:
    raise errors.InputError(
      f'{path}: tells no duration; expected one, or --duration SECONDS'
    )
  if 'fps' in told:
    told.setdefault('frame_num', told['fps'] * duration)
  frame_num = told.get('frame_num')
  video = make_video(path, streams, duration, frame_num, grid=grid, shape=shape)
  return video._replace(
    name=str(arrays.get('vid_name', path.stem)),
    click=np.ravel(arrays.get('point_label', video.click)),
  )


def make_video(where, streams, duration, frame_num=None, *, grid=None, shape):
  """Check the features of a video and resample them to T snippets.

  Args:
    where: what errors call it; its name, too.
    streams: one or two arrays [channels, T'] or [T', channels], any T' ≥ 2.
    duration: seconds.
    frame_num: of frames; None is 30 a second.
    grid: where the snippets lie, a feature_records.Grid, which also says that
      the features are [T', channels]; None is equal parts.
    shape: (T, D) of the network's input.

  Returns:
    sources.Example with features [T, D], without labels and clicks.

  Raises:
    errors.InputError: another number of channels; snippets and channels cannot
      be told apart; NaN or Inf; fewer than two snippets; no duration.
  """
  num_snippets, feature_dim = shape
  feature = _orient(where, streams, feature_dim, turns=not grid)
  if len(feature) < 2:
    raise errors.InputError(
      f'{where}: {len(feature)} snippets, expected 2 or more'
    )
  if not np.isfinite(feature).all():
    raise errors.InputError(
      f'{where}: {np.count_nonzero(~np.isfinite(feature))} NaN or Inf values'
    )
  if duration is None or not 0 < duration < math.inf:
    raise errors.InputError(
      f'{where}: duration is {duration}, expected seconds, more than 0'
    )
  if grid:
    frame_num = grid.duration * grid.fps
  elif frame_num is None:
    frame_num = min(_FPS * duration, _MAX_FRAMES_PER_SNIPPET * num_snippets)
  return sources.Example(
    name=str(where),
    feature=grid.resample(feature, num_snippets)
    if grid
    else resampling.resample(feature, num_snippets),
    label=np.zeros(0, np.float32),
    click=np.full(num_snippets, IGNORED),
    frame_num=max(1, round(frame_num)),
    fps=frame_num / duration,
    duration=float(duration),
  )


def _read_npy(path):
  """Read one array; pickled objects are refused, they could run code."""
  try:
    with path.open('rb') as f:
      return np.lib.format.read_array(f, allow_pickle=False)
  except FileNotFoundError as e:
    raise errors.InputError(f'{path}: no such file') from e
  except npz.DAMAGED as e:
    raise errors.InputError(f'{path}: not a whole .npy array: {e}') from e


def _orient(where, streams, feature_dim, turns):
  """Return features [T', D] float32 of streams that lie either way round."""
  streams = [np.asarray(s) for s in streams]
  shapes = ' and '.join(str(s.shape) for s in streams)
  if any(s.ndim != 2 or s.dtype.kind not in 'fiu' for s in streams):
    kinds = ' and '.join(str(s.dtype) for s in streams)
    raise errors.InputError(
      f'{where}: shape {shapes} of {kinds}, expected numbers in two dimensions'
    )
  transposed = [s.T for s in streams]
  fits = [
    forms
    for forms in ((streams, transposed) if turns else (transposed,))
    if sum(s.shape[0] for s in forms) == feature_dim
    and len({s.shape[1] for s in forms}) == 1
  ]
  expected = f'config.model.feature_dim is {feature_dim}'
  if not fits:
    raise errors.InputError(
      f'{where}: features have shape {shapes}, {expected}: neither way round '
      f'there are {feature_dim} channels'
    )
  if len(fits) > 1:
    raise errors.InputError(
      f'{where}: features have shape {shapes}, {expected}: cannot tell '
      'snippets from channels, (channels, snippets) and (snippets, channels) '
      'both fit'
    )
  return np.concatenate([s.T for s in fits[0]], axis=1).astype(np.float32)
