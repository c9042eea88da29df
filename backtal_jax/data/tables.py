"""Tables: CSV and its relatives, down to cells."""

import collections
import csv
import io
import re
import string
from collections.abc import Callable, Iterable, Sequence

from etils import epath

from backtal_jax import errors, files

EDGES = string.whitespace + '\ufeff\xa0'  # byte-order marks, hard spaces
_LONGEST = 100_000  # characters of a header; the csv module has a limit, too
# A cell that is a number, of a spreadsheet that writes decimals with commas.
_DECIMAL = re.compile(r'([-+]?\d+),(\d+)', re.ASCII)


def split(
  path: epath.Path,
  text: str,
  fits: Callable[[list[str]], bool] = lambda _: True,
  *,
  lines: int = 1,
) -> list[tuple[int, list[str]]]:
  """Split CSV into (line number, cells); blank lines are left out.

  Its delimiter is a comma, a semicolon or a tab: the first by which one of the
  first lines fits, or the one that a spreadsheet's `sep=` tells. Where it is
  no comma, decimals may have one, and are given back with a point.

  Args:
    path: What errors name.
    text: Of the file.
    fits: Whether lower-case cells are those of a header.
    lines: So many lines, but blank ones, may be the header.
  """
  first = re.match(r'sep=([^\r\n])[\r\n]', text)
  if first:  # the blank line keeps the numbers of the others
    delimited, text = first[1], text[first.end(1) :]
  else:
    delimited = delimiter(text, fits, lines) or ','
  reader = csv.reader(
    io.StringIO(text, newline=''), delimiter=delimited, strict=True
  )
  rows, line = [], 1
  try:
    for cells in reader:
      cells = [' '.join(re.split('[\r\n]+', c)) for c in cells]
      cells = _stripped(cells, delimited)
      if any(cells):
        rows.append((line, cells))
      line = reader.line_num + 1
  except csv.Error as e:
    raise errors.InputError(f'{path}:{line}: not CSV: {e}') from e
  return rows


def delimiter(
  text: str, fits: Callable[[list[str]], bool], lines: int = 1
) -> str | None:
  """Return by which delimiter one of the first lines fits, see `split`."""
  heads = [
    line[:_LONGEST]
    for line in text.splitlines()
    if line.strip() and not re.fullmatch('sep=.', line)
  ]
  for head in heads[:lines]:
    for mark in ',;\t':
      (cells,) = csv.reader([head], delimiter=mark)
      if fits(lower(_stripped(cells, mark))):
        return mark
  return None


def _stripped(cells: Sequence[str], delimiter: str) -> list[str]:
  """Return the cells without blanks around, decimals with a point."""
  cells = [cell.strip(EDGES) for cell in cells]
  if delimiter == ',':
    return cells
  decimal = lambda cell: _DECIMAL.fullmatch(cell)
  return ['.'.join(m.groups()) if (m := decimal(x)) else x for x in cells]


def text(rows: Iterable[Sequence[object]]) -> str:
  """Return rows as CSV."""
  found = io.StringIO()
  csv.writer(found, lineterminator='\n').writerows(rows)
  return found.getvalue()


def repeated(names: Iterable[str]) -> str:
  """Return a name that comes more than once, '' if none does."""
  counts = collections.Counter(names)
  return next((name for name, count in counts.items() if count > 1), '')


def lower(cells: Sequence[str]) -> list[str]:
  """Return the cells of a header, whose letter case says nothing."""
  return [cell.casefold() for cell in cells]


def read_table(
  path: epath.Path, required: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[str, dict[str, str]]]:
  """Read CSV whose header names its columns, in any order.

  Columns that are neither required nor optional are an error.

  Returns:
    [('FILE:LINE', {column: cell})].
  """
  text, fits = files.read_text(path), lambda x: set(required) <= set(x)
  (_, header), *rows = split(path, text, fits) or [(0, [])]
  header, known = lower(header), {*required, *optional}
  if repeated(header) or not set(required) <= set(header) <= known:
    raise errors.InputError(
      f'{path}: header {",".join(header)[:200]!r}, expected '
      f'{",".join(required)}{"".join(f"[,{c}]" for c in optional)}'
    )
  for line, cells in rows:
    if len(cells) != len(header):
      raise errors.InputError(
        f'{path}:{line}: {len(cells)} columns, expected {len(header)}'
      )
  return [
    (f'{path}:{line}', dict(zip(header, cells, strict=True)))
    for line, cells in rows
  ]
