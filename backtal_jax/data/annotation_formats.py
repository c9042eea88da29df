"""Text and JSON files of annotations, down to plain values.

What the values mean is up to `annotations`; the formats are those of
formats.md. Those of clicks stand in `click_formats`, tables in `tables`.
"""

import math
import re
import reprlib
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import tables

_NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?', re.ASCII | re.I)
_CLOCK = re.compile(r'(?:(\d+):)?(\d+):([0-5]?\d(?:[.,]\d*)?)', re.ASCII)


LABEL_COLUMNS = 'video_id', 'subset', 'label', 'duration', 'fps'


class VideoTimes(NamedTuple):
  """What videos.csv, or a ground truth, tells of a video.

  Attributes:
    duration: Seconds, of its pictures; None where not told.
    fps: Frames a second; None where not told.
    first_picture: Seconds on the players' clock at which the first picture
      stands. All of our times are counted from that picture on: what is
      written for a player adds it, what was read from one subtracts it.
  """

  duration: float | None = None
  fps: float | None = None
  first_picture: float = 0.0


# By the name of the video.
Times = Mapping[str, VideoTimes]
# A video of ground truth: name, subset ('' if not told), times, segments.
Row = tuple[str, str, VideoTimes, list[tuple[float, float, str]]]


def number(
  value: object, what: str, expected: str = 'a finite number'
) -> float:
  """Return a finite float of a JSON number or of a text, `what` in errors."""
  value = _only(value)
  if is_number(value):
    try:
      result = float(value)
    except OverflowError:
      result = math.inf
    if math.isfinite(result):
      return result
  raise errors.InputError(f'{what} is {_show(value)}, expected {expected}')


def seconds(value: object, what: str) -> float:
  """Return seconds of a number, or of a text like 1:02:03.5 or 2:03.5."""
  if isinstance(value, str) and (
    found := _CLOCK.fullmatch(value.strip(tables.EDGES))
  ):
    hours, minutes, rest = found.groups()
    whole = 60 * int(hours or 0) + int(minutes)
    return 60 * whole + float(rest.replace(',', '.'))
  return number(value, what, 'seconds, as a finite number or h:mm:ss')


def rate(value: object, what: str = 'fps') -> float:
  """Return frames a second of a number, or of a text like 30000/1001."""
  if isinstance(value, str) and value.count('/') == 1:
    above, below = (number(x, what) for x in value.split('/'))
    if below:
      return number(above / below, what)
  return number(value, what)


def is_number(value: object) -> TypeGuard[int | float | str]:
  """Return whether a value is a number or a text that says one."""
  if isinstance(value, str):
    return bool(_NUMBER.fullmatch(value.strip(tables.EDGES)))
  return isinstance(value, int | float) and not isinstance(value, bool)


def _name(value: object, what: str) -> str:
  """Return a text that is not empty and can be written as UTF-8 again."""
  value = _only(value)
  try:
    if isinstance(value, str) and value.encode():
      return value
  except UnicodeEncodeError:
    pass
  raise errors.InputError(f'{what} is {_show(value)}, expected a name')


def class_name(value: object, what: str = 'the label') -> str:
  """Return a class name: the one spelling of letters with accents, NFC.

  A number of a class is its name; blanks around are none of it, as in tables.
  """
  value = _only(value)
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  if isinstance(value, str):
    value = value.strip(tables.EDGES)
  return unicodedata.normalize('NFC', _name(value, what))


def _only(value: object) -> object:
  """Return what a list of one element holds, else the value itself."""
  return value[0] if isinstance(value, list) and len(value) == 1 else value


def _show(value: object) -> str:
  return 'missing' if value is None else reprlib.repr(value)


def listed(value: object) -> list[Any]:
  """Return the annotations of a video if they are a list."""
  if not isinstance(value, list):
    raise errors.InputError(f'found {_show(value)}, expected a list')
  return value


def results(data: object, where: object) -> dict[str, Any]:
  """Return {video: its annotations} of a file of predictions, `where` it is."""
  found = data.get('results') if isinstance(data, dict) else None
  if not isinstance(found, dict):
    raise errors.InputError(f'{where}: no object "results", expected one')
  return found


def read_segment(item: object) -> tuple[float, float, str]:
  """Return start and end in seconds and the label of an annotation.

  That is {'label', 'segment': [start, end]}, also of predictions.

  Raises:
    errors.InputError: Something is missing or wrong, without the place.
  """
  told = item if isinstance(item, dict) else {}
  bounds = told.get('segment')
  if not isinstance(bounds, list) or len(bounds) != 2:
    raise errors.InputError(
      f'annotation {reprlib.repr(item)}, expected a label and a segment of '
      'start and end'
    )
  start, end = (number(bound, 'a bound') for bound in bounds)
  return start, end, class_name(told.get('label'))


