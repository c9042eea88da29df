"""Files of segments, found or drawn: written by their ending, read by content.

What players show (VIA, ELAN, subtitles) is written in their time, to which
the first picture's is added; all else in ours.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from backtal_jax import errors, files, localization
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import (
  annotations,
  click_formats,
  marks,
  tables,
  video_names,
)
from backtal_jax.data.tools import elan, via

# Endings of what is written; of the last three a file holds one video.
ENDINGS = '.json', '.via.json', '.csv', '.eaf', '.vtt', '.srt'
ONE_VIDEO = ENDINGS[3:]
NAMES_VIDEOS = '.via.json', '.eaf'  # the videos' own files
PLACE = '{video}'  # stands in an output for the name of the video
_HEADER = 'video_id', 'label', 'start', 'end'


class Found(NamedTuple):
  """What a file of segments holds.

  Attributes:
    segments: [(where it stands, segment)].
    videos: All videos that the file names, those without segments, too; of
      ground truth with subset and times.
    classes: In the order of their indices, where the file tells.
  """

  segments: list[tuple[str, marks.Segment]]
  videos: dict[str, annotations.AnnotatedVideo]
  classes: tuple[str, ...]


def require_output(output: epath.Path, frames: bool = False) -> None:
  """Refuse an output of another form than the ones that are written.

  Raises:
    errors.InputError: Names the ending, or says that `frames` are a CSV.
  """
  files.require_ending(output, *ENDINGS)
  if frames and form_of(output) != '.csv':
    raise errors.InputError(
      f'{output}: --frames makes a table, expected an output that ends in .csv'
    )


def require_videos(output: epath.Path, count: int) -> None:
  """Refuse a file of one video for several.

  Raises:
    errors.InputError: Says how to name a file each.
  """
  form = form_of(output)
  if form in ONE_VIDEO and count > 1 and PLACE not in str(output):
    raise errors.InputError(
      f'{output}: {count} videos, but such a file is of one; expected {PLACE} '
      f'in its name, for a file each: {PLACE}{form}'
    )


def form_of(output: epath.Path) -> str:
  """Return the ending that says the form, ActivityNet's .json if none does."""
  name = output.name.casefold()
  known = [ending for ending in ENDINGS if name.endswith(ending)]
  return max(known, key=len, default='.json')


def write(
  output: epath.Path,
  segments: Iterable[marks.Segment],
  videos: Sequence[str],
  times: formats.Times,
  *,
  suffix: Mapping[str, str],
  classes: Sequence[str] = (),
  frames: bool = False,
) -> list[epath.Path]:
  """Write segments in the form that the output's ending says.

  ActivityNet's JSON (.json) of predictions, VIA 3's (.via.json), a table
  (.csv), or a file of one video for ELAN (.eaf) or with subtitles (.vtt, .srt).

  Args:
    output: The file; with PLACE in its name one a video.
    segments: Of any of the videos.
    videos: Names of all videos, those without segments, too.
    times: What is known of the videos.
    suffix: Ending of each video's file.
    classes: Columns of a table of frames; by default those of the segments.
    frames: Whether a table has a row a frame.

  Returns:
    The files.

  Raises:
    errors.InputError: Several videos for a file of one; no rate or duration
      for frames.
  """
  form, segments = form_of(output), list(segments)
  parts = {output: videos}
  if form in ONE_VIDEO or PLACE in str(output):
    require_videos(output, len(videos))
    parts = {
      files.path(str(output).replace(PLACE, stem)): [name]
      for name, stem in files.names_of(videos).items()
    }
  for path, names in parts.items():
    here = {*names}
    own = [segment for segment in segments if segment.video in here]
    if form == '.csv':
      rows = _frames(own, names, times, classes) if frames else _table(own)
      files.write_text(path, tables.text(rows))
    elif form == '.json':
      files.write_json(path, _results(own, names))
    else:
      _write_played(path, form, own, names, times, suffix)
  return [*parts]


