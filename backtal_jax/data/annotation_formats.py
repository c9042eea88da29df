"""Text, CSV and JSON files of annotations, down to plain values.

What the values mean is up to `annotations`; the formats are those of
formats.md.
"""

import csv
import functools
import io
import math
import re
import reprlib
import string
from collections.abc import Sequence
from typing import Any

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import click_tools

# Of each click format with a header: where video, time, label and perhaps
# annotator stand. `frames` is LACP's and HR-Pro's; its columns of ground-truth
# boundaries are never looked at.
CLICK_COLUMNS = {
  'csv': ('video_id', 'time', 'label', 'annotator'),
  'backtal': ('urlid', 'start', 'tag'),
  'frames': ('video_id', 'point', 'class'),
  'aapl': ('video_id', 'timestamp', 'action_label'),
}
CLICK_FORMATS = (*CLICK_COLUMNS, 'sfnet', 'via', 'labelstudio', 'boris', 'elan')
_NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?', re.ASCII | re.I)
_EDGES = string.whitespace + '\ufeff\xa0'  # Byte-order marks, hard spaces.


def number(value: Any, what: str) -> float:
  """Return a finite float of a JSON number or of a text.

  Args:
    value: Anything.
    what: Names it in the error.
  """
  value = _only(value)
  text = isinstance(value, str) and _NUMBER.fullmatch(value.strip(_EDGES))
  if text or (isinstance(value, int | float) and not isinstance(value, bool)):
    try:
      result = float(value)
    except OverflowError:
      result = math.inf
    if math.isfinite(result):
      return result
  raise errors.InputError(f'{what} is {_show(value)}, expected a finite number')


def _name(value, what) -> str:
  """Return a text that is not empty and can be written as UTF-8 again.

  Args:
    value: Anything.
    what: Names it in the error.
  """
  value = _only(value)
  try:
    if isinstance(value, str) and value.encode():
      return value
  except UnicodeEncodeError:
    pass
  raise errors.InputError(f'{what} is {_show(value)}, expected a name')


def _only(value):
  """Return what a list of one element holds, else the value itself."""
  return value[0] if isinstance(value, list) and len(value) == 1 else value


def _show(value):
  return 'missing' if value is None else reprlib.repr(value)


def _read_rows(path) -> list[tuple[int, list[str]]]:
  """Read CSV as (line number, cells); blank lines are left out."""
  return _split(path, files.read_text(path))


def _split(path, text, delimiter=','):
  """Split CSV as `_read_rows` does."""
  reader = csv.reader(
    io.StringIO(text, newline=''), delimiter=delimiter, strict=True
  )
  rows, line = [], 1
  try:
    for cells in reader:
      cells = [' '.join(re.split('[\r\n]+', c)).strip(_EDGES) for c in cells]
      if any(cells):
        rows.append((line, cells))
      line = reader.line_num + 1
  except csv.Error as e:
    raise errors.InputError(f'{path}:{line}: not CSV: {e}') from e
  return rows


def read_clicks(path: epath.PathLike) -> tuple:
  """Read a click file of any format as text.

  Args:
    path: Path of the file; the format is found from its content.

  Returns:
    The format; [(line number, (video, time, label, annotator or ''))], of
    annotation tools perhaps (start, end) as the time; and
    [(line number, complaint)] of the lines that cannot be read as that.

  Raises:
    errors.InputError: The file is of no known format, or of two.
  """
  text = files.read_text(path)
  if tool := click_tools.find(text):
    split = functools.partial(_split, path)
    return click_tools.read(tool, path, text, split)
  rows = _split(path, text)
  format, header, columns = _click_columns(path, rows)
  width = len(header or columns)
  clicks, complaints = [], []
  for line, cells in rows[1:] if header else rows:
    other = _header_format(cells)
    if other and _lower(cells) != header:
      raise errors.InputError(
        f'{path}:{line}: the header of {other} clicks in a file of {format} '
        'clicks; expected one format a file'
      )
    if other:
      complaints.append((line, 'the header again, expected a click'))
    elif len(cells) != width:
      text = f'{len(cells)} columns, expected {width} ({format} clicks)'
      complaints.append((line, text))
    else:
      clicks.append((line, ([cells[i] for i in columns] + [''])[:4]))
  return format, clicks, complaints


def _lower(cells):
  return [cell.casefold() for cell in cells]


def _header_format(cells):
  """Return the click format whose header this is, or None."""
  names = set(_lower(cells))
  return next((k for k, v in CLICK_COLUMNS.items() if names >= set(v)), None)


