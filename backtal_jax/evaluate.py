"""A split of videos to segments, and segments to metrics."""

import time
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath

from backtal_jax import (
  curves,
  errors,
  files,
  localization,
  predict,
  results,
  runs,
  sharding,
)
from backtal_jax.data import annotations, demo, pipeline, sources
from backtal_jax.metrics import detection_map, diagnosis


def predict_split(model, params, source, mesh, *, batch_size):
  """Predict every video of a source once.

  Args:
    model: a models.BackTAL.
    params: of it.
    source: of videos.
    mesh: of devices.
    batch_size: B over all devices.

  Yields:
    Of every video this host predicts, in order: its index and a dict of its
    cas, score, magnitude, foreground, label, frame_num and duration.
  """
  plan = pipeline.eval_plan(len(source), sharding.batch_size(batch_size, mesh))
  loaded = pipeline.batches(source, sharding.local_columns(plan))
  pending = None
  for on_device, batch in sharding.prefetch(loaded, mesh, ('feature',)):
    # Dispatch first: the host localises a batch while the next one computes.
    outputs = predict.predict_step(params, on_device['feature'], model=model)
    if pending:
      yield from _unbatch(*pending)
    pending = outputs, batch
  if pending:
    yield from _unbatch(*pending)


def _unbatch(outputs, batch):
  outputs = {k: sharding.local_rows(v) for k, v in outputs.items()}
  for row in np.flatnonzero(batch['mask']):
    video = {k: v[row] for k, v in outputs.items()}
    for key in ('label', 'click', 'frame_num', 'duration'):
      video[key] = batch[key][row]
    yield int(batch['video_index'][row]), video


def localize(name, video, options, classes):
  """Turn one video's outputs into (segments, label is right).

  Args:
    name: of the video, for errors.
    video: as `predict_split` yields it.
    options: config.localization as a dict.
    classes: names in index order.
  """
  if not (video['frame_num'] > 0 and 0 < video['duration'] < np.inf):
    raise errors.InputError(
      f'{name}: frame_num {video["frame_num"]} and duration '
      f'{video["duration"]}, expected both to be positive'
    )
  if not np.isfinite(video['cas']).all():
    raise errors.InputError(
      f'{name}: the network returns NaN or Inf; are the parameters whole?'
    )
  found = localization.localize(
    video['cas'],
    video['score'],
    video['magnitude'],
    frame_num=int(video['frame_num']),
    duration=float(video['duration']),
    **options,
  )
  predicted = video['score'][:-1] >= options['class_threshold']
  right = bool((predicted == (video['label'] == 1)).all())
  return localization.format_video(*found, classes), right


class Results(NamedTuple):
  """What an evaluation gives."""

  metrics: dict  # the keys of metrics.json, without the epoch
  predictions: dict  # ActivityNet format
  segments: detection_map.Segments  # the same
  curves: dict  # {video: curves.take}


class Evaluator:
  """Scores parameters on the evaluation split.

  Args:
    config: of the run.
    model: a models.BackTAL.
    source: of the evaluation split.
    mesh: of devices.

  Raises:
    errors.InputError: the ground truth is missing, has other classes, or
      lacks a video.
  """

  def __init__(self, config, model, source, mesh):
    self._model, self._source, self.mesh = model, source, mesh
    self._batch_size = config.eval.batch_size
    self._tiou = list(config.eval.tiou)
    self._options = dict(config.localization)
    path = files.find(config.data.ground_truth, config.data.root)
    self._classes = annotations.read_ground_truth(path).classes
    if len(self._classes) != config.model.num_classes:
      raise errors.InputError(
        f'{path}: has {len(self._classes)} classes, config.model.num_classes '
        f'is {config.model.num_classes}'
      )
    found = files.read_json(path)
    self._truth = detection_map.read_truth(
      found, config.data.eval_split, str(path)
    )
    self._durations = diagnosis.read_durations(found, self._truth)
    self._names = source.video_names()
    _, absent = annotations.match_names(self._names, self._truth.videos)
    if absent:
      raise errors.InputError(
        f'{path}: subset {config.data.eval_split!r} lacks {len(absent)} of the '
        f'{len(self._names)} videos to evaluate: {", ".join(absent[:5])}'
      )

  def write_classes(self, workdir):
    """Name the classes in the workdir, for predict.load anywhere else."""
    if sharding.is_main_process():
      files.write_json(workdir / 'classes.json', list(self._classes))

  def __call__(self, params) -> Results:
    """Evaluate; every host returns the same."""
    start, found, right, along = time.time(), {}, [], {}
    for index, video in predict_split(
      self._model,
      params,
      self._source,
      self.mesh,
      batch_size=self._batch_size,
    ):
      name = self._names[index]
      found[name], is_right = localize(
        name, video, self._options, self._classes
      )
      right.append(is_right)
      along[name] = curves.take(
        video, found[name], self._classes, self._options['read']
      )
    shares = sharding.gather_objects([found, right, along])
    found = {k: v for part, _, _ in shares for k, v in part.items()}
    right = [r for _, part, _ in shares for r in part]
    along = {k: v for _, _, part in shares for k, v in part.items()}
    predictions = localization.format_results(dict(sorted(found.items())))
    segments, _ = detection_map.read_predictions(predictions, self._truth)
    metrics = detection_map.detection_map(self._truth, segments, self._tiou)
    metrics['accuracy'] = float(np.mean(right))
    logging.info('%d videos in %.1f s', len(right), time.time() - start)
    return Results(metrics, predictions, segments, along)

  def timelines(self, found) -> dict:
    """Draw the best, the median and the worst video, see results.timelines."""
    drawn = results.timelines(
      self._truth, self._durations, found.segments, found.curves
    )
    return dict(zip(('best', 'median', 'worst'), drawn.values(), strict=False))


