"""A split of videos to segments, and segments to metrics."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from backtal_jax import (
  errors,
  fields,
  files,
  localization,
  models,
  opening,
  predict,
)
from backtal_jax.data import (
  annotations,
  feature_records,
  pipeline,
  sources,
  splits,
  video_names,
)
from backtal_jax.metrics import agreement, detection_map, scores, segments
from backtal_jax.run import (
  feeding,
  hosts,
  outputs,
  parameters,
  sharding,
  workdirs,
)
from backtal_jax.stages import quality


class Seen(NamedTuple):
  """What was found in the videos of a split, by name."""

  found: dict[str, localization.Found]
  right: list[bool]  # whether the labels of each are
  curves: dict[str, outputs.Shown]


@dataclasses.dataclass
class Finder:
  """Finds the segments of every video of a source.

  The `classes` are the names, the `options` those of localization.localize;
  the clicks that the curves show are those of the `labeller`, by default those
  of the source's files.
  """

  model: models.BackTAL
  classes: Sequence[str]
  mesh: jax.sharding.Mesh
  options: dict[str, Any]
  batch_size: int
  source: sources.Source
  labeller: sources.Labeller | None = None

  @functools.cached_property
  def names(self) -> list[str]:
    """Return the names of the videos."""
    return self.source.video_names()

  def __call__(
    self, params: models.Params, head: quality.Head | None = None
  ) -> Seen:
    """Find them by parameters; every host returns the same."""
    start, rows = time.time(), {}
    size = sharding.batch_size(self.batch_size, self.mesh)
    plan = pipeline.eval_plan(len(self.source), size)
    params = sharding.replicate(params, self.mesh)
    batches = feeding.named(self.source, self.names, self.labeller, plan)
    for batch, row, curves, found in predict.predict_batches(
      self.model, params, batches, self.mesh, self.options, head
    ):
      labelled = batch['label'][row] == 1
      predicted = curves['score'][:-1] >= self.options['class_threshold']
      shown = [*np.flatnonzero(labelled), *found[0]]
      click, read = batch['click'][row], self.options['read']
      kept = outputs.take(curves, click, shown, self.classes, read)
      right = bool((predicted == labelled).all())
      rows[batch['name'][row]] = found, right, kept
    shares = hosts.gather_objects(rows)
    rows = {name: row for share in shares for name, row in share.items()}
    logging.info('%d videos in %.1f s', len(rows), time.time() - start)
    return Seen(
      {name: found for name, (found, _, _) in rows.items()},
      [right for _, right, _ in rows.values()],
      {name: kept for name, (_, _, kept) in rows.items()},
    )


class Evaluator:
  """Scores parameters on a config's evaluation split, whose videos it is given.

  Where there is no such split (`source` is None), it finds the segments of the
  training videos and scores nothing. Where clicks of these were kept aside, it
  holds their segments against those. `truth` are the annotations of the split,
  in columns, or the training videos without any.

  Raises:
    errors.InputError: The ground truth has other classes or lacks a video.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    model: models.BackTAL,
    source: sources.Source | None,
    ground_truth: annotations.Annotations,
    mesh: jax.sharding.Mesh,
    training: tuple[sources.Source, splits.Supervision] | None = None,
  ) -> None:
    self._classes, self._eval = ground_truth.classes, config.eval
    if len(self._classes) != model.num_classes:
      raise errors.InputError(
        f'{ground_truth.path}: has {len(self._classes)} classes, '
        f'config.model.num_classes is {model.num_classes}'
      )
    finder = functools.partial(
      Finder, model, self._classes, mesh, dict(config.localization),
      config.eval.batch_size,
    )  # fmt: skip
    self._find = self._find_trained = None
    self._held: list[annotations.Click] = []
    self._reach: dict[str, int] = {}
    if training and (source is None or training[1].held):
      trained, supervision = training
      self._held, self._reach = supervision.held, supervision.reach
      subset = config.data.train_split
      self._trained = segments.unannotated(ground_truth, subset)
      self._find_trained = finder(trained, supervision.labeller)
      _check_names(ground_truth, subset, self._find_trained, self._trained)
    if source is None:
      self.truth = self._trained
      return
    subset = config.data.eval_split
    self.truth = segments.make_truth(ground_truth, subset)
    self._find = finder(source)
    _check_names(ground_truth, subset, self._find, self.truth)
    splits.check_labels(source, ground_truth)
    annotated = [self.truth.videos[i] for i in {*self.truth.segments.video}]
    _, absent = video_names.match(sorted(annotated), self._find.names)
    if absent and hosts.is_main_process():
      print(
        f'{len(absent)} of the {len(annotated)} annotated videos of '
        f'{subset!r}, which count as missed, have no features: '
        + errors.few(absent)
      )

  def __call__(
    self, params: models.Params, epoch: int, head: quality.Head | None = None
  ) -> outputs.Results:
    """Evaluate the parameters of an epoch; every host returns the same.

    The `head`, if there is one, judges the proposals beside.
    """
    metrics, truth = scores.Metrics(epoch=epoch), self.truth
    agreed: agreement.ByVideo = {}
    if self._find_trained:
      seen = self._find_trained(params, head)
      truth = self._trained
      columns = segments.make_predictions(seen.found, self._classes, truth)
    if self._held:
      agreed = agreement.by_video(truth, columns, self._held)
      measured = agreement.summarize(agreed)
      if measured:
        metrics['click_agreement'] = measured
    if self._find:
      seen = self._find(params, head)
      columns = segments.make_predictions(seen.found, self._classes, self.truth)
      found = detection_map.detection_map(self.truth, columns, self._eval.tiou)
      accuracy = float(np.mean(seen.right))
      metrics = {**found, 'accuracy': accuracy, **metrics}
    else:
      metrics['reach'] = self._reach
    return outputs.Results(
      metrics, seen.found, self._classes, columns, seen.curves, agreed
    )

  def value(self, results: outputs.Results) -> float:
    """Return what epochs are ranked by, see config.eval.best_metric."""
    return scores.ranking_value(results.metrics, self._eval.best_metric)


