"""One video, or a folder of them, to segments; no labels needed.

  model = backtal_jax.load('runs/THUMOS14')
  segments = model.predict(features, duration=212.4)

Every batch has one of two sizes, one video or config.eval.batch_size (the
empty rows are zeros), so that nothing is compiled anew and no video's result
depends on its neighbours.
"""

import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from backtal_jax import errors, fields, files, localization, models
from backtal_jax.data import (
  annotations,
  feature_files,
  feature_records,
  pipeline,
  sources,
)
from backtal_jax.run import model_folders, parameters, sharding
from backtal_jax.stages import quality
from backtal_jax.video import reader

# What `predict_step` computes, of a batch or of a video.
Curves = dict[str, np.ndarray]
Detection = localization.Detection  # Model has a field of that name


class Prediction(NamedTuple):
  """One video, and what is found in it."""

  video: sources.Example
  curves: Curves
  segments: list[Detection]  # see Model.predict


@functools.partial(jax.jit, static_argnames=('model',))
def predict_step(
  params: models.Params,
  feature: jax.Array | np.ndarray,
  *,
  model: models.BackTAL,
) -> dict[str, jax.Array]:
  """Run the suppressed branch on features [B, T, D].

  Returns:
    cas [B, T, C+1] logits, score [B, C+1] softmax, magnitude [B, T] of the
    first layer, foreground [B, T].
  """
  outputs = model.apply({'params': params}, feature, train=False)
  feature = outputs.feature_supp.astype(jnp.float32)
  return {
    'cas': outputs.cas_supp,
    'score': jax.nn.softmax(outputs.score_supp),
    'magnitude': jnp.sqrt(jnp.sum(feature * feature, axis=-1)),
    'foreground': outputs.foreground,
  }


def run(
  model: models.BackTAL,
  params: models.Params,
  batches: Iterable[pipeline.Batch],
  mesh: jax.sharding.Mesh,
) -> Iterator[tuple[pipeline.Batch, int, Curves]]:
  """Compute the curves of every video of some batches, in turn.

  Args:
    model: The network.
    params: Its parameters, on every device of the mesh.
    batches: Of this host: feature [b, T, D], mask [b], which is 0 for the rows
      that only fill the batch, name [b], and whatever else.
    mesh: Devices.

  Yields:
    The video's batch, its row there, and what `predict_step` computes.

  Raises:
    errors.InputError: The network returns NaN.
  """
  outputs = (
    (predict_step(params, on_device['feature'], model=model), batch)
    for on_device, batch in sharding.prefetch(batches, mesh, ('feature',))
  )
  # The host works on a batch while the devices compute the next one.
  for output, batch in sharding.ahead(outputs):
    output = {k: sharding.local_rows(v) for k, v in output.items()}
    for row in np.flatnonzero(batch['mask']).tolist():
      curves = {k: v[row] for k, v in output.items()}
      if not np.isfinite(curves['cas']).all():
        raise errors.InputError(
          f'{batch["name"][row]}: the network returns NaN or Inf; are the '
          'parameters whole?'
        )
      yield batch, row, curves


def predict_batches(
  model: models.BackTAL,
  params: models.Params,
  batches: Iterable[pipeline.Batch],
  mesh: jax.sharding.Mesh,
  options: dict[str, Any],
  head: quality.Head | None = None,
) -> Iterator[tuple[pipeline.Batch, int, Curves, localization.Found]]:
  """Find the segments of every video of some batches, in turn.

  Args:
    model, params, mesh: See `run`.
    batches: See `run`; frame_num and duration [b] in seconds, too.
    options: config.localization.
    head: Judges the proposals beside.

  Yields:
    What `run` does, and what is found.

  Raises:
    errors.InputError: A video has no length; the network returns NaN.
  """
  if head is not None:
    options = quality.widen(options)
  for batch, row, curves in run(model, params, batches, mesh):
    frame_num, duration = batch['frame_num'][row], batch['duration'][row]
    require_length(batch['name'][row], frame_num, duration)
    judge, duration = None, float(duration)
    if head is not None:
      feature = batch['feature'][row]
      judge = quality.Judge(head, feature, duration, model.num_classes)
    found = localization.localize(
      curves['cas'], curves['score'], curves['magnitude'],
      frame_num=int(frame_num), duration=duration, judge=judge, **options,
    )  # fmt: skip
    yield batch, row, curves, found


def require_length(name: str, frame_num: float, duration: float) -> None:
  """Refuse a video that segments cannot be made of.

  Raises:
    errors.InputError: Its number of frames or its seconds are not positive.
  """
  if not (frame_num > 0 and 0 < duration < np.inf):
    raise errors.InputError(
      f'{name}: frame_num {frame_num} and duration {duration}, expected both '
      'to be positive'
    )


def restore(
  model: models.BackTAL, checkpoint: epath.Path, mesh: jax.sharding.Mesh
) -> tuple[models.Params, int]:
  """Do what parameters.restore does, onto every device of a mesh."""
  replicated = sharding.replicated(mesh)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
    models.shapes(model),
  )
  return parameters.restore(checkpoint, shapes)