def scalars(metrics) -> dict:
  """Flatten metrics for TensorBoard and metrics.jsonl."""
  pairs = zip(metrics['tiou'], metrics['mAP'], strict=True)
  return {f'mAP@{t:g}': v for t, v in pairs} | {
    key: metrics[key] for key in ('average_mAP', 'accuracy', 'epoch')
  }


def table(metrics) -> str:
  """Lay out mAP by tIoU and the average, in percent."""
  head = [f'{t:g}' for t in metrics['tiou']] + ['average']
  values = [*metrics['mAP'], metrics['average_mAP']]
  return (
    'tIoU  ' + ''.join(f'{h:>8}' for h in head)
    + '\nmAP % ' + ''.join(f'{100 * v:8.1f}' for v in values)
    + f'\nvideos with all labels right: {100 * metrics["accuracy"]:.1f} %'
  )  # fmt: skip


def ranking_value(metrics, best_metric) -> float:
  """Return what epochs are ranked by, see config.eval.best_metric."""
  if best_metric == 'last':
    return float(metrics['epoch'])
  if best_metric == 'average_mAP':
    return metrics['average_mAP']
  tiou = float(best_metric.removeprefix('mAP@'))
  return metrics['mAP'][metrics['tiou'].index(tiou)]


def compare(metrics, published) -> tuple[str, float]:
  """Lay out mAP beside published ones, in percent.

  Args:
    metrics: as in metrics.json.
    published: config.eval.published, pairs of a name and percent.

  Returns:
    The table, and the largest difference either way.
  """
  lines, worst = [f'{"":12}{"ours":>8}{"published":>11}{"difference":>12}'], 0.0
  for name, theirs in published:
    ours = 100 * ranking_value(metrics, name)
    lines.append(f'{name:12}{ours:8.2f}{theirs:11.1f}{ours - theirs:+12.2f}')
    worst = max(worst, abs(ours - theirs))
  return '\n'.join(lines), worst


def write(workdir, found):
  """Write predictions.json, curves.npz, then metrics.json; process 0 does."""
  if sharding.is_main_process():
    workdir = epath.Path(workdir)
    files.write_json(workdir / 'predictions.json', found.predictions)
    curves.write(workdir / 'curves.npz', found.curves)
    files.write_json(workdir / 'metrics.json', found.metrics, indent=1)


def make_source(config, split):
  """Open a split of config.data.root; the embedded set is made if missing."""
  root = epath.Path(config.data.root)
  if config.data.generate and not (root / 'ground_truth.json').exists():
    demo.prepare(root)
  shape = {
    'num_snippets': config.data.num_snippets,
    'feature_dim': config.model.feature_dim,
    'num_classes': config.model.num_classes,
  }
  if config.data.source == 'tfds':
    from backtal_jax.data import builder  # TFDS takes seconds to import

    return builder.TfdsSource(root, split, **shape)
  return sources.NpzSource(root / split, **shape)


def evaluate(config, checkpoint, workdir) -> dict:
  """Score a checkpoint on the evaluation split.

  Args:
    config: of the model and the evaluation.
    checkpoint: see checkpoints.restore_params.
    workdir: gets predictions.json and metrics.json.

  Returns:
    The metrics.

  Raises:
    errors.InputError: a user error.
  """
  runs.check(workdir, config)
  mesh = sharding.make_mesh(config.mesh)
  model, params, epoch = predict.restore(config, checkpoint, mesh)
  source = make_source(config, config.data.eval_split)
  found = Evaluator(config, model, source, mesh)(params)
  found.metrics['epoch'] = epoch
  runs.claim(workdir, config)
  write(workdir, found)
  return found.metrics
