"""What data is prepared from: read and checked before anything is written."""

import argparse
import collections
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import numpy as np
from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import (
  annotation_formats,
  annotations,
  click_tools,
  clicks,
  feature_files,
  feature_records,
  resampling,
)
from backtal_jax.data.prepare import feature_folders

# Share of a video's length that its time grid may end before or after it.
_APART = 0.1
_WAYS = {False: "[T', D]", True: "[D, T']"}
_FLAG = 'store_true'


def _option(help, default=dataclasses.MISSING, **how):
  """Return a field of Recipe that is an option of the command line, too."""
  return dataclasses.field(default=default, metadata={'help': help, **how})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """What is prepared from what: the options of `prepare custom`.

  `base` is the benchmark of configs/ this is, if any, `feature_dim` its D.
  """

  features: tuple[str, ...] = _option(
    'a folder of .npy or .npz files, or one .npy with all videos; a second '
    'one for a second stream (RGB, then flow)',
    nargs='+',
    metavar='PATH',
  )
  output: str = _option('the data root')
  ground_truth: str = _option('of any format', '')
  labels: str = _option(
    'CSV video_id,subset,label[,duration,fps] of video labels', ''
  )
  video_list: str = _option(
    'CSV video_id,duration[,fps] where the ground truth lacks these', ''
  )
  clicks: tuple[str, ...] = _option(
    'of any format', (), nargs='+', metavar='FILE'
  )
  intervals: str = _option(
    "how annotation tools' intervals become clicks: their midpoint, or "
    'background in the complement', '', choices=click_tools.INTERVALS[1:],
  )  # fmt: skip
  train_split: str = _option('subset', 'training')
  eval_split: str = _option('subset, with segments', 'validation')
  num_snippets: int = _option('T', 100, type=int)
  fps: float | None = _option(
    'frames a second of the features', None, type=float
  )
  stride: float | None = _option(
    'frames; without it, snippets are equal parts of the video',
    None,
    type=float,
  )
  window: float | None = _option(
    'frames of a snippet; default: the stride', None, type=float
  )
  video_names: str | None = _option(
    '.npy of the names in an .npy with all videos', None
  )
  channels_first: bool | None = _option(
    "files hold [D, T']; default: what fits",
    None,
    action=argparse.BooleanOptionalAction,
  )
  allow_pickle: bool = _option(
    'read pickled features, which can run any code', False, action=_FLAG
  )
  workers: int = _option('threads', 8, type=int)
  lenient: bool = _option('leave out what is wrong', False, action=_FLAG)
  overwrite: bool = _option(
    'make anew what was made otherwise', False, action=_FLAG
  )
  base: str = ''
  feature_dim: int = 0

  def __post_init__(self):
    for field in ('num_snippets', 'fps', 'stride', 'window', 'workers'):
      value = getattr(self, field)
      if value is not None and not 0 < value < np.inf:
        raise errors.InputError(f'--{field} is {value}, expected more than 0')
    if not 1 <= len(self.features) <= 2:
      raise errors.InputError(
        f'--features has {len(self.features)} paths, expected 1 or 2'
      )
    if not self.ground_truth and not self.labels:
      raise errors.InputError('expected --ground_truth or --labels')


class Inputs(NamedTuple):
  """Everything a recipe names."""

  truth: annotations.Annotations  # durations and fps completed
  labels: dict[str, set[str]]  # of the videos
  clicks: list[annotations.Click]
  record: dict  # how the features were made, see feature_records
  features: dict[str, Callable]  # see feature_folders, the right ones
  feature_dim: int  # D