def read_activitynet(path: epath.Path) -> tuple[list[Row], tuple[str, ...]]:
  """Read ActivityNet's JSON: also BackTAL's, HACS's, LACP's and mmaction2's.

  Returns:
    The videos, and the classes, see `_class_order`.
  """
  data = files.read_json(path)
  rows, used, subsets = [], {}, {}
  for video, entry in _database(path, data):
    try:
      subset, times, items = _database_entry(entry)
      segments = [read_segment(item) for item in items]
      rows.append((_name(video, 'the name'), subset, times, segments))
      for item, (_, _, label) in zip(items, segments, strict=True):
        used.setdefault((label, _index(item.get('idx'))), video)
    except errors.InputError as e:
      raise errors.InputError(f'{path}: video {video!r}: {e}') from e
    subsets.setdefault(bool(subset), video)
    if len(subsets) > 1:
      raise errors.InputError(
        f'{path}: video {subsets[False]!r}: no subset, but video '
        f'{subsets[True]!r} tells one'
      )
  if name := tables.repeated([name for name, *_ in rows]):
    raise errors.InputError(f'{path}: duplicate video {name!r}')
  classes = data.get('activity_list') if isinstance(data, dict) else None
  return rows, _class_order(path, used, classes)


def is_ground_truth(data: Any) -> bool:
  """Return whether JSON is ActivityNet's, or of one of its relatives."""
  if isinstance(data, dict) and 'database' in data:
    return True
  # Tasks of Label Studio have annotations, too.
  return any(
    isinstance(entry, dict) and 'annotations' in entry and 'data' not in entry
    for entry in (data.values() if isinstance(data, dict) else data)
  )


def _database(path, data):
  """Return (video, entry) pairs of an object or a list, bare or "database"."""
  database = data.get('database') if isinstance(data, dict) else data
  if isinstance(data, dict) and 'database' not in data:
    bare = {k: v for k, v in data.items() if k != 'activity_list'}
    database = bare if is_ground_truth(bare) else None
  if isinstance(database, dict):
    return list(database.items())
  if isinstance(database, list) and database:
    return [(_name_in(entry), entry) for entry in database]
  raise errors.InputError(
    f'{path}: no object "database" in it nor videos with "annotations", '
    "expected ActivityNet's format"
  )


def _name_in(entry):
  """Return the name of a video in a list, None where there is none."""
  keys = ('video_id', 'video_name', 'video', 'name', 'id')
  entry = entry if isinstance(entry, dict) else {}
  return next((entry[key] for key in keys if key in entry), None)


def _database_entry(entry: object) -> tuple[str, VideoTimes, list[Any]]:
  """Return subset, times and annotations of one video."""
  if not isinstance(entry, dict):
    raise errors.InputError(f'found {_show(entry)}, expected an object')
  is_bare = entry.get('subset') is None and 'annotations' in entry
  subset = '' if is_bare else _name(entry.get('subset'), 'subset')
  told = {'duration': entry.get('duration_second')} | entry
  times = {
    key: (rate if key == 'fps' else number)(told[key], key)
    for key in VideoTimes._fields
    if told.get(key) is not None
  }
  items = entry.get('annotations')
  return subset, VideoTimes(**times), [] if items is None else listed(items)


def _index(value):
  """Return the class index of an annotation, None where there is none."""
  if value is None:
    return None
  index = number(value, 'idx')
  if index < 0 or index % 1:
    raise errors.InputError(
      f'idx is {_show(value)}, expected a whole number, 0 or more'
    )
  return int(index)


def _class_order(path, used, classes):
  """Return the class names in the order of their indices.

  These are the `classes` of activity_list; without one, the labels by their
  idx; without these, the sorted labels. `used` is {(label, idx or None): a
  video}.
  """
  told = {label: idx for label, idx in reversed(used) if idx is not None}
  if classes is None and not told:
    return tuple(sorted({label for label, _ in used}))
  index = told if classes is None else _listed_classes(path, classes)
  owner = {idx: label for label, idx in reversed(index.items())}
  for (label, idx), video in used.items():
    where = f'{path}: video {video!r}: class {label!r}'
    if label not in index:
      raise errors.InputError(
        f'{where} has no idx, others have'
        if classes is None
        else f'{where} is not in activity_list'
      )
    if idx not in (None, index[label]):
      place = 'elsewhere' if classes is None else 'in activity_list'
      raise errors.InputError(
        f'{where} has idx {idx}, {place} it has {index[label]}'
      )
    if owner[index[label]] != label:
      raise errors.InputError(
        f'{where} has idx {index[label]}, as {owner[index[label]]!r} has'
      )
  for idx in range(len(owner)):
    if idx not in owner:
      raise errors.InputError(
        f'{path}: no class has idx {idx}, the highest is {max(owner)}'
      )
  return tuple(owner[idx] for idx in range(len(owner)))


