"""A split of videos to segments, and segments to metrics."""

import time
from typing import NamedTuple

import numpy as np
from absl import logging

from backtal_jax import errors, files, localization, models, predict
from backtal_jax.data import annotations, pipeline, splits
from backtal_jax.metrics import detection_map, diagnosis, segments
from backtal_jax.run import hosts, outputs, sharding, workdirs


class Results(NamedTuple):
  """What an evaluation gives."""

  metrics: dict  # the keys of metrics.json, without the epoch
  predictions: dict  # ActivityNet format
  segments: segments.Segments  # the same
  curves: dict  # {video: outputs.take}


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
    self._truth = segments.read_truth(found, config.data.eval_split, str(path))
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
    if hosts.is_main_process():
      files.write_json(workdir / 'classes.json', list(self._classes))

  def __call__(self, params) -> Results:
    """Evaluate; every host returns the same."""
    start, found, right, along = time.time(), {}, [], {}
    plan = pipeline.eval_plan(
      len(self._source), sharding.batch_size(self._batch_size, self.mesh)
    )
    loaded = pipeline.batches(self._source, sharding.local_columns(plan))
    for batch, row, curves in predict.predict_batches(
      self._model, params, loaded, self.mesh
    ):
      name, label = self._names[batch['video_index'][row]], batch['label'][row]
      localized = predict.localize(
        name,
        curves,
        batch['frame_num'][row],
        batch['duration'][row],
        self._options,
      )
      found[name] = localization.format_video(*localized, self._classes)
      predicted = curves['score'][:-1] >= self._options['class_threshold']
      right.append(bool((predicted == (label == 1)).all()))
      video = curves | {'label': label, 'click': batch['click'][row]}
      along[name] = outputs.take(
        video, found[name], self._classes, self._options['read']
      )
    shares = hosts.gather_objects([found, right, along])
    found = {k: v for part, _, _ in shares for k, v in part.items()}
    right = [r for _, part, _ in shares for r in part]
    along = {k: v for _, _, part in shares for k, v in part.items()}
    predictions = localization.format_results(dict(sorted(found.items())))
    rows, _ = segments.read_predictions(predictions, self._truth)
    metrics = detection_map.detection_map(self._truth, rows, self._tiou)
    metrics['accuracy'] = float(np.mean(right))
    logging.info('%d videos in %.1f s', len(right), time.time() - start)
    return Results(metrics, predictions, rows, along)

  def images(self, found) -> dict:
    """Draw the best, the median and the worst video of the split."""
    from backtal_jax.report import style, timelines  # bring matplotlib

    drawn = timelines.timelines(
      self._truth, self._durations, found.segments, found.curves
    )
    names = ('best', 'median', 'worst')
    return dict(zip(names, map(style.image, drawn.values()), strict=False))


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
  if hosts.is_main_process():
    workdir = files.path(workdir)
    files.write_json(workdir / 'predictions.json', found.predictions)
    outputs.write(workdir / 'curves.npz', found.curves)
    files.write_json(workdir / 'metrics.json', found.metrics, indent=1)


def make_source(config, split):
  """Open a split of config.data, see splits.open."""
  data, model = config.data, config.model
  return splits.open(
    data.root,
    split,
    source=data.source,
    num_snippets=data.num_snippets,
    feature_dim=model.feature_dim,
    num_classes=model.num_classes,
    generate=data.generate,
  )


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
  workdirs.check(workdir, config)
  mesh = sharding.make_mesh(config.mesh)
  model = models.BackTAL(**config.model)
  length = config.data.num_snippets
  params, epoch = predict.restore(model, length, checkpoint, mesh)
  source = make_source(config, config.data.eval_split)
  found = Evaluator(config, model, source, mesh)(params)
  found.metrics['epoch'] = epoch
  workdirs.claim(workdir, config)
  write(workdir, found)
  return found.metrics