def read(recipe) -> Inputs:
  """Read what the recipe names, of features only the headers.

  Raises:
    errors.InputError: something is wrong; of lists, see `errors.tell`.
  """
  recipe, record = with_grid(recipe)
  truth, labels = _read_annotations(recipe)
  for name, video in truth.videos.items():
    if not video.subset:
      raise errors.InputError(
        f'{recipe.ground_truth}: video {name!r} tells no subset, expected one '
        'there or in --labels'
      )
  if record:
    truth = _with_times(truth, files.path(recipe.features[0]))
  videos = {
    **truth.subset(recipe.train_split),
    **truth.subset(recipe.eval_split),
  }
  if not any(v.segments for v in truth.subset(recipe.eval_split).values()):
    raise errors.InputError(
      f'subset {recipe.eval_split!r} has no segments, expected some to '
      'evaluate with; --eval_split names another subset'
    )
  opened = feature_folders.open_features(
    recipe.features, names=recipe.video_names, allow_pickle=recipe.allow_pickle
  )
  opened, problems = _match(opened, videos, truth.videos)
  shapes, wrong = _scan(opened, videos, recipe)
  truth, incomplete = _complete(truth, shapes, recipe)
  clicked, complaints = _read_clicks(recipe, truth)
  errors.tell(problems + wrong + incomplete + complaints, recipe.lenient)
  if recipe.clicks:
    print(clicks.coverage(clicked, [*truth.subset(recipe.train_split)]))
  if not shapes:
    raise errors.InputError(f'{recipe.features[0]}: every video is wrong')
  return Inputs(
    truth,
    labels,
    clicked,
    record,
    {name: opened[name] for name in shapes},
    sum(dim for _, dim in next(iter(shapes.values()))),
  )


def with_grid(recipe) -> tuple[Recipe, dict]:
  """Take the grid from the features' record, if there is one.

  Returns:
    The recipe, and the record or {}.

  Raises:
    errors.InputError: The recipe says something else.
  """
  record = feature_records.read_joint(recipe.features)
  grid = {
    key: record[key] and float(record[key])
    for key in ('fps', 'stride', 'window')
    if record
  }
  for key, value in grid.items():
    given = getattr(recipe, key)
    if given is not None and given != value:
      raise errors.InputError(
        f'--{key} is {given:g}, but {recipe.features[0]}/'
        f'{feature_records.NAME} says '
        f'{value}'
      )
  return dataclasses.replace(recipe, **grid), record


def _with_times(truth, folder):
  """Fill in what videos.csv says: the fps, and durations that are missing."""
  table = folder / feature_records.VIDEOS
  told, videos = annotation_formats.read_video_list(table), {}
  names, _ = annotations.match_names(truth.videos, told)
  for name, video in truth.videos.items():
    duration, fps = told.get(names.get(name), (video.duration, video.fps))
    duration = duration if video.duration is None else video.duration
    videos[name] = dataclasses.replace(video, duration=duration, fps=fps)
  return dataclasses.replace(truth, videos=videos)


def read_labels(path):
  """Read CSV `video_id,subset,label[,duration,fps]`, a row a label.

  Args:
    path: of the file.

  Returns:
    {video: AnnotatedVideo without segments}, {video: set of labels}.
  """
  videos, labels = {}, collections.defaultdict(set)
  for where, row in annotation_formats.read_table(
    epath.Path(path), ('video_id', 'subset', 'label'), ('duration', 'fps')
  ):
    name, label = row['video_id'], row['label']
    if not name or not row['subset']:
      raise errors.InputError(f'{where}: no video or no subset, expected both')
    told = [
      annotation_formats.number(row[key], f'{where}: {key}')
      if row.get(key)
      else None
      for key in ('duration', 'fps')
    ]
    video = annotations.AnnotatedVideo(name, row['subset'], *told, ())
    if videos.setdefault(name, video) != video:
      raise errors.InputError(
        f'{where}: duplicate video {name!r} with another subset, duration or '
        'fps'
      )
    if label in labels[name]:
      raise errors.InputError(
        f'{where}: duplicate label {label!r} of video {name!r}'
      )
    labels[name].update({label} - {''})
  return videos, dict(labels)