def _listed_classes(path: epath.Path, value: object) -> dict[str, int]:
  """Return {class: index} of an activity_list."""
  if not isinstance(value, list):
    raise errors.InputError(f'{path}: activity_list is not a list of names')
  names = [class_name(v, f'{path}: a class of activity_list') for v in value]
  if name := tables.repeated(names):
    raise errors.InputError(f'{path}: class {name!r} twice in activity_list')
  return {name: i for i, name in enumerate(names)}


def files_of(path: epath.Path) -> list[epath.Path]:
  """List the files in a folder and its folders; a file is all of itself."""
  found, folders = [], [path]
  for _ in range(4):  # the official archives nest three deep
    there = sorted(p for folder in folders for p in files.listed(folder, ''))
    found += [p for p in there if p.is_file()]
    folders = [p for p in there if p.is_dir()]
  return found or [path]


def read_thumos14(path: epath.Path) -> tuple[list[Row], tuple[str, ...]]:
  """Read the official THUMOS14 text files, `video start end` a line.

  The path is a folder of CLASS_val.txt and CLASS_test.txt, in folders of their
  own or not, or one such file. Ambiguous_*.txt is left out.

  Returns:
    As `read_activitynet`; the classes are sorted, no times are told.
  """
  texts = {}
  for file in files_of(path):
    parts = re.fullmatch(r'(.+)_(val|test)\.txt', file.name)
    if not parts or parts[1] == 'Ambiguous':
      continue
    key = class_name(parts[1]), parts[2]
    if key in texts:
      raise errors.InputError(f'{path}: two files of the name {file.name}')
    texts[key] = file
  if not texts:
    raise errors.InputError(
      f'{path}: no CLASS_val.txt or CLASS_test.txt, expected the official '
      'THUMOS14 annotation files'
    )
  videos = {}
  for (name, subset), file in sorted(texts.items()):
    for line, text in enumerate(files.read_text(file).split('\n'), 1):
      video, *bounds = text.strip(tables.EDGES).split() or ['']
      where = f'{file}:{line}'
      if not video:
        continue
      if len(bounds) != 2:
        raise errors.InputError(
          f'{where}: {text[:80]!r}, expected `video start end`'
        )
      first, segments = videos.setdefault(video, (subset, []))
      if first != subset:
        raise errors.InputError(f'{where}: video {video!r} is in val and test')
      start, end = (number(bound, f'{where}: a bound') for bound in bounds)
      segments.append((start, end, name))
  none = VideoTimes()
  rows = [(v, s, none, found) for v, (s, found) in sorted(videos.items())]
  return rows, tuple(sorted({name for name, _ in texts}))


def video_times(row: Mapping[str, str], where: str) -> VideoTimes:
  """Read the columns of a table that are fields of VideoTimes."""
  readers = {'duration': seconds, 'fps': rate, 'first_picture': number}
  return VideoTimes(**{
    key: read(row[key], f'{where}: {key}')
    for key, read in readers.items()
    if key in row
  })  # fmt: skip


def read_labels(path: epath.Path) -> list[tuple[str, dict[str, str]]]:
  """Read the rows of CSV `video_id,subset,label[,duration,fps]`.

  Returns:
    [('FILE:LINE', row)], a label '' of a video that has none.

  Raises:
    errors.InputError: Another header, or a row without video or subset.
  """
  rows = tables.read_table(path, LABEL_COLUMNS[:3], LABEL_COLUMNS[3:])
  for where, row in rows:
    if not row['video_id'] or not row['subset']:
      raise errors.InputError(f'{where}: no video or no subset, expected both')
    row['label'] = row['label'] and class_name(row['label'])
  return rows


def read_video_list(path: epath.Path) -> dict[str, VideoTimes]:
  """Read CSV `video_id,duration[,fps][,first_picture]`.

  Raises:
    errors.InputError: Another header, no number, or a video twice.
  """
  told = {}
  optional = 'fps', 'first_picture'
  for where, row in tables.read_table(path, ('video_id', 'duration'), optional):
    if row['video_id'] in told:
      raise errors.InputError(f'{where}: duplicate video {row["video_id"]!r}')
    told[row['video_id']] = video_times(row, where)
  return told
