"""Features of other projects: their files, time grids, and resampling."""

import functools
import io
import os
import re

import numpy as np
from etils import epath

from backtal_jax import errors
from backtal_jax.data import npz


def open_features(paths, *, names=None, **options) -> dict:
  """List the videos that there are features of.

  Args:
    paths: one or two streams (RGB, flow), each a folder with NAME.npy or
      NAME.npz (OpenTAD, key `feats`) of every video, or one .npy with all
      videos (W-TALC).
    names: of such an .npy, an .npy of the videos' names in the same order.
    **options: of `read`.

  Returns:
    {video: function that returns its streams, a list of [T', D] arrays}.

  Raises:
    errors.InputError: nothing there, a video twice or in one stream only.
  """
  streams = [_open_stream(epath.Path(p), names, options) for p in paths]
  for path, stream in zip(paths, streams, strict=True):
    for name in sorted(set().union(*streams) - stream.keys()):
      raise errors.InputError(f'{path}: video {name!r} is only in the other')
    for name in sorted(n for n in stream if f'v_{n}' in stream):
      raise errors.InputError(f'{path}: duplicate video {name!r}, v_{name}')
  return {
    name: functools.partial(_call_all, [stream[name] for stream in streams])
    for name in sorted(streams[0])
  }


def _call_all(functions):
  return [function() for function in functions]


def _open_stream(path, names, options):
  if not path.is_dir():
    return _open_joint(path, names, options)
  found = {}
  for file in sorted(path.iterdir()):
    if file.suffix not in ('.npy', '.npz') or file.name.startswith('.'):
      continue
    if file.stem in found:
      raise errors.InputError(f'{path}: duplicate video {file.stem!r}')
    found[file.stem] = functools.partial(read, file, **options)
  if not found:
    raise errors.InputError(f'{path}: no .npy or .npz file in it')
  return found


def _open_joint(path, names, options):
  """Return the functions of a W-TALC file, which is read as a whole."""
  if not path.exists():
    raise errors.InputError(f'{path}: no such folder or file')
  if names is None:
    raise errors.InputError(
      f'{path}: no folder; one file of all videos needs --video_names'
    )
  allow_pickle = options.get('allow_pickle', False)
  arrays = _load(path, allow_pickle)
  if not np.ndim(arrays):
    raise errors.InputError(
      f'{path}: one object, expected an array with one of each video'
    )
  # W-TALC writes the names as bytes.
  keys = [
    n.decode() if isinstance(n, bytes) else str(n)
    for n in _load(epath.Path(names), allow_pickle).ravel().tolist()
  ]
  if len(keys) != len(arrays):
    raise errors.InputError(
      f'{path}: {len(arrays)} videos, but {names} has {len(keys)} names'
    )
  for name in (k for k in keys if keys.count(k) > 1):
    raise errors.InputError(f'{names}: duplicate video {name!r}')
  return {
    name: functools.partial(_check, array, f'{path}: {name}', **options)
    for name, array in zip(keys, arrays, strict=True)
  }


def read(path, *, allow_pickle=False, channels_first=False) -> np.ndarray:
  """Read the features of one video; where it can be, the file is mapped.

  Args:
    path: .npy, or .npz with the key `feats`.
    allow_pickle: read pickled objects, which can run any code.
    channels_first: the file holds [D, T'].

  Returns:
    [T', D].

  Raises:
    errors.InputError: not a whole file, pickled, not two-dimensional.
  """
  path = epath.Path(path)
  if path.suffix == '.npz':
    arrays = npz.read(path)
    if 'feats' not in arrays:
      raise errors.InputError(
        f'{path}: holds {", ".join(sorted(arrays)) or "nothing"}, expected '
        'feats'
      )
    array = arrays['feats']
  else:
    array = _load(path, allow_pickle)
  return _check(
    array, path, allow_pickle=allow_pickle, channels_first=channels_first
  )