def _write_played(path, form, segments, videos, times, suffix):
  """Write what players show, in their time; of ONE_VIDEO that video."""
  none = formats.VideoTimes()
  first = {name: times.get(name, none).first_picture for name in videos}
  if form == '.via.json':
    endings = {suffix[name] for name in videos}
    only = endings.pop() if len(endings) == 1 else '.mp4'
    via.write_segments(path, segments, only, first)
    return
  (name,) = videos
  if form == '.eaf':
    elan.write_segments(path, segments, name, suffix[name], first[name])
  else:
    files.write_text(path, _subtitles(segments, first[name], form))


def _results(segments, videos):
  """Return ActivityNet's predictions."""
  found = {name: [] for name in videos}
  for s in segments:
    entry = {'label': s.label, 'segment': [s.start, s.end]}
    found[s.video].append(entry | {'score': s.score})
  return localization.format_results(found)


def _table(segments):
  """Return a row a segment, with a column of scores if they have some."""
  scored = any(s.score is not None for s in segments) or not segments
  head = (*_HEADER, 'score') if scored else _HEADER
  rows = [(s.video, s.label, s.start, s.end, s.score) for s in segments]
  return [head, *(row[: len(head)] for row in rows)]


def _frames(segments, videos, times, classes):
  """Return a row a frame: of each class the highest score over its middle."""
  classes = list(classes) or sorted({s.label for s in segments})
  rows = [('video_id', 'frame', 'time', *classes)]
  for name in videos:
    told = times.get(name, formats.VideoTimes())
    if not (told.fps and told.duration):
      raise errors.InputError(
        f'video {name!r}: duration {told.duration}, frames a second '
        f'{told.fps}, expected both for --frames'
      )
    own = [segment for segment in segments if segment.video == name]
    for frame in range(max(1, round(told.duration * told.fps))):
      time = frame / told.fps
      best = dict.fromkeys(classes, 0.0)
      for s in own:
        if s.start <= time + 0.5 / told.fps < s.end:
          score = 1.0 if s.score is None else s.score
          best[s.label] = max(best[s.label], score)
      rows.append((name, frame, round(time, 6), *best.values()))
  return rows


def _subtitles(segments, first, form):
  """Return cues in the order of their starts, WebVTT's or SubRip's."""
  mark = ',' if form == '.srt' else '.'
  cues = ['WEBVTT\n'] if form == '.vtt' else []
  for number, s in enumerate(sorted(segments, key=lambda s: s.start), 1):
    start, end = (round(1000 * (x + first)) for x in (s.start, s.end))
    text = ' '.join(s.label.split())
    text = html.escape(text, quote=False) if form == '.vtt' else text
    text += '' if s.score is None else f' {s.score:.2f}'
    span = ' --> '.join(_clock(x, mark) for x in (start, max(end, start + 1)))
    cues.append(f'{number}\n{span}\n{text}\n')
  return '\n'.join(cues)


