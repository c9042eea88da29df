"""Ground truth and clicks of every format that formats.md lists.

The format is found from the content. Times are seconds throughout; a click's
label is a class name or `BACKGROUND`. Names of videos are those of the ground
truth, however another source writes them, see video_names.
"""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import (
  click_formats,
  click_tools,
  marks,
  tables,
  video_names,
)

BACKGROUND = marks.BACKGROUND
Click = marks.Click
# Unknown names of a file that the nearest known one is looked up for.
_HINTS = 3


@dataclasses.dataclass(frozen=True)
class Segment:
  """One instance of an action, in seconds, as published (see `problems`)."""

  start: float
  end: float
  label: str


@dataclasses.dataclass(frozen=True)
class AnnotatedVideo:
  """One video, its times as those of a VideoTimes."""

  name: str
  subset: str
  duration: float | None
  fps: float | None
  segments: tuple[Segment, ...]
  first_picture: float = 0.0

  @property
  def times(self) -> formats.VideoTimes:
    """What is known of its times."""
    return formats.VideoTimes(self.duration, self.fps, self.first_picture)

  def listed(self) -> list[dict[str, Any]]:
    """Return the segments as ActivityNet's annotations."""
    return [
      {'label': s.label, 'segment': [s.start, s.end]} for s in self.segments
    ]


@dataclasses.dataclass(frozen=True)
class Annotations:
  """Videos by name, and the class names in the order of their indices.

  `path` is what errors name. No class can be called background: its name is
  that of what is no action.
  """

  videos: dict[str, AnnotatedVideo]
  classes: tuple[str, ...]
  path: str = dataclasses.field(default='ground truth', compare=False)

  def __post_init__(self) -> None:
    """Refuse a class of the background's name."""
    for name in self.classes:
      if name.casefold() == BACKGROUND:
        raise errors.InputError(
          f'{self.path}: class {name!r}, whose name is kept for what is no '
          'action; leave its annotations out, or give it another name'
        )

  @property
  def times(self) -> formats.Times:
    """What is known of the videos' times."""
    return {name: video.times for name, video in self.videos.items()}

  def subset(self, name: str) -> dict[str, AnnotatedVideo]:
    """Return the videos of a subset, any letter case; never none.

    Where the videos tell no subset, they are of any.
    """
    found = {
      k: v
      for k, v in self.videos.items()
      if v.subset.casefold() in ('', name.casefold())
    }
    if not found:
      known = sorted({v.subset for v in self.videos.values()})
      raise errors.InputError(
        f'{self.path}: subset {name!r} has no videos, found subsets {known}'
      )
    return found

  def as_json(self) -> dict[str, Any]:
    """Return ActivityNet's JSON, with BackTAL's fps and class indices."""
    index = {label: i for i, label in enumerate(self.classes)}
    database = {}
    for name, video in self.videos.items():
      times = video.times._asdict()
      times |= {'first_picture': video.first_picture or None}
      database[name] = {
        **({'subset': video.subset} if video.subset else {}),
        **{key: value for key, value in times.items() if value is not None},
        'annotations': [x | {'idx': index[x['label']]} for x in video.listed()],
        'vid_idx': sorted({index[s.label] for s in video.segments}),
      }
    return {'database': database, 'activity_list': list(self.classes)}

  def completed(self, told: formats.Times) -> 'Annotations':
    """Fill in the durations and rates that are missing."""
    names, _ = video_names.match(self.videos, told)
    videos = {}
    for name, video in self.videos.items():
      times = told.get(names.get(name, ''), formats.VideoTimes())
      videos[name] = dataclasses.replace(
        video,
        duration=times.duration if video.duration is None else video.duration,
        fps=times.fps if video.fps is None else video.fps,
        first_picture=times.first_picture or video.first_picture,
      )
    return dataclasses.replace(self, videos=videos)


