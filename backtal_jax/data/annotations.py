"""Ground truth and clicks of every format that formats.md lists.

The format is found from the content. Times are seconds throughout; a click's
label is a class name or `BACKGROUND`. Names of videos are those of the ground
truth, whatever `v_` prefix another source writes.
"""

import collections
import csv
import dataclasses
import io
import re

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats as formats

BACKGROUND = 'background'
# HACS's and LACP's ground truth are ActivityNet's with parts left out.
GROUND_TRUTH_FORMATS = ('activitynet', 'thumos14')


@dataclasses.dataclass(frozen=True)
class Segment:
  """One instance of an action, in seconds, as published (see `problems`)."""

  start: float
  end: float
  label: str


@dataclasses.dataclass(frozen=True)
class Video:
  """One video; duration in seconds and fps are None where not told."""

  name: str
  subset: str
  duration: float | None
  fps: float | None
  segments: tuple[Segment, ...]


@dataclasses.dataclass(frozen=True)
class Annotations:
  """Videos by name, and the class names in the order of their indices."""

  videos: dict[str, Video]
  classes: tuple[str, ...]

  def subset(self, name) -> dict[str, Video]:
    """Return the videos of a subset, in either case; never none."""
    found = {
      k: v
      for k, v in self.videos.items()
      if v.subset.casefold() == name.casefold()
    }
    if not found:
      known = sorted({v.subset for v in self.videos.values()})
      raise errors.InputError(
        f'subset {name!r} has no videos; the ground truth has {known}'
      )
    return found


@dataclasses.dataclass(frozen=True)
class Click:
  """One click: a class name or BACKGROUND at a time in seconds."""

  video: str
  time: float
  label: str
  annotator: str


def match_name(name, known):
  """Return the name in `known` that means the same video, or None.

  The name itself goes first: there are YouTube names that start with `v_`.
  """
  for candidate in (name, f'v_{name}', name.removeprefix('v_')):
    if candidate in known:
      return candidate
  return None


def match_names(names, known) -> tuple[dict[str, str], list[str]]:
  """Match video names of one source with those of another.

  Args:
    names: to be matched, with or without a `v_` prefix.
    known: the names they are matched with.

  Returns:
    {name: known name}, and the names without a match in their order.
  """
  known = frozenset(known)
  found = {name: match_name(name, known) for name in names}
  mapping = {k: v for k, v in found.items() if v is not None}
  return mapping, [k for k in found if k not in mapping]


def read_ground_truth(path, *, format='', video_list=None) -> Annotations:
  """Read ground truth of any format.

  Args:
    path: a JSON file (ActivityNet, BackTAL, HACS, LACP), or the folder of the
      official THUMOS14 text files (CLASS_val.txt, CLASS_test.txt, in folders
      of their own or not), or one such file.
    format: one of GROUND_TRUTH_FORMATS, else found from the content.
    video_list: where the ground truth tells no duration or fps, a CSV
      `video_id,duration[,fps]` or another ground-truth file that does.

  Returns:
    Everything as published, whatever `problems` finds in it.

  Raises:
    errors.InputError: missing, malformed, or a video in it twice.
  """
  path = epath.Path(path)
  formats.check_format(format, GROUND_TRUTH_FORMATS)
  is_text = path.is_dir() or bool(re.search(r'_(val|test)\.txt$', path.name))
  if format == 'thumos14' or (not format and is_text):
    annotations = _read_thumos14(path)
  else:
    annotations = _read_activitynet(path)
  if video_list is None:
    return annotations
  if video_list.name.endswith('.json'):
    others = _read_activitynet(video_list).videos
    told = {k: (v.duration, v.fps) for k, v in others.items()}
  else:
    told = formats.read_video_list(video_list)
  videos = {}
  for name, video in annotations.videos.items():
    duration, fps = told.get(match_name(name, told), (None, None))
    videos[name] = dataclasses.replace(
      video,
      duration=duration if video.duration is None else video.duration,
      fps=fps if video.fps is None else video.fps,
    )
  return dataclasses.replace(annotations, videos=videos)


def write_ground_truth(path, annotations):
  """Write ActivityNet's JSON, with BackTAL's fps and class indices."""
  index = {label: i for i, label in enumerate(annotations.classes)}
  database = {}
  for name, video in annotations.videos.items():
    entry = {'subset': video.subset}
    entry |= {} if video.duration is None else {'duration': video.duration}
    entry |= {} if video.fps is None else {'fps': video.fps}
    entry['annotations'] = [
      {'label': s.label, 'segment': [s.start, s.end], 'idx': index[s.label]}
      for s in video.segments
    ]
    entry['vid_idx'] = sorted({index[s.label] for s in video.segments})
    database[name] = entry
  files.write_json(
    path, {'database': database, 'activity_list': list(annotations.classes)}
  )


def problems(annotations) -> dict[str, list[str]]:
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
        of = f'{line} of {duration:g} s'
        found['beyond duration'] += [of] * count
      found['twice'] += [line] * (count - 1)
  return found


