"""How features were made: what must be equal for two to be comparable.

features.json is written beside extracted features (video/extract) and goes
along to the data root, into the config of a run and so to its checkpoints.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from backtal_jax import errors, fields, files
from backtal_jax.data import annotation_formats, arrays, resampling

NAME = 'features.json'
_OF_FLOW = 'flow', 'flow_by'
VIDEOS = 'videos.csv'  # annotation_formats.VideoTimes; fps of the video


# What features.json holds.
Record = dict[str, Any]


class Grid(NamedTuple):
  """Where the snippets of a video lie in time."""

  duration: float  # seconds, of the video
  fps: float  # frames a second
  window: float  # frames of a snippet
  stride: float  # frames from one snippet to the next

  def times(self, count: int) -> np.ndarray:
    """Return when the first `count` snippets are centred, in seconds."""
    return (np.arange(count) * self.stride + 0.5 * self.window) / self.fps

  def resample(self, features: np.ndarray, num_snippets: int) -> np.ndarray:
    """Resample features [T', D], linearly, to T equal parts of the video."""
    wanted = (np.arange(num_snippets) + 0.5) * (self.duration / num_snippets)
    places, times = np.arange(len(features)), self.times(len(features))
    return resampling.interpolate(features, np.interp(wanted, times, places))


def read_grid(path: epath.Path) -> Grid | None:
  """Return the grid of VIDEO.npy, if its folder was made by `prepare video`.

  Raises:
    errors.InputError: The folder's videos.csv lacks the video.
  """
  record, table = read(path.parent), path.parent / VIDEOS
  if path.suffix != '.npy' or not record:
    return None
  rows = _read_videos(table, files.modified(table))
  times = rows.get(path.stem, annotation_formats.VideoTimes())
  fps = record['fps'] or times.fps
  if times.duration is None or fps is None:
    raise errors.InputError(
      f'{table}: no video {path.stem!r} with its duration and fps'
    )
  return Grid(times.duration, fps, record['window'], record['stride'])


@functools.lru_cache(8)
def _read_videos(path, _):
  """Read videos.csv, again where it has changed."""
  return annotation_formats.read_video_list(path)


def read_joint(folders: Sequence[epath.Path]) -> Record:
  """Return one record of the folders of one or two streams.

  Raises:
    errors.InputError: Two folders have other grids, or only one has a record.
  """
  first, *others = (read(folder) for folder in folders)
  grid = lambda record: {
    k: v for k, v in record.items() if k not in ('weights', *_OF_FLOW)
  }
  for folder, other in zip(folders[1:], others, strict=True):
    if grid(first) != grid(other):
      raise errors.InputError(
        f'{folder}: features made otherwise than those of {folders[0]}: '
        f'{grid(other) or "no"} {NAME}, expected {grid(first) or "none"}'
      )
    if first:
      first['weights'] |= other['weights']
      first |= {
        k: other[k] for k in _OF_FLOW if not first.get(k) and k in other
      }
  return first


def read(folder: epath.Path) -> Record:
  """Return the record of a folder, {} where it has none.

  Raises:
    errors.InputError: It is none, or its grid is no numbers.
  """
  path = folder / NAME
  found = files.read_json(path) if path.is_file() else {}
  if not isinstance(found, dict):
    raise errors.InputError(
      f'{path}: no record of features, expected an object'
    )
  for key in ('fps', 'window', 'stride') if found else ():
    value = found.get(key)
    if value is None and key == 'fps':  # each video's own
      continue
    if not 0 < arrays.number(value) < np.inf:
      raise errors.InputError(
        f'{path}: {key} is {value!r}, expected a number of more than 0'
      )
  return found


def claim(folder: epath.Path, record: Record) -> None:
  """Make a folder one of features with this record.

  Raises:
    errors.InputError: It holds features that were made otherwise.
  """
  path = folder / NAME
  if path.exists():
    require(record, files.read_json(path), path)
  else:
    files.write_json(path, record, indent=1)


def adopt(text: str, root: epath.Path) -> str:
  """Return config.data.features: the record of config.data.root, if it has one.

  Raises:
    errors.InputError: The config says something else of its features.
  """
  found = read(root)
  require(_from_text(text), found, root / NAME)
  return to_text(found) or text


def to_text(record: Record) -> str:
  """Return what config.data.features holds."""
  return json.dumps(record, sort_keys=True) if record else ''


def of_run(text: str, workdir: epath.Path | None) -> Record:
  """Return what config.data.features and a run's folder, if any, know of it.

  Raises:
    errors.InputError: The run knows something else than the config, or its
      own config is none.
  """
  record = _from_text(text)
  if workdir is None or not (workdir / 'config.json').is_file():
    return record
  known = fields.read_saved(workdir / 'config.json')['data'].get('features')
  require(_from_text(known), record, f'config.data.features ({workdir})')
  return _from_text(known) or record


def _from_text(text):
  return files.parse_json(text, 'config.data.features') if text else {}


def require(expected: Record, found: Record, where: object) -> None:
  """Refuse features that were made otherwise than expected.

  Weights are told apart by their checksum, not by their file's name, flow by
  its values, not by the program (`flow_by`, which old records lack); a record
  {} is known of no features, and fits all.

  Raises:
    errors.InputError: Names `where` the features are and every field that
      differs, with both values.
  """
  if not expected or not found:
    return
  a, b = (
    {**r, 'flow_method': r.get('flow'), 'flow': None, **r.get('weights', {})}
    for r in (expected, found)
  )
  different = [
    f'{key} is {_shown(b.get(key))}, expected {_shown(a.get(key))}'
    for key in sorted({*a, *b} - {'weights', 'flow_by'})
    if _identity(a.get(key)) != _identity(b.get(key))
  ]
  if different:
    raise errors.InputError(
      f'{where}: features made otherwise: {"; ".join(different)}'
    )


def _identity(value):
  return value['sha256'] if isinstance(value, dict) else value


def _shown(value):
  if isinstance(value, dict):
    return f'{value["file"]} ({value["sha256"][:12]}…)'
  return 'none' if value is None else value