def _click_columns(path, rows):
  """Return (format, header in lower case or None, columns to read)."""
  if not rows:
    raise errors.InputError(f'{path}: empty, expected clicks')
  line, cells = rows[0]
  header = _lower(cells)
  headless = len(cells) == 3 and _NUMBER.fullmatch(cells[1])
  if headless:
    return 'sfnet', None, (0, 1, 2)
  # Say what this header lacks of the one that is most like it.
  found = _header_format(cells) or max(
    CLICK_COLUMNS, key=lambda k: len(set(header).intersection(CLICK_COLUMNS[k]))
  )
  missing = [c for c in CLICK_COLUMNS[found] if c not in header]
  if missing:
    raise errors.InputError(
      f'{path}:{line}: no column {", ".join(missing)} in '
      f'{",".join(cells)[:200]!r}, expected {",".join(CLICK_COLUMNS[found])} '
      f'or another format of {", ".join(CLICK_FORMATS)}'
    )
  return found, header, [header.index(c) for c in CLICK_COLUMNS[found]]


def read_activitynet(path: epath.PathLike) -> tuple:
  """Read ActivityNet's JSON: also BackTAL's, HACS's, LACP's and mmaction2's.

  Args:
    path: Path of the file.

  Returns:
    [(video, subset, duration, fps, [(start, end, label)])], duration in
    seconds and fps None where not told, subset '' where no video tells one;
    and the classes, see `_class_order`.
  """
  data = files.read_json(path)
  rows, used, subsets = [], {}, {}
  for video, entry in _database(path, data):
    try:
      *row, items = _database_entry(entry)
      segments = [read_segment(item) for item in items]
      rows.append((_name(video, 'the name'), *row, segments))
      for item in items:
        used.setdefault((item['label'], _index(item.get('idx'))), video)
    except errors.InputError as e:
      raise errors.InputError(f'{path}: video {video!r}: {e}') from e
    subsets.setdefault(bool(row[0]), video)
    if len(subsets) > 1:
      raise errors.InputError(
        f'{path}: video {subsets[False]!r}: no subset, but video '
        f'{subsets[True]!r} tells one'
      )
  names = [name for name, *_ in rows]
  if len(names) > len({*names}):
    twice = next(name for name in names if names.count(name) > 1)
    raise errors.InputError(f'{path}: duplicate video {twice!r}')
  listed = data.get('activity_list') if isinstance(data, dict) else None
  return rows, _class_order(path, used, listed)


def _database(path, data):
  """Return (video, entry) pairs of an object or a list, bare or "database"."""
  is_object = isinstance(data, dict)
  database = data.get('database') if is_object else data
  if is_object and 'database' not in data:
    database = {k: v for k, v in data.items() if k != 'activity_list'}
    is_entry = lambda v: isinstance(v, dict) and 'annotations' in v
    if not any(map(is_entry, database.values())):
      database = None
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


def _database_entry(entry):
  """Return (subset, duration, fps, annotations) of one video."""
  if not isinstance(entry, dict):
    raise errors.InputError(f'found {_show(entry)}, expected an object')
  is_bare = entry.get('subset') is None and 'annotations' in entry
  subset = '' if is_bare else _name(entry.get('subset'), 'subset')
  duration = entry.get('duration', entry.get('duration_second'))
  duration, fps = (
    None if value is None else number(value, what)
    for what, value in (('duration', duration), ('fps', entry.get('fps')))
  )
  annotated = entry.get('annotations')
  return subset, duration, fps, [] if annotated is None else listed(annotated)


def _index(value):
  """Return the class index of an annotation, None where there is none."""
  index = None if value is None else number(value, 'idx')
  if index is not None and (index < 0 or index % 1):
    raise errors.InputError(
      f'idx is {_show(value)}, expected a whole number, 0 or more'
    )
  return index if index is None else int(index)


def _class_order(path, used, listed):
  """Return the class names in the order of their indices.

  Args:
    path: What errors name.
    used: {(label, idx or None): a video} of all annotations.
    listed: activity_list or None.

  Returns:
    activity_list; without one, the labels by their idx; without these, the
    sorted labels.

  Raises:
    errors.InputError: Names and indices contradict each other.
  """
  if listed is None and all(idx is None for _, idx in used):
    return tuple(sorted({label for label, _ in used}))
  index, is_listed = {}, listed is not None
  if is_listed:
    index = _listed_classes(path, listed)
  for (label, idx), video in used.items():
    where = f'{path}: video {video!r}: class {label!r}'
    if is_listed and label not in index:
      raise errors.InputError(f'{where} is not in activity_list')
    if idx is not None and index.setdefault(label, idx) != idx:
      place = 'in activity_list' if is_listed else 'elsewhere'
      raise errors.InputError(
        f'{where} has idx {idx}, {place} it has {index[label]}'
      )
  owner = {idx: label for label, idx in index.items()}
  for (label, _), video in used.items():
    where = f'{path}: video {video!r}: class {label!r}'
    if label not in index:
      raise errors.InputError(f'{where} has no idx, others have')
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