def _read_annotations(recipe):
  """Return Annotations and {video: set of labels} of all sources."""
  truth = annotations.Annotations({}, ())
  if recipe.ground_truth:
    truth = annotations.read_ground_truth(
      recipe.ground_truth, video_list=recipe.video_list or None
    )
  labels = {k: {s.label for s in v.segments} for k, v in truth.videos.items()}
  if not recipe.labels:
    return truth, labels
  videos, told = read_labels(recipe.labels)
  classes = truth.classes or tuple(sorted(set().union(*told.values())))
  for name, video in videos.items():
    unknown = sorted(told[name] - set(classes))
    if unknown:
      raise errors.InputError(
        f'{recipe.labels}: video {name!r}: class {unknown[0]!r} is unknown, '
        f"expected one of the ground truth's {len(classes)} classes"
      )
    known = annotations.match_name(name, truth.videos)
    labels[known or name] = told[name]
    if known is None:
      truth.videos[name] = video
    elif not truth.videos[known].subset:
      truth.videos[known] = dataclasses.replace(
        truth.videos[known], subset=video.subset
      )
  return annotations.Annotations(truth.videos, classes), labels


def _match(opened, videos, annotated):
  """Return the features of the videos by their names there, and problems.

  Features of other `annotated` videos and of none are told.
  """
  mapping, rest = annotations.match_names(opened, videos)
  matched, names = {}, {}
  for name, video in mapping.items():
    if video in names:
      raise errors.InputError(
        f'duplicate video {video!r}: features {names[video]!r} and {name!r}'
      )
    matched[video], names[video] = opened[name], name
  if not matched:
    raise errors.InputError(
      f'none of the {len(opened)} videos with features is among the '
      f'{len(videos)} annotated ones, e.g. {next(iter(opened))!r}'
      + annotations.nearest(next(iter(opened)), videos)
    )
  other, unknown = annotations.match_names(rest, annotated)
  if other:
    print(
      f'not used: {len(other)} of {len(opened)} videos with features are in '
      'neither of the two splits',
      file=sys.stderr,
    )
  if unknown:
    print(
      f'not used: {len(unknown)} of {len(opened)} videos with features have '
      f'no annotation: {errors.few(unknown)}',
      file=sys.stderr,
    )
  missing = [name for name in videos if name not in matched]
  near = {name: annotations.nearest(name, unknown) for name in missing[:3]}
  return matched, [
    f'video {name!r} has no features{near.get(name, "")}' for name in missing
  ]


def _scan(opened, videos, recipe):
  """Look at every file's header; drop the wrong videos from `opened`.

  Features that lie [D, T'] are turned.

  Returns:
    {video: [(T', D) of each stream]} of the right ones, and problems.
  """

  def look(name):
    try:
      return [array.shape for array in opened[name]()]
    except errors.InputError as e:
      return str(e)

  with futures.ThreadPoolExecutor(recipe.workers) as pool:
    looked = dict(zip(opened, pool.map(look, opened), strict=True))
  shapes = {k: s for k, s in looked.items() if not isinstance(s, str)}
  problems = [s for s in looked.values() if isinstance(s, str)]
  if _are_turned(shapes, videos, recipe):
    shapes = {k: [s[::-1] for s in found] for k, found in shapes.items()}
    for name in opened:
      opened[name] = functools.partial(_turned, opened[name])
  dims = collections.Counter(
    tuple(dim for _, dim in s) for s in shapes.values()
  )
  usual = dims.most_common(1)[0][0] if dims else ()
  for name, found in list(shapes.items()):
    if min(count for count, _ in found) < 2:
      expected = 'expected 2 snippets'
    elif len(found) > 2:
      expected = 'expected one or two streams'
    elif tuple(dim for _, dim in found) != usual:
      expected = f'most have {" and ".join(map(str, usual))} channels'
    else:
      continue
    problems.append(f'video {name!r} has features {found}, {expected}')
    del shapes[name]
  for name in opened.keys() - shapes.keys():
    del opened[name]
  return shapes, problems


def _turned(read):
  return [stream.T for stream in read()]