@dataclasses.dataclass(frozen=True)
class Model:
  """A trained network with its localisation, made by `load`."""

  network: models.BackTAL
  # On every device of the mesh.
  params: models.Params = dataclasses.field(repr=False)
  mesh: jax.sharding.Mesh
  shape: tuple[int, int]  # (T, D) of the network's input
  classes: tuple[str, ...]  # in index order
  epoch: int  # of the checkpoint, -1 where unknown
  localization: dict[str, Any]  # options of localization.localize
  batch_size: int  # how many videos are predicted at once
  read: reader.Reader  # reads a feature file or encodes a video
  # Judges proposals, where the training made one.
  head: quality.Head | None = dataclasses.field(default=None, repr=False)

  def predict(
    self,
    features: np.ndarray | epath.PathLike,
    *,
    duration: float | None = None,
    frame_num: float | None = None,
  ) -> list[Detection]:
    """Find the segments of one video.

    Args:
      features: [T', D] or [D, T'], any T'; resampled to T. Or the path of a
        video or of a feature file.
      duration: Seconds; of a path, where the file does not say.
      frame_num: How many frames it has, which segments are made of; by
        default as many as 30 frames a second make.

    Returns:
      By class, then by descending score.

    Raises:
      errors.InputError: The features or the duration cannot be used.
    """
    if isinstance(features, str | os.PathLike):
      video = self.read(files.path(features), duration)
    else:
      video = feature_files.make_video(
        'features', [features], duration, frame_num, shape=self.shape
      )
    (found,) = self.predict_videos([video], batch_size=1)
    return found.segments

  def predict_videos(
    self, videos: Iterable[sources.Example], batch_size: int | None = None
  ) -> Iterator[Prediction]:
    """Find the segments of many videos in turn, a batch at a time."""
    size = sharding.batch_size(batch_size or self.batch_size, self.mesh)
    videos, again = itertools.tee(videos)
    rows = predict_batches(
      self.network, self.params, self._batches(again, size), self.mesh,
      self.localization, self.head,
    )  # fmt: skip
    for (_, _, curves, found), video in zip(rows, videos, strict=True):
      segments = localization.format_video(found, self.classes)
      yield Prediction(video, curves, segments)

  def _batches(self, videos, size):
    """Stack videos; what fills the last batch is zeros."""
    while part := list(itertools.islice(videos, size)):
      feature = np.zeros((size, *self.shape), np.float32)
      feature[: len(part)] = [video.feature for video in part]
      yield {
        'feature': feature,
        'mask': np.arange(size) < len(part),
        'name': np.array([video.name for video in part], object),
        'frame_num': np.array([video.frame_num for video in part]),
        'duration': np.array([video.duration for video in part]),
      }


def load(
  checkpoint: epath.PathLike,
  *,
  config: ml_collections.ConfigDict | None = None,
  classes: Sequence[str] | None = None,
  **weights: str,
) -> Model:
  """Load a checkpoint to predict with.

  Args:
    checkpoint: See parameters.restore.
    config: By default that of the workdir; a PyTorch file has none.
    classes: Names in index order; by default those of the workdir, else of
      the ground truth that the config names.
    **weights: rgb, flow, preset and flow_method, to predict videos, see
      video.reader.

  Raises:
    errors.InputError: Something is missing, or the one does not fit the other.
  """
  checkpoint = files.path(checkpoint)
  workdir = parameters.workdir_of(checkpoint)
  if config is None:
    config = config_of(checkpoint)
  data = config.data
  if classes is None:
    classes = _classes(checkpoint, workdir, data)
  if len(classes) != config.model.num_classes:
    raise errors.InputError(
      f'{len(classes)} class names, config.model.num_classes is '
      f'{config.model.num_classes}'
    )
  record = feature_records.of_run(data.get('features', ''), workdir)
  network = models.BackTAL(**config.model)
  mesh = sharding.make_mesh(config.mesh)
  shape = data.num_snippets, config.model.feature_dim
  params, epoch = restore(network, checkpoint, mesh)
  head, stages = None, config.get('stages')  # which older runs have none of
  if stages and stages.quality:
    head = read_head(workdir, network.feature_dim, network.num_classes)
  return Model(
    network=network,
    params=params,
    mesh=mesh,
    shape=shape,
    classes=tuple(classes),
    epoch=epoch,
    localization=dict(config.localization),
    batch_size=config.eval.batch_size,
    read=reader.Reader(record, shape, mesh, **weights),
    head=head,
  )


def _classes(checkpoint, workdir, data):
  """Return the class names of a workdir, else of the ground truth."""
  path = workdir and workdir / 'classes.json'
  if path and (path.exists() or model_folders.is_one(checkpoint)):
    return files.read_json(path)
  path = files.find(data.ground_truth, data.root)
  return annotations.read_ground_truth(path).classes


def read_head(
  workdir: epath.Path | None, feature_dim: int, num_classes: int
) -> quality.Head | None:
  """Read the quality head of a workdir; say so where there is none.

  Raises:
    errors.InputError: The file is no head, or one of other features.
  """
  path = (workdir or files.path('.')) / 'stages' / 'quality.npz'
  if workdir is None or not path.exists():
    print(
      f'config.stages.quality is True, but there is no {path}: proposals are '
      'not judged',
      file=sys.stderr,
    )
    return None
  return quality.read(path, quality.num_inputs(feature_dim, num_classes))


def config_of(checkpoint: epath.Path) -> ml_collections.ConfigDict:
  """Return the config of a checkpoint's workdir, for the devices here.

  Raises:
    errors.InputError: There is no checkpoint, or it has none.
  """
  workdir = parameters.workdir_of(checkpoint)
  if workdir is None:
    if not parameters.is_torch(checkpoint):
      parameters.locate(checkpoint)
    raise errors.InputError(
      f'{checkpoint}: holds no config; expected one beside it, say '
      'config=configs.thumos14.get_config()'
    )
  config = ml_collections.ConfigDict(fields.read_saved(workdir / 'config.json'))
  config.mesh = ()  # not those of the run
  return config