def _listed_classes(path, value) -> dict[str, int]:
  """Return {class: index} of an activity_list."""
  if not isinstance(value, list):
    raise errors.InputError(f'{path}: activity_list is not a list of names')
  index = {}
  for name in value:
    name = _name(name, f'{path}: a class of activity_list')
    if name in index:
      raise errors.InputError(f'{path}: class {name!r} twice in activity_list')
    index[name] = len(index)
  return index


def listed(value: Any) -> list:
  """Return the annotations of a video if they are a list."""
  if not isinstance(value, list):
    raise errors.InputError(f'found {_show(value)}, expected a list')
  return value


def read_segment(item: Any) -> tuple[float, float, str]:
  """Return start and end in seconds and the label of an annotation.

  Args:
    item: {'label', 'segment': [start, end]}, also of predictions.

  Raises:
    errors.InputError: Something is missing or wrong, without the place.
  """
  bounds = item.get('segment') if isinstance(item, dict) else None
  if not isinstance(bounds, list) or len(bounds) != 2:
    raise errors.InputError(
      f'annotation {reprlib.repr(item)}, expected a label and a segment of '
      'start and end'
    )
  start, end = (number(bound, 'a bound') for bound in bounds)
  return start, end, _name(item.get('label'), 'the label')


def files_of(path: epath.PathLike) -> list:
  """List the files in a folder and its folders; a file is all of itself."""
  # epath has no recursive glob; the official archives nest three deep.
  depths = ('*' + '/*' * n for n in range(4)) if path.is_dir() else ()
  found = [f for d in depths for f in sorted(path.glob(d)) if f.is_file()]
  return found or [path]


def read_thumos14(path: epath.PathLike) -> tuple[list[tuple], tuple[str, ...]]:
  """Read the official THUMOS14 text files, `video start end` a line.

  Args:
    path: A folder of CLASS_val.txt and CLASS_test.txt, in folders of their
      own or not, or one such file. Ambiguous_*.txt is left out.

  Returns:
    [(video, subset, start, end, class)] in seconds, and the sorted classes.
  """
  texts = {}
  for file in files_of(path):
    parts = re.fullmatch(r'(.+)_(val|test)\.txt', file.name)
    if not parts or parts[1] == 'Ambiguous':
      continue
    if parts.groups() in texts:
      raise errors.InputError(f'{path}: two files of the name {file.name}')
    texts[parts.groups()] = file
  if not texts:
    raise errors.InputError(
      f'{path}: no CLASS_val.txt or CLASS_test.txt, expected the official '
      'THUMOS14 annotation files'
    )
  rows, subsets = [], {}
  for (label, subset), file in sorted(texts.items()):
    for line, text in enumerate(files.read_text(file).split('\n'), 1):
      video, *bounds = text.strip(_EDGES).split() or ['']
      where = f'{file}:{line}'
      if video and len(bounds) != 2:
        raise errors.InputError(
          f'{where}: {text[:80]!r}, expected `video start end`'
        )
      if video and subsets.setdefault(video, subset) != subset:
        raise errors.InputError(f'{where}: video {video!r} is in val and test')
      if video:
        start, end = (number(bound, f'{where}: a bound') for bound in bounds)
        rows.append((video, subset, start, end, label))
  return rows, tuple(sorted({label for label, _ in texts}))


def read_table(
  path: epath.PathLike, required: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[str, dict[str, str]]]:
  """Read CSV whose header names its columns, in any order.

  Args:
    path: Path of the file.
    required: Columns it must have.
    optional: Columns it may have; others are an error.

  Returns:
    [('FILE:LINE', {column: cell})].
  """
  rows = _read_rows(path)
  header = _lower(rows[0][1]) if rows else []
  known = {*required, *optional}
  if not set(required) <= set(header) <= known or len(set(header)) < len(
    header
  ):
    optional = ''.join(f'[,{column}]' for column in optional)
    raise errors.InputError(
      f'{path}: header {",".join(header)[:200]!r}, expected '
      f'{",".join(required)}{optional}'
    )
  table = []
  for line, cells in rows[1:]:
    if len(cells) != len(header):
      raise errors.InputError(
        f'{path}:{line}: {len(cells)} columns, expected {len(header)}'
      )
    table.append((f'{path}:{line}', dict(zip(header, cells, strict=True))))
  return table


def read_video_list(path: epath.PathLike) -> dict:
  """Read CSV `video_id,duration[,fps]` as {video: (seconds, fps or None)}."""
  told = {}
  for where, row in read_table(path, ('video_id', 'duration'), ('fps',)):
    if row['video_id'] in told:
      raise errors.InputError(f'{where}: duplicate video {row["video_id"]!r}')
    told[row['video_id']] = tuple(
      number(row[key], f'{where}: {key}') if key in row else None
      for key in ('duration', 'fps')
    )
  return told