def read_ground_truth(path: epath.Path) -> Annotations:
  """Read ground truth of any format, as published, whatever `problems` finds.

  That is a JSON file (ActivityNet, BackTAL, HACS, LACP, mmaction2), or what
  annotation_formats.read_thumos14 reads.

  Raises:
    errors.InputError: Missing, malformed, or a video in it twice.
  """
  if path.is_dir() or re.search(r'_(val|test)\.txt$', path.name):
    rows, classes = formats.read_thumos14(path)
  else:  # HACS's and LACP's ground truth is ActivityNet's with parts left out.
    rows, classes = formats.read_activitynet(path)
  videos = {
    name: AnnotatedVideo(
      name, subset, times.duration, times.fps,
      tuple(Segment(*s) for s in segments), times.first_picture,
    )
    for name, subset, times, segments in rows
  }  # fmt: skip
  # Two videos that differ by the prefix alone could not be told apart.
  for name in videos:
    if f'v_{name}' in videos:
      raise errors.InputError(f'{path}: duplicate video {name!r}, v_{name}')
  return Annotations(videos, classes, str(path))


def read_lengths(path: epath.Path) -> formats.Times:
  """Return {video: VideoTimes} of a CSV of videos or of other ground truth."""
  if not path.name.endswith('.json'):
    return formats.read_video_list(path)
  rows, _ = formats.read_activitynet(path)
  return {name: times for name, _, times, _ in rows}


def read_known(
  ground_truth: epath.Path | None, video_list: epath.Path | None
) -> tuple[Annotations | None, formats.Times]:
  """Read what is known of videos from the ground truth, else from a list.

  Returns:
    The ground truth, if it is given; and the times of the videos.
  """
  truth = read_ground_truth(ground_truth) if ground_truth else None
  times = read_lengths(video_list) if video_list else {}
  if truth is None:
    return None, times
  truth = truth.completed(times)
  return truth, truth.times


def problems(annotations: Annotations) -> dict[str, list[str]]:
  """List what is wrong in ground truth that is well-formed.

  Published files hold all of it. It is kept: mAP counts such segments as
  positives, so dropping them would change published numbers.

  Returns:
    {kind: [one line each]}, every kind a key: 'no duration' (or none above
    zero), 'end <= start', 'negative start', 'beyond duration', 'twice'.
  """
  kinds = 'no duration', 'end <= start', 'negative start', 'beyond duration'
  found = {kind: [] for kind in (*kinds, 'twice')}
  for name, video in annotations.videos.items():
    duration = video.duration or 0
    if duration <= 0:
      found['no duration'].append(f'{name}: duration {video.duration}')
    for segment, count in collections.Counter(video.segments).items():
      line = f'{name}: {segment.label} {segment.start:g}-{segment.end:g} s'
      if segment.end <= segment.start:
        found['end <= start'] += [line] * count
      if segment.start < 0:
        found['negative start'] += [line] * count
      if 0 < duration < segment.end:
        found['beyond duration'] += [f'{line} of {duration:g} s'] * count
      found['twice'] += [line] * (count - 1)
  return found


def note(annotations: Annotations) -> None:
  """Print what is odd in ground truth, see `problems`, a line a kind."""
  alike = collections.defaultdict(list)
  for name in annotations.classes:
    alike[name.casefold()].append(name)
  lines = [' and '.join(names) for names in alike.values() if names[1:]]
  kinds = problems(annotations) | {'classes that differ by case alone': lines}
  for kind, lines in kinds.items():
    if lines:
      some = errors.few(lines, '; ')
      print(f'note: {annotations.path}: {len(lines)} of kind {kind!r}: {some}')


