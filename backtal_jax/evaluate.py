"""A split of videos to segments, and segments to metrics."""

import time

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from backtal_jax import errors, fields, files, models, predict
from backtal_jax.data import (
  annotations,
  feature_records,
  pipeline,
  sources,
  splits,
)
from backtal_jax.metrics import detection_map, scores, segments
from backtal_jax.run import checkpoints, hosts, outputs, sharding, workdirs
from backtal_jax.stages import quality


class Evaluator:
  """Scores parameters on a config's evaluation split, whose videos it is given.

  `truth` are the annotations of the split, in columns.

  Raises:
    errors.InputError: The ground truth has other classes or lacks a video.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    model: models.BackTAL,
    source: sources.Source,
    ground_truth: annotations.Annotations,
    mesh: jax.sharding.Mesh,
  ) -> None:
    self._model, self._source, self._mesh = model, source, mesh
    self._options, self._eval = dict(config.localization), config.eval
    self._classes, subset = ground_truth.classes, config.data.eval_split
    if len(self._classes) != model.num_classes:
      raise errors.InputError(
        f'{ground_truth.path}: has {len(self._classes)} classes, '
        f'config.model.num_classes is {model.num_classes}'
      )
    self.truth = segments.make_truth(ground_truth, subset)
    self._names = source.video_names()
    _, absent = annotations.match_names(self._names, self.truth.videos)
    if absent:
      raise errors.InputError(
        f'{ground_truth.path}: subset {subset!r} lacks {len(absent)} of the '
        f'{len(self._names)} videos to evaluate: {errors.few(absent)}'
      )
    splits.check_labels(source, ground_truth)
    annotated = [self.truth.videos[i] for i in {*self.truth.segments.video}]
    _, absent = annotations.match_names(sorted(annotated), self._names)
    if absent and hosts.is_main_process():
      print(
        f'{len(absent)} of the {len(annotated)} annotated videos of '
        f'{subset!r}, which count as missed, have no features: '
        + errors.few(absent)
      )

  def __call__(
    self,
    params: models.Params,
    epoch: int,
    head: quality.Head | None = None,
  ) -> outputs.Results:
    """Evaluate the parameters of an epoch; every host returns the same.

    The `head`, if there is one, judges the proposals beside.
    """
    start, rows = time.time(), {}
    size = sharding.batch_size(self._eval.batch_size, self._mesh)
    plan = sharding.local_columns(pipeline.eval_plan(len(self._source), size))
    params = sharding.replicate(params, self._mesh)
    names = np.array(self._names, object)
    batches = (
      batch | {'name': names[batch['video_index']]}
      for batch in pipeline.batches(self._source, plan)
    )
    for batch, row, curves, found in predict.predict_batches(
      self._model, params, batches, self._mesh, self._options, head
    ):
      labelled = batch['label'][row] == 1
      predicted = curves['score'][:-1] >= self._options['class_threshold']
      shown = [*np.flatnonzero(labelled), *found[0]]
      click, read = batch['click'][row], self._options['read']
      kept = outputs.take(curves, click, shown, self._classes, read)
      right = bool((predicted == labelled).all())
      rows[batch['name'][row]] = found, right, kept
    shares = hosts.gather_objects(rows)
    rows = {name: row for share in shares for name, row in share.items()}
    found = {name: row for name, (row, _, _) in rows.items()}
    right = [labels for _, labels, _ in rows.values()]
    curves = {name: kept for name, (_, _, kept) in rows.items()}
    columns = segments.make_predictions(found, self._classes, self.truth)
    metrics = detection_map.detection_map(self.truth, columns, self._eval.tiou)
    metrics |= {'accuracy': float(np.mean(right)), 'epoch': epoch}
    logging.info('%d videos in %.1f s', len(found), time.time() - start)
    return outputs.Results(metrics, found, self._classes, columns, curves)

  def value(self, results: outputs.Results) -> float:
    """Return what epochs are ranked by, see config.eval.best_metric."""
    return scores.ranking_value(results.metrics, self._eval.best_metric)


def make_source(
  config: ml_collections.ConfigDict, root: epath.Path, split: str
) -> sources.Source:
  """Open a split of a data root as config.data says, see splits.open."""
  data, model = config.data, config.model
  return splits.open(
    root,
    split,
    source=data.source,
    num_snippets=data.num_snippets,
    feature_dim=model.feature_dim,
    num_classes=model.num_classes,
    generate=data.generate,
  )


def evaluate(
  config: ml_collections.ConfigDict,
  checkpoint: epath.PathLike,
  workdir: epath.PathLike,
) -> scores.Metrics:
  """Score a checkpoint (see checkpoints.restore_params) on a config's split.

  Predictions, curves and metrics go to the workdir.

  Returns:
    The metrics.

  Raises:
    errors.InputError: A user error.
  """
  fields.check(config)
  workdir, checkpoint = files.path(workdir), files.path(checkpoint)
  mesh, plain = sharding.make_mesh(config.mesh), fields.plain(config)
  workdirs.check(workdir, plain)
  model, data = models.BackTAL(**config.model), config.data
  root = files.path(data.root)
  trained = checkpoints.workdir_of(checkpoint)
  feature_records.of_run(data.get('features', ''), trained)
  params, epoch = predict.restore(model, checkpoint, mesh)
  source = make_source(config, root, data.eval_split)
  truth = annotations.find_ground_truth(data.ground_truth, root)
  if trained is not None:
    outputs.check_classes(trained, truth)
  evaluator = Evaluator(config, model, source, truth, mesh)
  results = evaluator(params, epoch, predict.read_head(config, trained))
  workdirs.claim(workdir, plain)
  outputs.write(workdir, results)
  return results.metrics
