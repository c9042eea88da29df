"""Features of many videos: folders of files, or one file of all."""

import collections
import functools
import re
from collections.abc import Callable, Iterable

import numpy as np
from etils import epath

from backtal_jax import errors
from backtal_jax.data import (
  annotation_formats,
  arrays,
  containers,
  feature_files,
  tables,
)

# {video: function that returns its streams, matrices either way round}.
Opened = dict[str, Callable[[], list[np.ndarray]]]
_STREAMS = ('rgb', 'flow')


def open_features(
  paths: Iterable[epath.Path],
  *,
  names: epath.Path | None = None,
  allow_pickle: bool = False,
) -> Opened:
  """List the videos that there are features of.

  Args:
    paths: One or two streams (RGB, flow), each a folder or one file with all
      videos: an .npy (W-TALC), or one of containers.py. A folder holds NAME.npy
      of every video, or other feature files, or folders of splits with these;
      files in folders `rgb` and `flow`, at any level, or called NAME_rgb and
      NAME_flow, are two streams.
    names: Path of such an .npy's videos' names, an .npy in the same order.
    allow_pickle: See feature_files.read.

  Returns:
    What reads each video.

  Raises:
    errors.InputError: Nothing there, a video twice or in one stream only.
  """
  streams = []  # (what errors call it, {video: function})
  for path in paths:
    if path.is_dir():
      if names is not None:
        raise errors.InputError(
          f'{path}: a folder, whose files are named like their videos; '
          'expected no --video_names'
        )
      for name, stream in _list(path, allow_pickle).items():
        streams.append((f'{path}/{name}' if name else path, stream))
    else:
      streams.append((path, _open_joint(path, names, allow_pickle)))
  everywhere = set().union(*(stream for _, stream in streams))
  if not everywhere:
    raise errors.InputError(f'{streams[0][0]}: no video in it')
  for where, stream in streams:
    for name in sorted(everywhere - stream.keys()):
      raise errors.InputError(f'{where}: video {name!r} is only in the other')
  read = lambda name: [x for _, stream in streams for x in stream[name]()]
  return {name: functools.partial(read, name) for name in sorted(everywhere)}


def _list(path, allow_pickle):
  """Return {'' or 'rgb', 'flow': {video: function}} of a folder."""
  found = collections.defaultdict(dict)
  listed = [
    file
    for file in annotation_formats.files_of(path)
    if file.suffix in feature_files.SUFFIXES and file.name[0] != '.'
  ]
  if not listed:
    expected = ', '.join(feature_files.SUFFIXES)
    raise errors.InputError(f'{path}: no feature file in it ({expected})')
  stems = {file.stem.casefold() for file in listed}
  read = lambda file: feature_files.read(file, allow_pickle=allow_pickle)
  for file in listed:
    above = [part.casefold() for part in file.relative_to(path).parts[:-1]]
    stream, name = next((s for s in _STREAMS if s in above), ''), file.stem
    ending = re.fullmatch('(.+[_-])(rgb|flow)', name, re.IGNORECASE)
    # NAME_rgb is a stream if there is NAME_flow, too; else it is a name.
    if ending and {(ending[1] + s).casefold() for s in _STREAMS} <= stems:
      stream, name = ending[2].casefold(), ending[1][:-1]
    if name in found[stream]:
      raise errors.InputError(f'{path}: duplicate video {name!r}')
    found[stream][name] = lambda file=file: read(file).streams
  if '' in found and len(found) > 1:
    raise errors.InputError(
      f'{path}: video {next(iter(found[""]))!r} is in no folder rgb or flow, '
      'others are'
    )
  return dict(sorted(found.items(), reverse=True))


def _open_joint(path, names, allow_pickle):
  """Return {video: function} of a file of all videos."""
  if not path.exists():
    raise errors.InputError(f'{path}: no such folder or file')
  if containers.kind(path):
    if names is not None:
      raise errors.InputError(f'{path}: names its videos; no --video_names')
    choose = lambda name, one: feature_files.choose(one(), f'{path}: {name}')
    return {
      name: lambda name=name, one=one: choose(name, one).streams
      for name, one in containers.videos(path).items()
    }
  # A W-TALC file, which is read as a whole.
  if names is None:
    raise errors.InputError(
      f'{path}: no folder; one file of all videos needs --video_names'
    )
  joint = feature_files.load(path, allow_pickle)
  if not np.ndim(joint):
    raise errors.InputError(
      f'{path}: one object, expected an array with one of each video'
    )
  listed = feature_files.load(names, allow_pickle).ravel().tolist()
  # W-TALC writes the names as bytes.
  keys = [n.decode() if isinstance(n, bytes) else str(n) for n in listed]
  if len(keys) != len(joint):
    raise errors.InputError(
      f'{path}: {len(joint)} videos, but {names} has {len(keys)} names'
    )
  if name := tables.repeated(keys):
    raise errors.InputError(f'{names}: duplicate video {name!r}')
  read = lambda name, array: [
    arrays.matrix(array, f'{path}: {name}', allow_pickle)
  ]
  return {
    name: functools.partial(read, name, array)
    for name, array in zip(keys, joint, strict=True)
  }
