"""Features of many videos: folders of files, or one file of all."""

import functools

import numpy as np

from backtal_jax import errors, files
from backtal_jax.data import arrays, feature_files


def open_features(paths, *, names=None, allow_pickle=False) -> dict:
  """List the videos that there are features of.

  Args:
    paths: One or two streams (RGB, flow), each a folder with NAME.npy or
      NAME.npz of every video, or one .npy with all videos (W-TALC).
    names: Path of such an .npy's videos' names, an .npy in the same order.
    allow_pickle: See feature_files.read.

  Returns:
    {video: function that returns its streams, a list of matrices, either way
    round}.

  Raises:
    errors.InputError: nothing there, a video twice or in one stream only.
  """
  streams = [_open_stream(files.path(p), names, allow_pickle) for p in paths]
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
  return [stream for function in functions for stream in function()]


def _open_stream(path, names, allow_pickle):
  if not path.is_dir():
    return _open_joint(path, names, allow_pickle)
  found = {}
  for file in feature_files.find(path):
    if file.stem in found:
      raise errors.InputError(f'{path}: duplicate video {file.stem!r}')
    found[file.stem] = functools.partial(_read, file, allow_pickle)
  return found


def _read(path, allow_pickle):
  return feature_files.read(path, allow_pickle=allow_pickle).streams


def _open_joint(path, names, allow_pickle):
  """Return the functions of a W-TALC file, which is read as a whole."""
  if not path.exists():
    raise errors.InputError(f'{path}: no such folder or file')
  if names is None:
    raise errors.InputError(
      f'{path}: no folder; one file of all videos needs --video_names'
    )
  joint = feature_files.load(path, allow_pickle)
  if not np.ndim(joint):
    raise errors.InputError(
      f'{path}: one object, expected an array with one of each video'
    )
  # W-TALC writes the names as bytes.
  keys = [
    n.decode() if isinstance(n, bytes) else str(n)
    for n in feature_files.load(files.path(names), allow_pickle)
    .ravel()
    .tolist()
  ]
  if len(keys) != len(joint):
    raise errors.InputError(
      f'{path}: {len(joint)} videos, but {names} has {len(keys)} names'
    )
  for name in (k for k in keys if keys.count(k) > 1):
    raise errors.InputError(f'{names}: duplicate video {name!r}')
  return {
    name: functools.partial(_matrices, array, f'{path}: {name}', allow_pickle)
    for name, array in zip(keys, joint, strict=True)
  }


def _matrices(array, where, allow_pickle):
  return [arrays.matrix(array, where, allow_pickle)]
