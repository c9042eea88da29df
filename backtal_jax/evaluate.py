"""A split of videos to segments, and segments to metrics."""

import time
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging
from etils import epath

from backtal_jax import errors, fields, files, models, predict
from backtal_jax.data import annotations, feature_records, pipeline, splits
from backtal_jax.metrics import detection_map, segments
from backtal_jax.run import checkpoints, hosts, outputs, sharding, workdirs


class Evaluator:
  """Scores parameters on the evaluation split.

  Args:
    model: a models.BackTAL.
    source: videos of the split.
    ground_truth: annotations of all splits.
    mesh: devices.
    subset: name of the split in the ground truth.
    batch_size: B over all devices.
    tiou: thresholds of mAP.
    options: config.localization, see localization.localize.

  Attributes:
    truth: annotations of the split in columns.

  Raises:
    errors.InputError: the ground truth has other classes or lacks a video.
  """

  def __init__(
    self,
    model: Any,
    source: Any,
    ground_truth: annotations.Annotations,
    mesh: Any,
    *,
    subset: str,
    batch_size: int,
    tiou: Sequence[float],
    options: dict,
  ) -> None:
    self._model, self._source, self.mesh = model, source, mesh
    self._batch_size, self._tiou = batch_size, list(tiou)
    self._options, self.classes = options, ground_truth.classes
    if len(self.classes) != model.num_classes:
      raise errors.InputError(
        f'{ground_truth.path}: has {len(self.classes)} classes, '
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

  def __call__(self, params: dict, epoch: int) -> outputs.Results:
    """Evaluate the parameters of an epoch; every host returns the same."""
    start, found, right, curves = time.time(), {}, [], {}
    plan = pipeline.eval_plan(
      len(self._source), sharding.batch_size(self._batch_size, self.mesh)
    )
    loaded = pipeline.batches(self._source, sharding.local_columns(plan))
    for batch, row, video in predict.predict_batches(
      self._model, params, loaded, self.mesh
    ):
      name, label = self._names[batch['video_index'][row]], batch['label'][row]
      found[name] = predict.localize(
        name, video, batch['frame_num'][row], batch['duration'][row],
        self._options,
      )  # fmt: skip
      predicted = video['score'][:-1] >= self._options['class_threshold']
      right.append(bool((predicted == (label == 1)).all()))
      shown = [*np.flatnonzero(label == 1), *found[name][0]]
      curves[name] = outputs.take(
        video,
        batch['click'][row],
        shown,
        self.classes,
        self._options.get('read', 'logits'),
      )
    shares = hosts.gather_objects([found, right, curves])
    found = {k: v for part, _, _ in shares for k, v in part.items()}
    right = [r for _, part, _ in shares for r in part]
    curves = {k: v for _, _, part in shares for k, v in part.items()}
    columns = segments.make_predictions(found, self.classes, self.truth)
    metrics = detection_map.detection_map(self.truth, columns, self._tiou)
    metrics |= {'accuracy': float(np.mean(right)), 'epoch': epoch}
    logging.info('%d videos in %.1f s', len(found), time.time() - start)
    return outputs.Results(metrics, found, self.classes, columns, curves)


def make_evaluator(
  config: ml_collections.ConfigDict,
  model: models.BackTAL,
  source: Any,
  ground_truth: annotations.Annotations,
  mesh: Any,
) -> Evaluator:
  """Make the Evaluator of a config."""
  return Evaluator(
    model,
    source,
    ground_truth,
    mesh,
    subset=config.data.eval_split,
    batch_size=config.eval.batch_size,
    tiou=config.eval.tiou,
    options=dict(config.localization),
  )


def make_source(config: ml_collections.ConfigDict, split: str) -> Any:
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


def evaluate(
  config: ml_collections.ConfigDict,
  checkpoint: epath.PathLike,
  workdir: epath.PathLike,
) -> dict:
  """Score a checkpoint on the evaluation split.

  Args:
    config: Config of the model and the evaluation.
    checkpoint: see checkpoints.restore_params.
    workdir: gets predictions.json and metrics.json.

  Returns:
    The metrics.

  Raises:
    errors.InputError: a user error.
  """
  fields.check(config)
  workdir = files.path(workdir)
  workdirs.check(workdir, config)
  mesh = sharding.make_mesh(config.mesh)
  model = models.BackTAL(**config.model)
  length = config.data.num_snippets
  trained = checkpoints.workdir_of(checkpoint)
  feature_records.of_config(config, trained)
  params, epoch = predict.restore(model, length, checkpoint, mesh)
  source = make_source(config, config.data.eval_split)
  truth = annotations.find_ground_truth(
    config.data.ground_truth, config.data.root
  )
  if trained is not None:
    outputs.check_classes(trained, truth)
  evaluator = make_evaluator(config, model, source, truth, mesh)
  results = evaluator(params, epoch)
  workdirs.claim(workdir, config)
  outputs.write(workdir, results)
  return results.metrics
