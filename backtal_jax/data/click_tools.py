"""Click files of annotation tools: which tool wrote a file, and its reader.

The readers stand in `tools`, a module a tool. What a tool marks as an interval
becomes a click here, where that is asked for.
"""

import collections
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from xml.etree import ElementTree

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats, marks
from backtal_jax.data.tools import (
  behaviour,
  boris,
  elan,
  label_studio,
  sound,
  via,
)

INTERVALS = 'midpoint', 'complement'


class _Tool(NamedTuple):
  """A kind of file.

  Attributes:
    name: What errors call it.
    fits: Whether a file is of this kind: its text, or what it holds.
    read: Its reader; or, of files that hold no moments of videos or hold them
      otherwise than we know, what the user can do.
  """

  name: str
  fits: Callable[[Any], bool]
  read: Callable[[epath.Path, Any], marks.Marks] | str


def _has(*keys: str) -> Callable[[Any], bool]:
  """Return whether JSON is an object, or a list of such, with these keys."""
  return lambda data: (
    isinstance(
      first := data[0] if isinstance(data, list) and data else data, dict
    )
    and first.keys() >= set(keys)
  )


def _begins(pattern: str) -> Callable[[str], bool]:
  """Return whether a text begins so, after blanks."""
  return lambda text: bool(re.match(rf'(?i)\s*{pattern}', text))


def _starts(magic: bytes) -> Callable[[bytes], bool]:
  """Return whether a file starts with these bytes."""
  return lambda first: first.startswith(magic)


def _is_via2(data: Any) -> bool:
  """Return whether JSON holds VIA 2's annotations of pictures."""
  entries = data.values() if isinstance(data, dict) else ()
  return any(_has('filename', 'regions')(entry) for entry in entries)


_is_html = _begins('<(!doctype html|html|table)')
_EVENTS = 'export its tabular events as CSV or TSV'
_BOXES = 'it holds what is on pictures, no moments of a video'
_SHEET = 'save its sheet as CSV'
_JSON = (
  _Tool('a VIA 3 project', via.fits, via.read),
  _Tool('a Label Studio export', label_studio.fits, label_studio.read),
  _Tool('a BORIS project', _has('observations'), _EVENTS),
  _Tool('a VIA 2 project', _has('_via_settings'), _BOXES),
  _Tool('a VIA 2 export', _is_via2, _BOXES),
  _Tool('a COCO file', _has('images', 'annotations'), _BOXES),
  _Tool('a LabelMe file', _has('shapes', 'imagePath'), _BOXES),
  _Tool('a Datumaro file', _has('items', 'categories'), _BOXES),
  _Tool('a file of predictions', _has('results'), 'it holds no clicks'),
  _Tool('a ground truth file', annotation_formats.is_ground_truth,
        'prepare simulate-clicks makes clicks of it'),
)  # fmt: skip
_XML = (
  _Tool('an ELAN file', elan.fits, elan.read),
  _Tool('a CVAT export',  # in whatever namespace
        lambda root: root.tag.rpartition('}')[2] == 'annotations', _BOXES),
)  # fmt: skip
_TEXT = (
  _Tool('a VIA 3 CSV', via.fits_csv, via.read_csv),
  _Tool('a Label Studio CSV', label_studio.fits_csv, label_studio.read_csv),
  _Tool('a Praat TextGrid', sound.fits_textgrid, sound.read_textgrid),
  _Tool('a Praat file', _begins('File type = "oo'), 'save the TextGrid alone'),
  _Tool('a chronological TextGrid', _begins('"Praat chronological'),
        'save it as a text file'),
  _Tool('a VIA 2 CSV', _begins('#?filename,file_size,'), _BOXES),
  _Tool('a Bento file', behaviour.fits_bento, behaviour.read_bento),
  _Tool('a DeepEthogram CSV', behaviour.fits_deepethogram,
        behaviour.read_deepethogram),
  _Tool('an HTML page', _is_html, f'of BORIS, {_EVENTS}'),
  _Tool('a BORIS export', _begins('(% SDIS|BEGIN TRANSACTION)'), _EVENTS),
  _Tool('a BORIS table', boris.fits, boris.read),
  _Tool('a table of BORIS 7', boris.fits_old,
        f'open its project in a newer BORIS, and {_EVENTS}'),
  _Tool('an Audacity label file', sound.fits_audacity, sound.read_audacity),
  _Tool('a file of subtitles', _begins(r'(WEBVTT|\d+\s+[\d:,]+ --> )'),
        "ELAN imports it and saves an .eaf"),
)  # fmt: skip
_BINARY = (  # by their first bytes
  _Tool('a compressed file', _starts(b'\x1f\x8b'),
        f'decompress it; of a BORIS project, {_EVENTS}'),
  _Tool('a spreadsheet or archive', _starts(b'PK\x03\x04'), _SHEET),
  _Tool('a spreadsheet', _starts(b'\xd0\xcf\x11\xe0'), _SHEET),
  _Tool('a binary Praat file', _starts(b'ooBinary'), 'save it as a text file'),
  _Tool('a SQLite database', _starts(b'SQLite'), 'export a table as CSV'),
)  # fmt: skip


