"""What data is prepared from: read and checked before anything is written."""

import collections
import dataclasses
import sys
from typing import NamedTuple

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import (
  annotation_formats,
  annotations,
  clicks,
  feature_records,
  video_names,
)
from backtal_jax.prepare import feature_folders, options, scan

_GRID = 'fps', 'stride', 'window'


class Inputs(NamedTuple):
  """Everything a recipe names."""

  recipe: options.Recipe  # with the grid of the features' record
  truth: annotations.Annotations  # durations and fps completed
  labels: dict[str, set[str]]  # of the videos
  clicks: list[annotations.Click]
  record: feature_records.Record  # how the features were made
  features: feature_folders.Opened  # the right ones
  feature_dim: int  # D


def read(recipe: options.Recipe) -> Inputs:
  """Read what the recipe names, of features only the headers.

  Raises:
    errors.InputError: Something is wrong; of lists, see `errors.tell`.
  """
  folders = [files.path(folder) for folder in recipe.features]
  record = feature_records.read_joint(folders)
  recipe = _with_grid(recipe, record)
  truth, labels = _read_annotations(recipe)
  for name, video in truth.videos.items():
    if not video.subset:
      raise errors.InputError(
        f'{recipe.ground_truth}: video {name!r} tells no subset, expected one '
        'there or in --labels'
      )
  if record:
    truth = _with_times(truth, folders[0], keep_fps=bool(record['fps']))
  recipe = _with_splits(recipe, truth, labels)
  videos = _videos(recipe, truth)
  opened = feature_folders.open_features(
    folders,
    names=recipe.video_names and files.path(recipe.video_names),
    allow_pickle=recipe.allow_pickle,
  )
  opened, problems = scan.match(opened, videos, truth.videos)
  shapes, wrong = scan.look(opened, videos, recipe)
  truth, incomplete = scan.complete(truth, shapes, recipe)
  clicked, complaints = clicks.read(
    map(files.path, recipe.clicks),
    truth,
    fps=recipe.click_fps,
    lenient=True,
    intervals=recipe.intervals,
  )
  right = {name: truth.videos[name] for name in shapes}
  annotations.note(dataclasses.replace(truth, videos=right))
  errors.tell(problems + wrong + incomplete + complaints, recipe.lenient)
  if recipe.clicks:
    print(clicks.coverage(clicked, [*truth.subset(recipe.train_split)])[0])
  if not shapes:
    raise errors.InputError(f'{recipe.features[0]}: every video is wrong')
  return Inputs(
    recipe,
    truth,
    labels,
    clicked,
    record,
    {name: opened[name] for name in shapes},
    sum(dim for _, dim in next(iter(shapes.values()))),
  )


def _videos(recipe, truth):
  """Return the annotated videos of the two splits."""
  videos = truth.subset(recipe.train_split)
  if not recipe.eval_split:
    return videos
  evaluated = truth.subset(recipe.eval_split)
  if evaluated.keys() == videos.keys():
    print(
      f'warning: --eval_split {recipe.eval_split} is the training split: mAP '
      'will be of videos that are trained on',
      file=sys.stderr,
    )
  if not any(v.segments for v in evaluated.values()):
    raise errors.InputError(
      f'subset {recipe.eval_split!r} has no segments, expected some to '
      'evaluate with; --eval_split names another subset'
    )
  return videos | evaluated


def _with_splits(recipe, truth, labels):
  """Return the recipe with the evaluation split, '' where there is none.

  Then the training videos are all there is, and have to have what is learned.
  """
  split = recipe.train_split.casefold()
  if recipe.eval_split or any(
    video.subset.casefold() != split for video in truth.videos.values()
  ):
    return dataclasses.replace(
      recipe, eval_split=recipe.eval_split or 'validation'
    )
  known = set().union(*labels.values())
  if not known:
    raise errors.InputError(
      f'{truth.path}: no video has a label, expected the classes that are in '
      'it, in --labels or --ground_truth'
    )
  for name in truth.classes:
    if name not in known:
      raise errors.InputError(
        f'{truth.path}: class {name!r} has no training video, expected one or '
        'more that have its label, or no such class'
      )
  print(
    f'{len(truth.videos)} videos, all of subset {recipe.train_split!r}: '
    "without an evaluation split (config.data.eval_split is ''), there will be "
    'no mAP'
  )
  return recipe


