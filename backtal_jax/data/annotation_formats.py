"""Text, CSV and JSON files of annotations, down to plain values.

What the values mean is up to `annotations`; the formats are those of
formats.md.
"""

import collections
import csv
import io
import json
import math
import re
import string

from backtal_jax import errors

# Of each click format with a header: where video, time, label and perhaps
# annotator stand. `frames` is LACP's and HR-Pro's; its columns of ground-truth
# boundaries are never looked at.
CLICK_COLUMNS = {
  'csv': ('video_id', 'time', 'label', 'annotator'),
  'backtal': ('urlid', 'start', 'tag'),
  'frames': ('video_id', 'point', 'class'),
  'aapl': ('video_id', 'timestamp', 'action_label'),
}
CLICK_FORMATS = (*CLICK_COLUMNS, 'sfnet')
_NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?', re.ASCII | re.I)
_EDGES = string.whitespace + '\ufeff\xa0'  # Byte-order marks, hard spaces.


def check_format(format, formats):
  """Raise InputError unless the format is one of these, or empty."""
  if format and format not in formats:
    raise errors.InputError(
      f'format is {format!r}, expected one of {", ".join(formats)}'
    )


def number(value, what) -> float:
  """Return a finite float of a JSON number or of a text.

  Args:
    value: anything.
    what: names it in the error.
  """
  text = isinstance(value, str) and _NUMBER.fullmatch(value.strip(_EDGES))
  if text or (isinstance(value, int | float) and not isinstance(value, bool)):
    try:
      result = float(value)
    except OverflowError:
      result = math.inf
    if math.isfinite(result):
      return result
  raise errors.InputError(
    f'{what} is {str(value)[:50]!r}, expected a finite number'
  )


def name(value, what) -> str:
  """Return a text that is not empty and can be written as UTF-8 again.

  Args:
    value: anything.
    what: names it in the error.
  """
  try:
    if isinstance(value, str) and value.encode():
      return value
  except UnicodeEncodeError:
    pass
  raise errors.InputError(f'{what} is {str(value)[:50]!r}, expected a name')


def read_text(path) -> str:
  """Read UTF-8 text without its byte-order mark."""
  if not path.is_file():
    raise errors.InputError(f'{path}: no such file')
  try:
    return path.read_bytes().decode('utf-8-sig')
  except UnicodeDecodeError as e:
    raise errors.InputError(f'{path}: not UTF-8 text: {e}') from e


def read_object(path) -> dict:
  """Read a JSON file that holds an object; a key twice in it is an error."""

  def unique(pairs):
    counts = collections.Counter(key for key, _ in pairs)
    for key, count in counts.items():
      if count > 1:
        raise errors.InputError(f'{path}: duplicate key {key!r}')
    return dict(pairs)

  try:
    data = json.loads(read_text(path), object_pairs_hook=unique)
  except errors.InputError:
    raise
  except (ValueError, RecursionError) as e:
    raise errors.InputError(f'{path}: not JSON: {e}') from e
  if not isinstance(data, dict):
    raise errors.InputError(f'{path}: no JSON object, expected one')
  return data


def read_rows(path) -> list[tuple[int, list[str]]]:
  """Read CSV as (line number, cells); blank lines are left out."""
  reader = csv.reader(io.StringIO(read_text(path), newline=''), strict=True)
  rows, line = [], 1
  try:
    for cells in reader:
      cells = [cell.strip(_EDGES) for cell in cells]
      if any(cells):
        rows.append((line, cells))
      line = reader.line_num + 1
  except csv.Error as e:
    raise errors.InputError(f'{path}:{line}: not CSV: {e}') from e
  return rows


def read_clicks(path, format=''):
  """Read a click file of any format as text.

  Args:
    path: of the file.
    format: one of CLICK_FORMATS, else found from the header.

  Returns:
    The format; [(line number, (video, time, label, annotator or ''))]; and
    [(line number, complaint)] of the lines that cannot be read as that.

  Raises:
    errors.InputError: the file is of no known format, or of two.
  """
  check_format(format, CLICK_FORMATS)
  rows = read_rows(path)
  format, header, columns = _click_columns(path, rows, format)
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


def _click_columns(path, rows, format):
  """Return (format, header in lower case or None, columns to read)."""
  if not rows:
    raise errors.InputError(f'{path}: empty, expected clicks')
  line, cells = rows[0]
  header = _lower(cells)
  headless = len(cells) == 3 and _NUMBER.fullmatch(cells[1])
  found = format or _header_format(cells) or ('sfnet' if headless else '')
  if found == 'sfnet':
    return found, None, (0, 1, 2)
  # Tell what this header lacks of the one that is most like it.
  found = found or max(
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


def read_thumos14(path):
  """Read the official THUMOS14 text files, `video start end` a line.

  Args:
    path: a folder of CLASS_val.txt and CLASS_test.txt, in folders of their
      own or not, or one such file. Ambiguous_*.txt is left out.

  Returns:
    [(place for errors, class, subset, video, start, end)], times as text, by
    class and subset.
  """
  # epath has no recursive glob; the official archives nest three deep.
  depths = ('*' + '/*' * n for n in range(4)) if path.is_dir() else ()
  texts = {}
  for file in [f for d in depths for f in sorted(path.glob(d))] or [path]:
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
  rows = []
  for (label, subset), file in sorted(texts.items()):
    for line, text in enumerate(read_text(file).split('\n'), 1):
      cells = text.strip(_EDGES).split()
      if len(cells) not in (0, 3):
        raise errors.InputError(
          f'{file}:{line}: {text[:80]!r}, expected `video start end`'
        )
      if cells:
        rows.append((f'{file}:{line}', label, subset, *cells))
  return rows


def read_video_list(path) -> dict:
  """Read CSV `video_id,duration[,fps]` as {video: (seconds, fps or None)}."""
  rows = read_rows(path)
  header = _lower(rows[0][1]) if rows else []
  if header not in (['video_id', 'duration'], ['video_id', 'duration', 'fps']):
    raise errors.InputError(
      f'{path}: header {",".join(header)[:200]!r}, expected '
      'video_id,duration[,fps]'
    )
  told = {}
  for line, cells in rows[1:]:
    where = f'{path}:{line}'
    if len(cells) != len(header):
      raise errors.InputError(
        f'{where}: {len(cells)} columns, expected {len(header)}'
      )
    if cells[0] in told:
      raise errors.InputError(f'{where}: duplicate video {cells[0]!r}')
    duration = number(cells[1], f'{where}: duration')
    fps = number(cells[2], f'{where}: fps') if cells[2:] else None
    told[cells[0]] = duration, fps
  return told
