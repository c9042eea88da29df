"""Label files of programs for sound, one a recording: Praat, Audacity."""

import re

from etils import epath

from backtal_jax import errors
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import marks

# What Praat reads of a text file: texts, flags, and numbers that stand free.
_TOKEN = re.compile(
  r'"(?:[^"]|"")*"|<\w+>|(?<!\S)[-+]?[\d.]+(?:e[-+]?\d+)?(?!\S)'
)


def fits_textgrid(text: str) -> bool:
  """Return whether a text is Praat's TextGrid, long or short."""
  head = text.lstrip()[:200]
  return bool(re.match(r'File type = "ooTextFile', head)) and 'TextGrid' in head


def read_textgrid(path: epath.Path, text: str) -> marks.Marks:
  """Read the intervals and points of all tiers that have a text.

  The file's name is the video's.
  """
  tokens = iter(_TOKEN.findall(text)[2:])  # ooTextFile, TextGrid
  texts = lambda: next(tokens)[1:-1].replace('""', '"').strip()
  number = lambda: formats.number(next(tokens), f'{path}: a number')
  found, video = [], path.stem
  try:
    _, _, flag, count = number(), number(), next(tokens), number()
    for _ in range(int(count) if flag == '<exists>' else 0):
      kind, _, _, _, size = texts(), texts(), number(), number(), number()
      for _ in range(int(size)):
        start = number()
        end = number() if kind == 'IntervalTier' else start
        if label := texts():
          found.append(marks.Mark(len(found) + 1, video, (start, end), label))
  except StopIteration:
    raise errors.InputError(f'{path}: not a whole TextGrid') from None
  return marks.Marks('textgrid', found, [], is_played=True)


def fits_audacity(text: str) -> bool:
  """Return whether a text is Audacity's labels: start, end, label."""
  rows = [cells for _, cells in _rows(text)]
  is_time = lambda cell: formats.is_number(cell.replace(',', '.', 1))
  return bool(rows) and all(
    len(cells) == 3 and all(map(is_time, cells[:2])) for cells in rows
  )


def read_audacity(path: epath.Path, text: str) -> marks.Marks:
  """Read labels; the file's name is the video's."""
  found = []
  for line, (*ends, label) in _rows(text):
    start, end = (float(x.replace(',', '.', 1)) for x in ends)
    found.append(marks.Mark(line, path.stem, (start, end), label.strip()))
  return marks.Marks('audacity', found, [], is_played=True)


def _rows(text: str) -> list[tuple[int, list[str]]]:
  """Return the lines' cells, but of lines that tell a label's frequencies."""
  return [
    (number, line.split('\t'))
    for number, line in enumerate(text.splitlines(), 1)
    if line.strip() and not line.startswith('\\')
  ]