def _with_grid(recipe, record):
  """Return the recipe with the grid of the features' record, if any."""
  if not record:
    return recipe
  grid = {k: v and float(v) for k, v in record.items() if k in _GRID}
  grid['channels_first'] = False
  for key in ('channels_first', *_GRID):
    given = getattr(recipe, key)
    if given is not None and given != grid.get(key):
      shown = f'{given:g}' if isinstance(given, float) else given
      raise errors.InputError(
        f'--{key} is {shown}, but {recipe.features[0]}/'
        f'{feature_records.NAME} says {record.get(key)}'
      )
  return dataclasses.replace(recipe, **grid)


def _with_times(truth, folder, *, keep_fps):
  """Take fps and durations, those of the pictures, from videos.csv.

  Where features lie on a grid of their own, and fps is but that of frames
  which clicks name, the annotations' own fps may be kept.
  """
  told = annotation_formats.read_video_list(folder / feature_records.VIDEOS)
  names, _ = video_names.match(truth.videos, told)
  videos = {
    name: dataclasses.replace(
      video, duration=None, fps=video.fps if keep_fps else None
    )
    if name in names
    else video
    for name, video in truth.videos.items()
  }
  return dataclasses.replace(truth, videos=videos).completed(told)


def read_labels(
  path: epath.Path,
) -> tuple[dict[str, annotations.AnnotatedVideo], dict[str, set[str]]]:
  """Read CSV `video_id,subset,label[,duration,fps]`, a row a label.

  Returns:
    {video: AnnotatedVideo without segments}, {video: set of labels}.
  """
  videos, labels = {}, collections.defaultdict(set)
  for where, row in annotation_formats.read_labels(path):
    name, label = row['video_id'], row['label']
    told = {key: row[key] for key in ('duration', 'fps') if row.get(key)}
    times = annotation_formats.video_times(told, where)
    video = annotations.AnnotatedVideo(
      name, row['subset'], times.duration, times.fps, ()
    )
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
    truth = annotations.read_ground_truth(files.path(recipe.ground_truth))
  lengths = {}
  if recipe.video_list:
    lengths = annotations.read_lengths(files.path(recipe.video_list))
  labels = {k: {s.label for s in v.segments} for k, v in truth.videos.items()}
  if not recipe.labels:
    return truth.completed(lengths), labels
  videos, told = read_labels(files.path(recipe.labels))
  classes = truth.classes or tuple(sorted(set().union(*told.values())))
  names, _ = video_names.match(videos, truth.videos)
  owner = {}
  for name, video in videos.items():
    unknown = sorted(told[name] - set(classes))
    if unknown:
      raise errors.InputError(
        f'{recipe.labels}: video {name!r}: class {unknown[0]!r} is unknown, '
        f"expected one of the ground truth's {len(classes)} classes"
      )
    known = names.get(name)
    if (other := owner.setdefault(known or name, name)) != name:
      raise errors.InputError(
        f'{recipe.labels}: videos {other!r} and {name!r} are one in '
        f'{recipe.ground_truth}, {known!r}'
      )
    labels[known or name] = told[name]
    if known is None:
      truth.videos[name] = video
    elif not truth.videos[known].subset:
      truth.videos[known] = dataclasses.replace(
        truth.videos[known], subset=video.subset
      )
  path = truth.path if recipe.ground_truth else recipe.labels
  truth = annotations.Annotations(truth.videos, classes, path)
  return truth.completed(lengths), labels