def read(path: epath.Path, text: str) -> marks.Marks | None:
  """Read the file of a tool, which its text tells; None of another's text.

  Raises:
    errors.InputError: The file is damaged, or of a kind that cannot be read.
  """
  content: Any = text
  tools, kind = _TEXT, ''
  if re.match(r'\s*(\{|\[\s*[{\]])', text):
    content, tools, kind = files.parse_json(text, path), _JSON, 'JSON'
  elif re.match(r'\s*<[?!a-zA-Z]', text) and not _is_html(text):
    try:
      content = ElementTree.fromstring(text)
    except ElementTree.ParseError as e:
      raise errors.InputError(f'{path}: not whole XML: {e}') from e
    tools, kind = _XML, 'XML'
  for tool in tools:
    if tool.fits(content):
      return _read(path, tool, content)
  if not kind:
    return None
  readable = [tool.name for tool in tools if callable(tool.read)]
  raise errors.InputError(
    f'{path}: {kind} of no kind that is known, expected {" or ".join(readable)}'
  )


def _read(path: epath.Path, tool: _Tool, content: Any) -> marks.Marks:
  """Read a file that is of the tool."""
  if isinstance(tool.read, str):
    raise errors.InputError(
      f'{path}: {tool.name}, expected a file of clicks: {tool.read}'
    )
  try:
    found = tool.read(path, content)
    for mark in found.found:
      for text in (mark.video, mark.label, mark.annotator):
        text.encode()  # JSON may hold what is no text
  except errors.InputError:
    raise
  except (LookupError, TypeError, AttributeError, ValueError) as e:
    raise errors.InputError(
      f'{path}: not the shape of {tool.name} of clicks: {e!r}'
    ) from e
  if not (found.found or found.complaints or found.left_out):
    found = found._replace(left_out=('no moments or intervals in it',))
  return found


def refuse_binary(path: epath.Path) -> None:
  """Say what a file is that is no text, and what to do."""
  with path.open('rb') as file:
    first = file.read(8)
  for tool in _BINARY:
    if tool.fits(first):
      _read(path, tool, first)


def moments(
  spans: Iterable[marks.Span],
  how: str,
  durations: Mapping[str, float | None],
) -> tuple[list[tuple[int, marks.Click]], list[tuple[int, str]]]:
  """Make clicks of moments, and of intervals where that is asked for.

  '' refuses intervals; 'midpoint' takes their middles; 'complement' clicks
  background in the middle of all that no interval covers, for which durations,
  {video: seconds, None where unknown}, are needed.

  Returns:
    [(line, click)], of which nothing has been checked; and complaints.
  """
  found, problems = [], []
  covered = collections.defaultdict(list)
  for span in spans:
    line, video, start, end, label, who, *_ = span
    if start == end or (how == 'midpoint' and start < end):
      time = span.ours(start if start == end else (start + end) / 2)
      found.append((line, marks.Click(video, time, label, who)))
    elif not start < end:
      problems.append((line, f'an interval from {start:g} to {end:g}'))
    elif how == 'complement':
      covered[video, who].append(span)
    else:
      text = (
        f'an interval of {label!r}, {start:g} to {end:g}, expected a '
        'moment; --intervals midpoint or complement makes clicks of it'
      )
      problems.append((line, text))
  for (video, who), intervals in covered.items():
    line, last, reached = intervals[0].line, durations.get(video), 0.0
    if last is None:
      problems.append((line, f'no duration of video {video!r}'))
      continue
    actions = [
      (span.ours(span.start), span.ours(span.end))
      for span in intervals
      if span.label != marks.BACKGROUND
    ]
    for start, end in [*sorted(actions), (last, last)]:
      if start > reached:
        middle = (reached + start) / 2
        found.append((line, marks.Click(video, middle, marks.BACKGROUND, who)))
      reached = max(reached, end)
  return sorted(found, key=lambda pair: pair[0]), problems
