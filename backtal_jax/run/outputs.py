"""What an evaluation leaves in a workdir: predictions, metrics and curves.

Curves are what the network said along every evaluated video, in float16; of
the classes only those that are labelled or were found.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
from etils import epath

from backtal_jax import errors, files, localization
from backtal_jax.data import annotations, npz
from backtal_jax.metrics import agreement, scores, segments
from backtal_jax.run import hosts

# Of a video's curves: what has one value a snippet.
_Along = Literal['foreground', 'magnitude', 'background', 'action']
_ALONG: Sequence[_Along] = 'foreground', 'magnitude', 'background', 'action'


class Shown(TypedDict):
  """What a timeline shows of one video."""

  labels: list[str]  # names [M] of the classes that are kept
  cas: np.ndarray  # [M, T] as read
  foreground: np.ndarray  # [T]
  magnitude: np.ndarray  # [T] on the scale of the thresholds (method.md, 4.5)
  background: np.ndarray  # [T] bool: clicked
  action: np.ndarray  # [T] which of the labels was clicked, -1 for none


class Results(NamedTuple):
  """What an evaluation gives."""

  metrics: scores.Metrics
  found: dict[str, localization.Found]  # by video
  classes: tuple[str, ...]  # that labels index
  segments: segments.Segments  # those of them that count
  curves: dict[str, Shown]  # by video
  agreement: agreement.ByVideo  # of training videos with clicks kept aside


class Run(NamedTuple):
  """What a workdir holds, read."""

  name: str
  config: dict[str, Any]
  metrics: scores.Metrics
  log: list[dict[str, float]]  # lines of metrics.jsonl
  truth: segments.Truth
  predictions: segments.Segments
  curves: dict[str, Shown]  # by video
  agreement: agreement.ByVideo


def check_classes(
  workdir: epath.Path, ground_truth: annotations.Annotations
) -> None:
  """Refuse ground truth whose classes are not those a workdir was trained on.

  Raises:
    errors.InputError: Names the first class that differs.
  """
  path = workdir / 'classes.json'
  theirs = files.read_json(path) if path.exists() else ground_truth.classes
  pairs = itertools.zip_longest(ground_truth.classes, theirs)
  for i, (ours, other) in enumerate(pairs):
    if ours != other:
      raise errors.InputError(
        f'{ground_truth.path}: class {i} is {ours!r}, in {path} it is {other!r}'
      )


def begin(
  workdir: epath.Path, classes: Iterable[str], held: Sequence[annotations.Click]
) -> None:
  """Write what a training knows before its first step; process 0 does.

  The names of the classes, for predict.load anywhere else, to classes.json;
  the clicks that are never trained on, if any, to clicks_aside.csv.

  Raises:
    errors.InputError: The run has kept other clicks aside.
  """
  if not hosts.is_main_process():
    return
  path = workdir / 'clicks_aside.csv'
  if held:
    if path.exists() and annotations.read_clicks(path)[0] != [*held]:
      raise errors.InputError(
        f'{path}: the run has kept other clicks aside than the click files '
        'give now, so they have changed; choose another --workdir'
      )
    annotations.write_clicks(path, held)
  files.write_json(workdir / 'classes.json', list(classes))


def write(workdir: epath.Path, results: Results) -> None:
  """Write predictions.json, curves.npz, then metrics.json; process 0 does.

  And agreement.json, where clicks were kept aside.
  """
  if hosts.is_main_process():
    predictions = {
      name: localization.format_video(results.found[name], results.classes)
      for name in sorted(results.found)
    }
    files.write_json(
      workdir / 'predictions.json', localization.format_results(predictions)
    )
    write_curves(workdir / 'curves.npz', results.curves)
    if results.agreement:
      files.write_json(workdir / 'agreement.json', results.agreement)
    files.write_json(workdir / 'metrics.json', results.metrics, indent=1)


def read(workdir: epath.Path, ground_truth: epath.PathLike = '') -> Run:
  """Read the results of a run.

  The ground truth is a path, by default that in the config.

  Raises:
    errors.InputError: A file is missing or wrong.
  """
  for name in ('config.json', 'metrics.json'):
    if not (workdir / name).exists():
      raise errors.InputError(
        f'{workdir / name}: no such file, expected the workdir of a run that '
        'was evaluated'
      )
  config = files.read_json(workdir / 'config.json')
  metrics = files.read_json(workdir / 'metrics.json')
  try:
    data = config['data']
    path = files.find(ground_truth or data['ground_truth'], data['root'])
    split = data['eval_split']
    if split:
      _ = metrics['tiou'], metrics['mAP'], metrics['average_mAP']
  except (KeyError, TypeError) as e:
    raise errors.InputError(
      f'{workdir}: its config.json or metrics.json is not of a run: {e!r}'
    ) from e
  predicted, agreed = workdir / 'predictions.json', workdir / 'agreement.json'
  if split:
    truth, predictions = segments.read(path, split, predicted)
  else:  # what is found in the training videos
    known = annotations.read_ground_truth(path)
    truth = segments.unannotated(known, data['train_split'])
    predictions = segments.parse_predictions(
      files.read_json(predicted), truth, str(predicted)
    )
  return Run(
    name=workdir.resolve().name,
    config=config,
    metrics=metrics,
    log=files.read_json_lines(workdir / 'metrics.jsonl'),
    truth=truth,
    predictions=predictions,
    curves=read_curves(workdir / 'curves.npz'),
    agreement=files.read_json(agreed) if agreed.exists() else {},
  )


def take(
  curves: Mapping[str, np.ndarray],
  click: np.ndarray,
  labels: Iterable[int],
  classes: Sequence[str],
  read: str = 'logits',
) -> Shown:
  """Keep what a timeline shows of one video.

  Args:
    curves: What predict.predict_batches yields of the video.
    click: [T] labels, C where the background was clicked.
    labels: Indices of the classes to keep.
    classes: C names.
    read: What of the CAS was localised, see localization.activation.
  """
  clicked = np.where((click >= 0) & (click < len(classes)), click, -1)
  index = sorted({*map(int, labels), *clicked[clicked >= 0].tolist()})
  magnitude = localization.normalize(curves['magnitude'][:, None]).clip(0, 1)
  limit = np.finfo(np.float16).max
  cas = localization.activation(curves['cas'], read).T
  return {
    'labels': [classes[i] for i in index],
    'cas': cas[index].clip(-limit, limit).astype(np.float16),
    'foreground': curves['foreground'].astype(np.float16),
    'magnitude': magnitude[:, 0].astype(np.float16),
    'background': click == len(classes),
    'action': np.where(clicked < 0, -1, np.searchsorted(index, clicked)).astype(
      np.int16
    ),
  }


def write_curves(path: epath.Path, videos: Mapping[str, Shown]) -> None:
  """Write what is shown of each video, atomically."""
  rows = list(videos.values())
  stacked = {key: np.stack([row[key] for row in rows]) for key in _ALONG}
  with files.atomic(path) as f:
    np.savez_compressed(
      f,
      video=np.array(list(videos)),
      cas=np.concatenate([row['cas'] for row in rows]),
      label=np.array([name for row in rows for name in row['labels']], str),
      owner=np.repeat(np.arange(len(rows)), [len(r['labels']) for r in rows]),
      allow_pickle=False,
      **stacked,
    )


def read_curves(path: epath.Path) -> dict[str, Shown]:
  """Read what `write_curves` wrote; nothing where the file is missing.

  Raises:
    errors.InputError: It is another file.
  """
  if not path.exists():
    return {}
  arrays = npz.read(path)
  try:
    # A run from before action clicks were kept has none.
    none = np.full(arrays['background'].shape, -1, np.int16)
    arrays.setdefault('action', none)
    videos = {}
    for i, name in enumerate(arrays['video'].tolist()):
      own = arrays['owner'] == i
      videos[name] = Shown(
        labels=arrays['label'][own].tolist(),
        cas=arrays['cas'][own],
        foreground=arrays['foreground'][i],
        magnitude=arrays['magnitude'][i],
        background=arrays['background'][i],
        action=arrays['action'][i],
      )
    return videos
  except (KeyError, IndexError) as e:
    raise errors.InputError(f'{path}: no curves in it: {e!r}') from e
