"""Label files of programs for animals' behaviour: Bento, DeepEthogram."""

import itertools
import re

from etils import epath

from backtal_jax import errors
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import marks, tables


def fits_bento(text: str) -> bool:
  """Return whether a text is Bento's .annot."""
  return text.lstrip().casefold().startswith('bento annotation file')


def read_bento(path: epath.Path, text: str) -> marks.Marks:
  """Read the bouts of all channels, in seconds or in frames from 1.

  They are frames where none has a fraction. The file's name is the video's.
  """
  rate = re.search(r'(?im)^Annotation framerate:\s*(\S+)', text)
  label, rows = '', []
  for line, words in enumerate(text.splitlines(), 1):
    cells = words.split()
    if words.startswith('>'):
      label = words[1:].strip()
    elif label and len(cells) > 1 and all(map(formats.is_number, cells)):
      rows.append((line, label, cells[:2]))
  is_frames = not any('.' in x for _, _, cells in rows for x in cells)
  if is_frames and rows and not rate:
    raise errors.InputError(f'{path}: frames, but no Annotation framerate')
  fps = 1.0
  if is_frames and rate:
    fps = formats.number(rate[1], f'{path}: framerate')
    if fps <= 0:
      raise errors.InputError(
        f'{path}: framerate is {fps:g}, expected frames a second, more than 0'
      )
  time = lambda x: (float(x) - is_frames) / fps
  found = [
    marks.Mark(line, path.stem, (time(start), time(end)), label)
    for line, label, (start, end) in rows
  ]
  return marks.Marks('bento', found, [])


def fits_deepethogram(text: str) -> bool:
  """Return whether a text is DeepEthogram's CSV: a frame a row, 0, 1 or -1."""
  return bool(re.match(r',[^\r\n]+\r?\n0(,-?[01](\.0)?)+\r?\n', text))


def read_deepethogram(path: epath.Path, text: str) -> marks.Marks:
  """Read a behaviour's runs of frames as intervals.

  The file's name is the video's, with _labels or _predictions behind it.
  """
  (_, header), *rows = tables.split(path, text)
  video = re.sub('_(labels|predictions)$', '', path.stem)
  found = []
  for column, label in enumerate(header[1:], 1):
    frames = enumerate(float(cells[column]) == 1 for _, cells in rows)
    for on, run in itertools.groupby(frames, key=lambda frame: frame[1]):
      numbers = [frame for frame, _ in run]
      if on:
        time = float(numbers[0]), float(numbers[-1] + 1)
        line = rows[numbers[0]][0]
        found.append(marks.Mark(line, video, time, label, '', 'frames'))
  return marks.Marks('deepethogram', sorted(found), [])
