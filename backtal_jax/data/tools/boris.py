"""BORIS's tables of events, tabular and aggregated, as CSV or TSV.

Its times run on over all media files that one observation has in a row, and
contain the observation's offset.
"""

import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from backtal_jax import errors
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import marks, tables

_COLUMNS = {'media file name', 'behavior'}
_ROUNDING = 0.05  # seconds
_LATE = 1.0  # seconds by which durations may be wrong
_NO_FILE = '', 'na', 'not found', 'live observation'


class _File(NamedTuple):
  """A media file of an observation, in seconds since that began."""

  video: str
  start: float
  end: float  # infinite of the last one where that is not told


def fits(text: str, columns: Collection[str] = _COLUMNS) -> bool:
  """Return whether a text is a table of events; lines may stand before it."""
  heads = text.casefold().splitlines()[:50]
  return any(all(name in line for name in columns) for line in heads)


def fits_old(text: str) -> bool:
  """Return whether a text is a table of BORIS 7, whose columns are others."""
  return fits(text, {'media file', 'behavior', 'behavioral category'})


def read(path: epath.Path, text: str) -> marks.Marks:
  """Read a table, a row a POINT, START or STOP, or both ends of a state."""
  table = tables.split(path, text, lambda x: set(x) >= _COLUMNS, lines=50)
  heads = [set(tables.lower(cells)) >= _COLUMNS for _, cells in table]
  at = heads.index(True) if True in heads else 0
  line, header = table[at][0], tables.lower(table[at][1])
  if not heads[at] or not {'time', 'start (s)'} & set(header):
    raise errors.InputError(
      f"{path}:{line}: no column Time or Start (s), expected BORIS's events"
    )
  rows = [
    (line, dict(zip(header, cells, strict=False)))
    for line, cells in table[at + 1 :]
  ]
  named: dict[str, set[str]] = {}
  for _, row in rows:
    observation = named.setdefault(row.get('observation id', ''), set())
    observation.add(row.get('media file name', ''))
  found: list[marks.Mark] = []
  complaints: list[tuple[int, str]] = []
  open_: dict[tuple[str | None, ...], tuple[int, float]] = {}
  for line, row in rows:
    try:
      queue = _queue(row, named[row.get('observation id', '')])
      if times := _times(line, row, open_):
        found += _marks(row, queue, *times)
    except errors.InputError as e:
      complaints.append((line, str(e)))
  for (_, label, *_), (line, _) in open_.items():
    complaints.append((line, f'a START of {label!r} without its STOP'))
  return marks.Marks('boris', sorted(found, key=lambda m: m.line), complaints)


def _queue(row: Mapping[str, str], named: set[str]) -> list[_File]:
  """Return the files of a row's observation, whose rows name these files."""
  # Further players show the same moments from elsewhere.
  _, *players = re.split(r'[|\s]*player #\d+:\s*', row.get('source', ''))
  paths = players[0].split(';') if players else sorted(named)
  if len(paths) == 1 and row['media file name'].casefold() not in _NO_FILE:
    paths = [row['media file name']]
  if paths[0].casefold() in _NO_FILE:
    raise errors.InputError(f'no media file ({paths[0]!r}), expected a video')
  told = row.get('media duration (s)', '').split('|')[0].split(';')
  if len(paths) > 1 and (not players or len(told) != len(paths)):
    raise errors.InputError(
      f'one observation of several files ({errors.few(paths)}), whose times '
      'run on; expected them in Source with their Media duration (s)'
    )
  lengths = [
    formats.seconds(x, f'the Media duration (s) of {path!r}')
    for x, path in zip(told, paths[:-1], strict=False)
  ]
  is_told = len(told) == len(paths) and formats.is_number(told[-1])
  lengths.append(float(told[-1]) if is_told else math.inf)
  bounds = itertools.accumulate(lengths, initial=0.0)
  return [
    _File(marks.video_name(path), *pair)
    for path, pair in zip(paths, itertools.pairwise(bounds), strict=True)
  ]


def _times(
  line: int,
  row: Mapping[str, str],
  open_: dict[tuple[str | None, ...], tuple[int, float]],
) -> tuple[int, float, float] | None:
  """Return line, start and end of what a row ends; None of what it begins.

  States may end in another file of the observation than they began in.
  """
  label, kind = row['behavior'], row.get('behavior type', 'point').upper()
  if 'start (s)' in row:
    start = formats.seconds(row['start (s)'], 'Start (s)')
    end = row.get('stop (s)')
    return line, start, formats.seconds(end, 'Stop (s)') if end else start
  time = formats.seconds(row['time'], f'a time of {label!r}')
  modifiers = [x for name, x in row.items() if name.startswith('modifier')]
  key = (row.get('observation id'), label, row.get('subject'), *modifiers)
  if kind == 'START':
    if key in open_:
      raise errors.InputError(f'a START of {label!r} while it lasts')
    open_[key] = line, time
    return None
  if kind == 'STOP':
    if key not in open_:
      raise errors.InputError(f'a STOP of {label!r} without its other end')
    return *open_.pop(key), time
  if kind != 'POINT':
    raise errors.InputError(f'{kind!r}, expected POINT, START or STOP')
  return line, time, time


def _marks(
  row: Mapping[str, str],
  queue: Sequence[_File],
  line: int,
  start: float,
  end: float,
) -> list[marks.Mark]:
  """Return the mark in each file of what may reach over several."""
  told = row.get('time offset (s)') or '0'
  offset, label = formats.seconds(told, 'Time offset (s)'), row['behavior']
  start, end = start - offset, end - offset
  if end > queue[-1].end + _LATE:
    raise errors.InputError(
      f'{end:g} s, by Media duration (s) all ends at {queue[-1].end:g} s; '
      'expected times since the observation began, not of the day'
    )
  found = []
  for i, file in enumerate(queue):
    low = file.start if i else -math.inf
    high = math.inf if file is queue[-1] else file.end
    begins_here = low <= start < high
    if begins_here and not offset and row.get('behavior type') != 'STOP':
      _check_name(row, file, start)
    if begins_here or start < low < end:
      first, last = max(start, low), max(min(end, high), min(start, end))
      time = round(first - file.start, 6), round(last - file.start, 6)
      found.append(marks.Mark(line, file.video, time, label))
  return found


def _check_name(row: Mapping[str, str], file: _File, start: float) -> None:
  """Refuse a row whose file's name says other than the durations do.

  That is so where BORIS counted from the files' dates. It may cut a
  millisecond off each duration.
  """
  named = marks.video_name(row['media file name'])
  near = min(abs(start - bound) for bound in (file.start, file.end))
  if named != file.video and near > _ROUNDING:
    raise errors.InputError(
      f'Media file name is {named!r}, by Media duration (s) it is '
      f'{file.video!r}; expected times since the observation began'
    )
