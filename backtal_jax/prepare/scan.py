"""Features held against annotations: which videos, which way round, when."""

import collections
import contextlib
import dataclasses
import functools
import sys
from concurrent import futures

import numpy as np

from backtal_jax import errors, files
from backtal_jax.data import (
  annotations,
  feature_files,
  feature_records,
  video_names,
)
from backtal_jax.prepare import feature_folders, options

# Share of a video's length that its time grid may end before or after it.
_APART = 0.1
_WAYS = {False: "[T', D]", True: "[D, T']"}


Videos = dict[str, annotations.AnnotatedVideo]
# {video: (T', D) of each stream}.
Shapes = dict[str, list[tuple[int, int]]]


def match(
  opened: feature_folders.Opened, videos: Videos, annotated: Videos
) -> tuple[feature_folders.Opened, list[str]]:
  """Return the features of the videos by their names there, and problems.

  Features of other `annotated` videos and of none are told.
  """
  mapping, rest = video_names.match(opened, videos)
  matched, names = {}, {}
  for name, video in mapping.items():
    if video in names:
      raise errors.InputError(
        f'duplicate video {video!r}: features {names[video]!r} and {name!r}'
      )
    matched[video], names[video] = opened[name], name
  files.names_of(matched)  # refuses two of one name
  if not matched:
    raise errors.InputError(
      f'none of the {len(opened)} videos with features is among the '
      f'{len(videos)} annotated ones, e.g. {next(iter(opened))!r}'
      + video_names.nearest(next(iter(opened)), videos)
    )
  other, unknown = video_names.match(rest, annotated)
  for count, what in (
    (len(other), 'are in neither of the two splits'),
    (len(unknown), f'have no annotation: {errors.few(unknown)}'),
  ):
    if count:
      print(
        f'not used: {count} of {len(opened)} videos with features {what}',
        file=sys.stderr,
      )
  missing = [name for name in videos if name not in matched]
  near = {name: video_names.nearest(name, unknown) for name in missing[:3]}
  return matched, [
    f'video {name!r} has no features{near.get(name, "")}' for name in missing
  ]


def look(
  opened: feature_folders.Opened, videos: Videos, recipe: options.Recipe
) -> tuple[Shapes, list[str]]:
  """Look at every file's header; drop the wrong videos from `opened`.

  Features that lie [D, T'] are turned. Returns the shapes of the
  right ones, and problems.
  """

  def look_at(name):
    try:
      return [array.shape for array in opened[name]()], None
    except errors.InputError as e:
      return [], str(e)

  with futures.ThreadPoolExecutor(recipe.workers) as pool:
    looked = dict(zip(opened, pool.map(look_at, opened), strict=True))
  shapes = {name: found for name, (found, _) in looked.items() if found}
  problems = [problem for _, problem in looked.values() if problem]
  if _are_turned(shapes, videos, recipe):
    shapes = {k: [s[::-1] for s in found] for k, found in shapes.items()}
    for name, read in opened.items():
      opened[name] = functools.partial(_turned, read)
  dims = {name: tuple(dim for _, dim in s) for name, s in shapes.items()}
  common = collections.Counter(dims.values()).most_common(1)
  for name, found in list(shapes.items()):
    if min(count for count, _ in found) < 2 or not any(dims[name]):
      expected = 'expected 2 snippets and a channel'
    elif len(found) > 2:
      expected = 'expected one or two streams'
    elif dims[name] != common[0][0]:
      usual = ' and '.join(map(str, common[0][0]))
      expected = f'most have {usual} channels'
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
  given = recipe.channels_first
  ways = feature_files.ways_round(shapes.values(), given=given)
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


def find_grid(
  recipe: options.Recipe, video: annotations.AnnotatedVideo
) -> feature_records.Grid | None:
  """Return where the snippets of a video lie; None without a stride.

  Of a video whose duration is not known yet, that of the grid is 0.
  """
  if recipe.stride is None:
    return None
  fps, window = recipe.fps or video.fps, recipe.window or recipe.stride
  if not fps:
    raise errors.InputError(
      f'video {video.name!r}: no fps in the annotations, expected --fps'
    )
  return feature_records.Grid(video.duration or 0.0, fps, window, recipe.stride)


def complete(
  truth: annotations.Annotations, shapes: Shapes, recipe: options.Recipe
) -> tuple[annotations.Annotations, list[str]]:
  """Fill in durations that only the features tell, and fps.

  Returns these, and problems, whose videos are dropped from `shapes`.
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
  duration = video.duration
  fps = video.fps or recipe.click_fps or recipe.fps
  grid = find_grid(recipe, video)
  end = grid and ((count - 1) * grid.stride + grid.window) / grid.fps
  if duration is None:
    duration = end
  if not fps or fps < 0 or duration is None or not 0 < duration < np.inf:
    raise errors.InputError(
      f'video {video.name!r}: duration {duration}, fps {fps}, expected both to '
      'be positive: in the annotations or --video_list, fps else as --fps, '
      'the duration else from --fps and --stride'
    )
  if grid:
    step = ((recipe.window or 0) + 2 * grid.stride) / grid.fps
    if abs(end - duration) > max(_APART * duration, step):
      raise errors.InputError(
        f'video {video.name!r} is {duration:g} s long, its features end at '
        f'{end:g} s; are --fps, --stride and --window right?'
      )
  return dataclasses.replace(video, duration=duration, fps=fps)
