"""Click files of any format, down to plain values.

What the values mean is up to `annotations`; the formats are those of
formats.md. Those that annotation tools write stand in `click_tools`.
"""

import sys
from collections.abc import Sequence

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import click_tools, marks, tables

# Of each format with a header: where video, time and label stand. `frames` is
# LACP's and HR-Pro's; its columns of ground-truth boundaries are never looked
# at.
COLUMNS = {
  'csv': ('video_id', 'time', 'label'),
  'backtal': ('urlid', 'start', 'tag'),
  'frames': ('video_id', 'point', 'class'),
  'aapl': ('video_id', 'timestamp', 'action_label'),
}
# Our own, as it is written; without the last the file's name tells it.
HEADER = (*COLUMNS['csv'], 'annotator')


def read(path: epath.Path) -> marks.Marks:
  """Read a click file, whose content tells its format; say what is left out.

  Raises:
    errors.InputError: The file is of no known format, or of two.
  """
  if path.is_file():
    click_tools.refuse_binary(path)
  text = files.read_text(path)
  found = click_tools.read(path, text) or _read_table(path, text)
  for told in found.left_out:
    print(f'left out: {path}: {told}', file=sys.stderr)
  return found


def _read_table(path: epath.Path, text: str) -> marks.Marks:
  """Read a table with a header, or SF-Net's, which has none."""
  is_first = lambda cells: _is_sfnet(cells) or bool(_header_format(cells))
  rows = tables.split(path, text, is_first)
  if not rows:
    raise errors.InputError(f'{path}: empty, expected clicks')
  (first, cells), header = rows[0], tables.lower(rows[0][1])
  if _is_sfnet(cells):
    format, header, columns = 'sfnet', None, (0, 1, 2)
  else:
    format = _format(f'{path}:{first}', cells)
    names = HEADER if format == 'csv' else COLUMNS[format]
    if column := tables.repeated(x for x in header if x in names):
      raise errors.InputError(
        f'{path}:{first}: column {column} twice, expected one'
      )
    columns = [header.index(c) for c in names if c in header]
    rows = rows[1:]
  width = len(header or columns)
  found, complaints = [], []
  for line, cells in rows:
    other = _header_format(cells)
    if other and tables.lower(cells) != header:
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
      unit: marks.Unit = 'frames' if format == 'frames' else 'seconds'
      video, time, label, *who = (cells[i] for i in columns)
      found.append(
        marks.Mark(line, video, (time, time), label, ''.join(who), unit)
      )
  return marks.Marks(format, found, complaints)


def _is_sfnet(cells: Sequence[str]) -> bool:
  return len(cells) == 3 and formats.is_number(cells[1])


def _header_format(cells):
  """Return the click format whose header this is, or None."""
  names = set(tables.lower(cells))
  return next((k for k, v in COLUMNS.items() if names >= set(v)), None)


def _format(where, cells):
  """Return the click format of a header, or say what it lacks of one."""
  if found := _header_format(cells):
    return found
  header = set(tables.lower(cells))
  nearest = max(COLUMNS.values(), key=lambda v: len(header.intersection(v)))
  missing = ', '.join(c for c in nearest if c not in header)
  raise errors.InputError(
    f'{where}: no column {missing} in {",".join(cells)[:200]!r}, expected '
    f'{",".join(nearest)}, separated by comma, semicolon or tab, or another '
    'format of docs/formats.md'
  )