def _clock(milliseconds, mark):
  seconds, rest = divmod(milliseconds, 1000)
  minutes, seconds = divmod(seconds, 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{rest:03d}'


def read(
  path: epath.Path, times: formats.Times, fps: float | None = None
) -> tuple[Found, list[str]]:
  """Read segments of any form: predictions, ground truth, tables, tools' files.

  Of annotation tools (click_tools) the intervals are taken, in our time.

  Args:
    path: Of the file.
    times: What is known of the videos, for frames and players' clocks.
    fps: Frames a second of frames, see annotations.read_clicks.

  Returns:
    What is in it, of which nothing has been checked; and complaints.

  Raises:
    errors.InputError: The file is of no known form.
  """
  text = '' if path.is_dir() else files.read_text(path)
  is_json = bool(re.match(r'\s*[\[{]', text))
  data = files.parse_json(text, path) if is_json else None
  if isinstance(data, dict) and isinstance(data.get('results'), dict):
    return read_predictions(path, data['results'])
  if path.is_dir() or (is_json and formats.is_ground_truth(data)):
    return _read_truth(path), []
  if tables.delimiter(text, lambda cells: {*_HEADER} <= {*cells}):
    return _read_table(path)
  return _read_tool(path, times, fps)


def _bare(names):
  """Return the videos of which no more is known than that they are named."""
  return {
    name: annotations.AnnotatedVideo(name, '', None, None, ()) for name in names
  }


def read_predictions(
  path: epath.Path, results: Mapping[str, Any]
) -> tuple[Found, list[str]]:
  """Read the results of ActivityNet's predictions, as `read` does."""
  found, complaints = [], []
  for video, items in results.items():
    where = f'{path}: video {video!r}'
    try:
      for item in formats.listed(items):
        start, end, label = formats.read_segment(item)
        score = formats.number(item.get('score'), 'score')
        found.append((where, marks.Segment(video, start, end, label, score)))
    except errors.InputError as e:
      complaints.append(f'{where}: {e}')
  return Found(found, _bare(results), ()), complaints


def _read_truth(path):
  truth = annotations.read_ground_truth(path)
  found = [
    (f'{path}: video {name!r}', marks.Segment(name, s.start, s.end, s.label))
    for name, video in truth.videos.items()
    for s in video.segments
  ]
  return Found(found, truth.videos, truth.classes)


def _read_table(path):
  """Read our own table, with scores or without."""
  found, complaints = [], []
  for where, row in tables.read_table(path, _HEADER, ('score',)):
    try:
      start, end = (formats.seconds(row[k], k) for k in ('start', 'end'))
      score = formats.number(row['score'], 'score') if 'score' in row else None
      label = formats.class_name(row['label'])
      segment = marks.Segment(row['video_id'], start, end, label, score)
      found.append((where, segment))
    except errors.InputError as e:
      complaints.append(f'{where}: {e}')
  return Found(found, _bare(s.video for _, s in found), ()), complaints


def _read_tool(path, times, fps):
  """Read the intervals of an annotation tool's file."""
  read = click_formats.read(path)
  found, videos = [], []
  complaints = [f'{path}:{line}: {text}' for line, text in read.complaints]
  names, _ = video_names.match(
    [mark.video for mark in read.found], times, read.respell
  )
  for mark in read.found:
    where = f'{path}:{mark.line}'
    name = names.get(mark.video, mark.video)
    videos.append(name)
    try:
      known = times.get(name, formats.VideoTimes())
      span = marks.measure(mark, known, fps, read.is_played)
      if span.start == span.end:
        raise errors.InputError(
          f'a moment of {mark.label!r} at {span.start:g}, expected a segment'
        )
      label = formats.class_name(mark.label)
      start, end = span.ours(span.start), span.ours(span.end)
      found.append((where, marks.Segment(name, start, end, label)))
    except errors.InputError as e:
      complaints.append(f'{where}: {e}')
  return Found(found, _bare(videos), ()), complaints


def check(
  found: Found, times: formats.Times, classes: Sequence[str]
) -> tuple[list[marks.Segment], list[str]]:
  """Give segments the known names, and hold them against what is known.

  With no known videos any video is right, with no classes any class.

  Returns:
    The segments that are right, ends that are behind a video's by rounding
    (marks.BEYOND) cut off; and a line on each other one.
  """
  names, _ = video_names.match(found.videos, times)
  right, problems = [], []
  for where, s in found.segments:
    name = names.get(s.video, '' if times else s.video)
    duration = times[name].duration if name in times else None
    try:
      if not name:
        near = video_names.nearest(s.video, times)
        raise errors.InputError(f'video {s.video!r} is unknown{near}')
      if classes and s.label not in classes:
        raise errors.InputError(
          f'class {s.label!r} is unknown, expected one of {errors.few(classes)}'
        )
      marks.require_segment(s.start, s.end, duration)
      end = s.end if duration is None else min(s.end, duration)
      right.append(s._replace(video=name, end=end))
    except errors.InputError as e:
      problems.append(f'{where}: {e}')
  return right, problems