def _are_turned(shapes, videos, recipe):
  """Return whether features lie [D, T'].

  What is known decides: that most videos have the same channels; of a
  benchmark D; the time grid and the videos' durations; a length of T.
  """
  ways = feature_files.ways_round(shapes.values())
  given = recipe.channels_first
  shown = ' and '.join(map(str, next(iter(shapes.values()), ())))
  shown = f'{recipe.features[0]}: features have shape {shown}'
  if given in ways or (given is not None and not ways):
    return given
  if given is not None:
    raise errors.InputError(
      f'{shown}: their channels are the same in most videos only as '
      f'{_WAYS[not given]}, but {"" if given else "no-"}channels_first says '
      f'{_WAYS[given]}'
    )
  fits = {turned: _fit(shapes, videos, recipe, turned) for turned in ways}
  if len(set(fits.values())) < len(ways):
    raise errors.InputError(
      f'{shown}: cannot tell snippets from channels; --channels_first if that '
      "is [D, T'], --no-channels_first if it is [T', D]"
    )
  turned = bool(ways) and max(fits, key=fits.get)
  if turned:
    print(f'{shown}: read as {_WAYS[True]}', file=sys.stderr)
  return turned


def _fit(shapes, videos, recipe, turned):
  """Count the videos that fit D, the time grid and T, the ways round."""
  score = [0, 0, 0]
  for name, streams in shapes.items():
    count = streams[0][turned]
    score[0] += sum(s[not turned] for s in streams) == recipe.feature_dim
    with contextlib.suppress(errors.InputError):
      _completed(videos[name], count, recipe)
      score[1] += 1
    score[2] += count == recipe.num_snippets
  return tuple(score)


def time_grid(recipe, video, count):
  """Return (times [count], end) in seconds; None without a stride."""
  if recipe.stride is None:
    return None
  fps = recipe.fps or video.fps
  if not fps:
    raise errors.InputError(
      f'video {video.name!r}: no fps in the annotations, expected --fps'
    )
  stride, window = recipe.stride, recipe.window or recipe.stride
  times = resampling.centre_times(count, stride=stride, window=window, fps=fps)
  return times, ((count - 1) * stride + window) / fps


def _complete(truth, shapes, recipe):
  """Fill in durations that only the features tell, and fps.

  Returns:
    Annotations; and problems, whose videos are dropped from `shapes`.
  """
  videos, problems = dict(truth.videos), []
  for name, ((count, _), *_) in list(shapes.items()):
    try:
      videos[name] = _completed(videos[name], count, recipe)
    except errors.InputError as e:
      problems.append(str(e))
      del shapes[name]
  return dataclasses.replace(truth, videos=videos), problems


def _completed(video, count, recipe):
  """Return a video with duration and fps that fit its `count` snippets."""
  duration, fps = video.duration, video.fps or recipe.fps
  grid = time_grid(recipe, video, count)
  if grid and duration is None:
    duration = grid[1]
  if not fps or fps < 0 or duration is None or not 0 < duration < np.inf:
    raise errors.InputError(
      f'video {video.name!r}: duration {duration}, fps {fps}, expected both to '
      'be positive: in the annotations or --video_list, fps else as --fps, '
      'the duration else from --fps and --stride'
    )
  if grid:
    step = (recipe.window or 0) + 2 * recipe.stride
    apart = abs(grid[1] - duration)
    if apart > max(_APART * duration, step / (recipe.fps or video.fps)):
      raise errors.InputError(
        f'video {video.name!r} is {duration:g} s long, its features end at '
        f'{grid[1]:g} s; are --fps, --stride and --window right?'
      )
  return dataclasses.replace(video, duration=duration, fps=fps)


def _read_clicks(recipe, truth):
  """Return the clicks of all files, and a complaint for each wrong line."""
  clicked, problems = [], []
  for path in recipe.clicks:
    found, complaints = annotations.read_clicks(
      path,
      truth,
      fps=recipe.fps,
      lenient=True,
      intervals=recipe.intervals,
    )
    clicked += found
    problems += complaints
  return clicked, problems