def read_clicks(
  path, ground_truth=None, *, format='', fps=None, lenient=False
) -> tuple[list[Click], list[str]]:
  """Read a click file of any format.

  Args:
    path: of the file.
    ground_truth: Annotations that know the videos and classes; without it
      names, labels and durations cannot be checked.
    format: one of annotation_formats.CLICK_FORMATS, else found from the header.
    fps: frames a second of videos whose ground truth does not tell; only the
      frame-based files of LACP and HR-Pro need it.
    lenient: leave out the lines that are wrong instead of raising.

  Returns:
    The clicks in the order of the file, and one complaint for each line left
    out. The annotator is the file's own column, else the file's name
    without its ending, of which `…_A1` gives `A1`.

  Raises:
    errors.InputError: the file is missing or of no known format or of two;
      unless lenient, a line is short or long, a time is no number, negative
      or beyond the duration, a video or class is unknown.
  """
  path = epath.Path(path)
  format, rows, complaints = formats.read_clicks(path, format)
  short = re.search(r'_(A\d+)$', path.stem)
  annotator = short[1] if short else path.stem
  clicks = []
  for line, (*values, own) in rows:
    try:
      click = _click(*values, own or annotator, ground_truth, format, fps)
      clicks.append(click)
    except errors.InputError as e:
      complaints.append((line, str(e)))
  complaints = [f'{path}:{line}: {text}' for line, text in sorted(complaints)]
  if complaints and not lenient:
    more = len(complaints) - 1
    others = f' (and {more} more such lines)' if more else ''
    raise errors.InputError(complaints[0] + others)
  return clicks, complaints


def write_clicks(path, clicks):
  """Write our own click file: `video_id,time,label,annotator`, seconds."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(formats.CLICK_COLUMNS['csv'])
  writer.writerows((c.video, c.time, c.label, c.annotator) for c in clicks)
  with files.atomic(path) as f:
    f.write(text.getvalue().encode())


def _click(video, time, label, annotator, ground_truth, format, fps):
  """Return the Click of one line; raise InputError without the place."""
  if not video or not label:
    raise errors.InputError('no video or no label, expected both')
  seconds, known = formats.number(time, 'the time'), None
  if ground_truth is not None:
    known = ground_truth.videos.get(match_name(video, ground_truth.videos))
    if known is None:
      raise errors.InputError(f'video {video!r} is not in the ground truth')
    video = known.name
  if format == 'frames':
    fps = (known and known.fps) or fps
    if not fps or fps < 0:
      raise errors.InputError(
        f'a frame number, but no frames a second for video {video!r}, '
        'expected them in the ground truth or as fps'
      )
    seconds /= fps
  if seconds < 0:
    raise errors.InputError(f'the time is {seconds:g} s, expected 0 or later')
  if known and known.duration is not None and seconds > known.duration:
    raise errors.InputError(
      f'the time is {seconds:g} s, the video ends at {known.duration:g} s'
    )
  if format == 'backtal' and label == 'background_background':
    label = BACKGROUND
  if known and label not in (*ground_truth.classes, BACKGROUND):
    raise errors.InputError(
      f'class {label!r} is unknown, expected {BACKGROUND!r} or one of the '
      f"ground truth's {len(ground_truth.classes)} classes"
    )
  return Click(video, seconds, label, annotator)


def _collect(path, videos, classes):
  """Return Annotations of [Video], whose names must differ."""
  by_name = {video.name: video for video in videos}
  for name in by_name:
    if f'v_{name}' in by_name:
      raise errors.InputError(f'{path}: duplicate video {name!r} and v_{name}')
  return Annotations(by_name, tuple(classes))


def _read_activitynet(path):
  data = formats.read_object(path)
  database = data.get('database')
  if not isinstance(database, dict):
    raise errors.InputError(
      f'{path}: no object "database" in it, expected ActivityNet\'s format'
    )
  videos = []
  for name, entry in database.items():
    try:
      videos.append(_video(formats.name(name, 'its name'), entry))
    except errors.InputError as e:
      raise errors.InputError(f'{path}: video {name!r}: {e}') from e
  used = {s.label: v.name for v in videos for s in v.segments}
  classes = data.get('activity_list')
  if classes is None:
    return _collect(path, videos, sorted(used))
  if not isinstance(classes, list):
    raise errors.InputError(f'{path}: activity_list is not a list of names')
  classes = [
    formats.name(c, f'{path}: activity_list: a class') for c in classes
  ]
  for label in (c for c in classes if classes.count(c) > 1):
    raise errors.InputError(f'{path}: activity_list: {label!r} twice')
  for label in sorted(used.keys() - set(classes)):
    raise errors.InputError(
      f'{path}: video {used[label]!r}: class {label!r} is not in activity_list'
    )
  return _collect(path, videos, classes)


def _video(name, entry):
  """Return one video of ActivityNet's database; InputError without place."""
  if not isinstance(entry, dict):
    raise errors.InputError(f'found {str(entry)[:50]!r}, expected an object')
  subset = formats.name(entry.get('subset'), 'subset')
  duration, fps = (
    None if entry.get(key) is None else formats.number(entry[key], key)
    for key in ('duration', 'fps')
  )
  listed = entry.get('annotations') or []
  if not isinstance(listed, list):
    raise errors.InputError('annotations is not a list')
  segments = []
  for item in listed:
    bounds = item.get('segment') if isinstance(item, dict) else None
    if not isinstance(bounds, list) or len(bounds) != 2:
      raise errors.InputError(
        f'annotation {str(item)[:80]!r}, expected a label and a segment of '
        'start and end'
      )
    start, end = (formats.number(bound, 'a bound') for bound in bounds)
    segments.append(
      Segment(start, end, formats.name(item.get('label'), 'label'))
    )
  return Video(name, subset, duration, fps, tuple(segments))


def _read_thumos14(path):
  subsets, segments, classes = {}, collections.defaultdict(list), set()
  for where, label, subset, name, start, end in formats.read_thumos14(path):
    if subsets.setdefault(name, subset) != subset:
      raise errors.InputError(f'{where}: {name} is in val and in test')
    bounds = (formats.number(x, f'{where}: a bound') for x in (start, end))
    segments[name].append(Segment(*bounds, label))
    classes.add(label)
  videos = [
    Video(name, subsets[name], None, None, tuple(segments[name]))
    for name in sorted(segments)
  ]
  return _collect(path, videos, sorted(classes))