def _check_names(ground_truth, subset, finder, truth):
  """Refuse videos that a subset of the ground truth lacks."""
  _, absent = video_names.match(finder.names, truth.videos)
  if absent:
    raise errors.InputError(
      f'{ground_truth.path}: subset {subset!r} lacks {len(absent)} of the '
      f'{len(finder.names)} videos to evaluate: {errors.few(absent)}'
    )


def evaluate(
  config: ml_collections.ConfigDict,
  checkpoint: epath.PathLike,
  workdir: epath.PathLike,
) -> scores.Metrics:
  """Score a checkpoint (see parameters.restore) on a config's split.

  Predictions, curves and metrics go to the workdir; the metrics are returned.

  Raises:
    errors.InputError: A user error.
  """
  fields.check(config)
  workdir, checkpoint = files.path(workdir), files.path(checkpoint)
  mesh, plain = sharding.make_mesh(config.mesh), fields.plain(config)
  workdirs.compare(workdir, plain)
  model, data = models.BackTAL(**config.model), config.data
  root = files.path(data.root)
  trained = parameters.workdir_of(checkpoint)
  feature_records.of_run(data.get('features', ''), trained)
  params, epoch = predict.restore(model, checkpoint, mesh)
  if data.eval_split and not (data.clicks_aside or data.agreement_clicks):
    source, training = opening.source(config, root, data.eval_split), None
    truth = annotations.read_ground_truth(files.find(data.ground_truth, root))
  else:
    videos = opening.training(config, root)
    source, training = videos.evaluated, (videos.source, videos.supervision)
    truth = videos.truth
  if trained is not None:
    outputs.check_classes(trained, truth)
  evaluator = Evaluator(config, model, source, truth, mesh, training)
  head = None
  if config.stages.quality:
    head = predict.read_head(trained, model.feature_dim, model.num_classes)
  results = evaluator(params, epoch, head)
  workdirs.claim(workdir, plain)
  outputs.write(workdir, results)
  return results.metrics