def read_clicks(
  path: epath.Path,
  ground_truth: Annotations | None = None,
  *,
  fps: float | None = None,
  lenient: bool = False,
  intervals: str = '',
  times: formats.Times | None = None,
) -> tuple[list[Click], list[str]]:
  """Read a click file of any format.

  Args:
    path: Path of the file.
    ground_truth: Annotations that know the videos and classes; without it
      names, labels and durations cannot be checked.
    fps: Frames a second: of Label Studio's frames, which count at a rate of
      its own, and of other frames where the ground truth tells none.
    lenient: Leave out the lines that are wrong instead of raising.
    intervals: What becomes of annotation tools' intervals, see
      click_tools.moments; by default they are wrong.
    times: Of the videos, where there is no ground truth to tell them.

  Returns:
    The clicks in the order of the file, seconds from the first picture on, and
    one complaint for each line left out. The annotator is the file's own
    column, else the file's name without its ending, of which `…_A1` gives
    `A1`.

  Raises:
    errors.InputError: The file is missing or of no known format or of two;
      unless lenient, a line is short or long, a time is no number, negative
      or marks.BEYOND behind the end, a video or class is unknown.
  """
  read = click_formats.read(path)
  told = ground_truth.times if ground_truth else times or {}
  source = 'ground truth' if ground_truth else 'video list' if told else ''
  spans, complaints = _measure(read, told, source, fps)
  durations = {video: known.duration for video, known in told.items()}
  found, problems = click_tools.moments(spans, intervals, durations)
  complaints, clicks = complaints + problems, []
  short = re.search(r'_(A\d+)$', path.stem)
  annotator = short[1] if short else path.stem
  for line, click in found:
    try:
      end = durations.get(click.video)
      _check(click, end, ground_truth)
      who = click.annotator or annotator
      time = click.time if end is None else min(click.time, end)
      clicks.append(dataclasses.replace(click, time=time, annotator=who))
    except errors.InputError as e:
      complaints.append((line, str(e)))
  complaints = [f'{path}:{line}: {text}' for line, text in sorted(complaints)]
  if complaints and not lenient:
    more = len(complaints) - 1
    others = f' (and {more} more such lines)' if more else ''
    raise errors.InputError(complaints[0] + others)
  return clicks, complaints


def _measure(
  read: marks.Marks,
  told: formats.Times,
  source: str,
  fps: float | None,
) -> tuple[list[marks.Span], list[tuple[int, str]]]:
  """Return a file's marks in seconds, and line and complaint of the others.

  `source` says what `told` is from, '' where any video will do.
  """
  names, unknown = video_names.match(
    [mark.video for mark in read.found], told, read.respell
  )
  hints = {name: video_names.nearest(name, told) for name in unknown[:_HINTS]}
  spans, complaints = [], read.complaints
  for mark in read.found:
    video = names.get(mark.video, '' if source else mark.video)
    try:
      if not mark.video:
        raise errors.InputError('no video or no label, expected both')
      if not video:
        raise errors.InputError(
          f'video {mark.video!r} is not in the {source}'
          f'{hints.get(mark.video, "")}'
        )
      known = told.get(video, formats.VideoTimes())
      mark = mark._replace(video=video, label=_label(mark, read.format))
      spans.append(marks.measure(mark, known, fps, read.is_played))
    except errors.InputError as e:
      complaints.append((mark.line, str(e)))
  return spans, complaints


def _label(mark: marks.Mark, format: str) -> str:
  """Return the class of a mark; background in any letter case is itself."""
  label = mark.label.strip(tables.EDGES)
  if label.casefold() == BACKGROUND or (
    format == 'backtal' and label == 'background_background'
  ):
    return BACKGROUND
  return unicodedata.normalize('NFC', label)


def _check(
  click: Click, duration: float | None, ground_truth: Annotations | None
) -> None:
  """Raise InputError, without the place, where a click cannot be one."""
  time = click.time
  if not click.label:
    raise errors.InputError('no video or no label, expected both')
  if time < 0:
    raise errors.InputError(f'the time is {time:g} s, expected 0 or later')
  if duration is not None and time > duration + marks.BEYOND:
    raise errors.InputError(
      f'the time is {time:g} s, the video ends at {duration:g} s'
    )
  classes = ground_truth.classes if ground_truth else (click.label,)
  if click.label not in (*classes, BACKGROUND):
    raise errors.InputError(
      f'class {click.label!r} is unknown, expected {BACKGROUND!r} or one of '
      f"the ground truth's {len(classes)} classes"
    )


def write_clicks(path: epath.Path, clicks: Iterable[Click]) -> None:
  """Write our own click file: `video_id,time,label,annotator`, seconds."""
  rows = [click_formats.HEADER, *map(dataclasses.astuple, clicks)]
  files.write_text(path, tables.text(rows))