def _load(path, allow_pickle):
  """Return the array of an .npy file, mapped where that can be."""
  if not path.is_file():
    raise errors.InputError(f'{path}: no such file')
  local = os.path.isfile(path)
  try:
    with npz.HEADERS:
      return np.load(
        path if local else io.BytesIO(path.read_bytes()),
        mmap_mode='r' if local else None,
      )
  except npz.DAMAGED as e:
    if not re.search('pickle|Python objects', str(e)):
      raise errors.InputError(f'{path}: not a whole .npy array: {e}') from e
  if not allow_pickle:
    raise errors.InputError(
      f'{path}: holds pickled objects, which can run any code when they are '
      'read; --allow-pickle reads them'
    )
  try:
    # latin1: W-TALC's files were written by Python 2.
    raw = io.BytesIO(path.read_bytes())
    return np.load(raw, allow_pickle=True, encoding='latin1')
  except Exception as e:  # what runs any code can raise anything
    raise errors.InputError(f'{path}: cannot be unpickled: {e!r}') from e


def _check(array, where, *, allow_pickle=False, channels_first=False):
  """Return [T', D] numbers."""
  if allow_pickle and np.asarray(array).dtype.hasobject:
    try:
      array = np.array(np.asarray(array).tolist(), np.float32)
    except (TypeError, ValueError) as e:
      raise errors.InputError(f'{where}: no array of numbers: {e}') from e
  array = np.asarray(array)
  if array.ndim != 2 or array.dtype.kind not in 'fiu':
    raise errors.InputError(
      f"{where}: shape {array.shape} of {array.dtype}, expected numbers [T', D]"
    )
  return array.T if channels_first else array


def centre_times(count, *, stride, window, fps):
  """Return when the snippets of a sliding window are centred.

  Args:
    count: number of snippets T'.
    stride: frames from one snippet to the next.
    window: frames in a snippet.
    fps: frames per second.

  Returns:
    [T'] float64, seconds: (i·stride + window/2) / fps.
  """
  return (np.arange(count) * stride + 0.5 * window) / fps


def resample(features, num_snippets, positions=None):
  """Resample features linearly along time.

  Source snippet i sits at position i. Without `positions` both grids divide
  the same span into equal parts and meet at their parts' centres (OpenCV's
  INTER_LINEAR: half-pixel centres, no smoothing when shrinking), so T' = T is
  the identity. Beyond the first and last snippet the value stays (T' = 1
  repeats).

  Args:
    features: [T', D].
    num_snippets: T.
    positions: [T] source positions, fractions allowed, of the result's
      snippets; None for the centres described above.

  Returns:
    [T, D], of the floating type of `features` (float64 if it has none).

  Raises:
    errors.InputError: `features` is not [T', D] with T' ≥ 1.
  """
  features = np.asarray(features)
  if features.ndim != 2 or not len(features):
    raise errors.InputError(
      f"features have shape {features.shape}, expected [T', D] with T' ≥ 1"
    )
  if not np.issubdtype(features.dtype, np.floating):
    features = features.astype(np.float64)
  count = len(features)
  if positions is None:
    positions = (np.arange(num_snippets) + 0.5) * (count / num_snippets) - 0.5
  positions = np.asarray(positions, np.float64)
  if positions.shape != (num_snippets,):
    raise ValueError(f'positions {positions.shape}, expected {(num_snippets,)}')
  positions = np.clip(positions, 0, count - 1)
  left = positions.astype(np.int64)
  right = np.minimum(left + 1, count - 1)
  weight = (positions - left).astype(features.dtype)[:, None]
  return features[left] * (1 - weight) + features[right] * weight


def resample_times(features, times, duration, num_snippets):
  """Resample features on any time grid to T equal parts of the video.

  Args:
    features: [T', D].
    times: [T'] increasing, seconds: where the source snippets are centred
      (see `centre_times`).
    duration: seconds; the result's snippets are centred in T equal parts of
      [0, duration].
    num_snippets: T.

  Returns:
    [T, D], linear between centres, the edge value outside them.

  Raises:
    errors.InputError: as for `resample`; or `times` do not fit `features` or
      do not increase; or `duration` is not positive.
  """
  times = np.asarray(times, np.float64)
  if times.shape != np.shape(features)[:1]:
    raise errors.InputError(
      f'{times.shape} snippet times for features {np.shape(features)}'
    )
  if not np.all(np.diff(times) > 0):
    raise errors.InputError('snippet times do not increase')
  if not 0 < duration < np.inf:
    raise errors.InputError(f'duration is {duration} s, expected more than 0')
  wanted = (np.arange(num_snippets) + 0.5) * (duration / num_snippets)
  # np.interp refuses an empty grid; `resample` says what is wrong with it.
  positions = (
    np.interp(wanted, times, np.arange(len(times))) if len(times) else None
  )
  return resample(features, num_snippets, positions)
