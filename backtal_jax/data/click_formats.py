"""Click files of any format, down to plain values.

What the values mean is up to `annotations`; the formats are those of
formats.md. Those that annotation tools write stand in `click_tools`.
"""

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import click_tools

# Of each format with a header: where video, time, label and perhaps annotator
# stand. `frames` is LACP's and HR-Pro's; its columns of ground-truth
# boundaries are never looked at.
COLUMNS = {
  'csv': ('video_id', 'time', 'label', 'annotator'),
  'backtal': ('urlid', 'start', 'tag'),
  'frames': ('video_id', 'point', 'class'),
  'aapl': ('video_id', 'timestamp', 'action_label'),
}
_NAMES = (*COLUMNS, 'sfnet', 'via', 'labelstudio', 'boris', 'elan')


def read(path: epath.PathLike) -> tuple[str, list, list]:
  """Read a click file; its format is found from its content.

  Returns:
    The format; [(line number, (video, time, label, annotator or ''))], of
    annotation tools perhaps (start, end) as the time; and
    [(line number, complaint)] of the lines that cannot be read as that.

  Raises:
    errors.InputError: The file is of no known format, or of two.
  """
  text = files.read_text(path)
  if tool := click_tools.find(text):
    return click_tools.read(tool, path, text)
  rows = formats.split(path, text)
  if not rows:
    raise errors.InputError(f'{path}: empty, expected clicks')
  (first, cells), header = rows[0], formats.lower(rows[0][1])
  if len(cells) == 3 and formats.is_number(cells[1]):
    format, header, columns = 'sfnet', None, (0, 1, 2)
  else:
    format = _format(f'{path}:{first}', cells)
    columns = [header.index(c) for c in COLUMNS[format]]
    rows = rows[1:]
  width = len(header or columns)
  clicks, complaints = [], []
  for line, cells in rows:
    other = _header_format(cells)
    if other and formats.lower(cells) != header:
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


def _header_format(cells):
  """Return the click format whose header this is, or None."""
  names = set(formats.lower(cells))
  return next((k for k, v in COLUMNS.items() if names >= set(v)), None)


def _format(where, cells):
  """Return the click format of a header, or say what it lacks of one."""
  if found := _header_format(cells):
    return found
  header = set(formats.lower(cells))
  nearest = max(COLUMNS.values(), key=lambda v: len(header.intersection(v)))
  missing = ', '.join(c for c in nearest if c not in header)
  raise errors.InputError(
    f'{where}: no column {missing} in {",".join(cells)[:200]!r}, expected '
    f'{",".join(nearest)} or another format of {", ".join(_NAMES)}'
  )
