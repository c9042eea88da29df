"""Clicks, and what files mark before `annotations` has checked it."""

import dataclasses
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from backtal_jax import errors
from backtal_jax.data import annotation_formats as formats

# Of times: frames at the video's own rate, or at the one that the tool was
# set to, whatever the video's.
Unit = Literal['seconds', 'frames', 'frames of the tool']

# Where the rate of a unit should stand.
_WHERE = {
  'frames': 'them in the ground truth or as fps',
  'frames of the tool': 'frameRate of the labelling configuration as --fps '
  '(--click_fps of prepare custom), 24 where it has none, whatever the '
  "video's own",
}


BACKGROUND = 'background'


@dataclasses.dataclass(frozen=True)
class Click:
  """One click: a class name or `BACKGROUND` at a time in seconds."""

  video: str
  time: float
  label: str
  annotator: str

  @property
  def is_background(self) -> bool:
    """Whether it is of no action."""
    return self.label == BACKGROUND


class Segment(NamedTuple):
  """A segment of a video, in seconds from its first picture on."""

  video: str
  start: float
  end: float
  label: str
  score: float | None = None  # None of what somebody drew


class Mark(NamedTuple):
  """A moment or an interval, as it stands in a file.

  Attributes:
    line: Number of the line, or of the entry where lines say nothing.
    video: Name of the video as the file spells it.
    time: (start, end), which of a moment are one.
    label: Class name or `background`; '' where the file has none.
    annotator: '' where the file does not tell.
    unit: Of the time.
    shift: Seconds that are added where the file's clock begins elsewhere.
  """

  line: int
  video: str
  time: tuple[float | str, float | str]
  label: str
  annotator: str = ''
  unit: Unit = 'seconds'
  shift: float = 0.0


class Span(NamedTuple):
  """A mark whose time is a number: a moment where start and end are one.

  Attributes:
    rate: Of start and end, units a second.
    shift: Seconds to add, for the first picture to stand at 0.
  """

  line: int
  video: str
  start: float
  end: float
  label: str
  annotator: str
  rate: float
  shift: float

  def ours(self, time: float) -> float:
    """Return seconds of a time of the file; if shifted, to a microsecond."""
    seconds = time / self.rate
    return round(seconds + self.shift, 6) if self.shift else seconds


class Marks(NamedTuple):
  """A click file.

  Attributes:
    format: Its name, `csv` for our own.
    found: In the order of the file.
    complaints: [(line, what is wrong there)].
    left_out: What of the file is rightly no click, one text each.
    is_played: Whether times are those of a player, which do not count from
      the first picture where the file's own times do not.
    respell: What the tool makes of a video's name; None where it keeps it.
  """

  format: str
  found: list[Mark]
  complaints: list[tuple[int, str]]
  left_out: tuple[str, ...] = ()
  is_played: bool = False
  respell: Callable[[str], str] | None = None


def video_name(path: str) -> str:
  """Return the video's name of the path of its file, of any system."""
  name = re.split(r'[/\\]', path)[-1]
  return re.sub(r'\.([A-Za-z]\w{1,3}|3gp)$', '', name)


def measure(
  mark: Mark, times: formats.VideoTimes, fps: float | None, is_played: bool
) -> Span:
  """Return a mark with what makes seconds of its time.

  `fps` is that of a tool's frames, and of other frames where the video's is
  not known; `is_played` says whether the times are those of a player.

  Raises:
    errors.InputError: No number, or frames of an unknown rate.
  """
  rate: float | None = 1.0
  if mark.unit != 'seconds':
    rate = fps if mark.unit == 'frames of the tool' else times.fps or fps
  if not rate or rate < 0:
    raise errors.InputError(
      f'a frame number, but no frames a second for video {mark.video!r}, '
      f'expected {_WHERE[mark.unit]}'
    )
  number = formats.seconds if mark.unit == 'seconds' else formats.number
  start, end = (number(x, 'the time') for x in mark.time)
  for time in (start, end):
    formats.number(time / rate, 'the time')
  shift = mark.shift - (times.first_picture if is_played else 0.0)
  return Span(
    mark.line, mark.video, start, end, mark.label, mark.annotator, rate, shift
  )  # fmt: skip


# Seconds by which a click may lie behind the end of its video, to count at the
# end: durations are rounded, and players show the last picture for a while.
BEYOND = 0.1
# Players of intervals know no moments: half of the seconds of a click there.
_HALF = 0.02


def span(time: float) -> tuple[float, float]:
  """Return the interval of 40 ms whose middle a click is, in seconds.

  It is shorter at the start of a video, and never of no length.
  """
  half = min(_HALF, time)
  return time - half, max(time + half, 0.001)


def require_segment(start: float, end: float, duration: float | None) -> None:
  """Refuse a segment that no video can have, or none of a known duration.

  Raises:
    errors.InputError: Without the place.
  """
  if not 0 <= start < end:
    raise errors.InputError(
      f'a segment from {start:g} to {end:g} s, expected its end after its '
      'start, and that at 0 s or later'
    )
  if duration is not None and end > duration + BEYOND:
    raise errors.InputError(
      f'a segment ends at {end:g} s, the video at {duration:g} s'
    )
