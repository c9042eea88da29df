"""One video, or a folder of them, to segments; no labels needed.

  model = backtal_jax.load('runs/THUMOS14')
  segments = model.predict(features, duration=212.4)

Every batch has one of two sizes, one video or config.eval.batch_size (the
empty rows are zeros), so that nothing is compiled anew and no video's result
depends on its neighbours.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from backtal_jax import (
  checkpoints,
  errors,
  files,
  localization,
  models,
  official,
  sharding,
)
from backtal_jax.data import annotations, feature_files

# Segments of one video shown on screen.
_SHOWN = 10


@functools.partial(jax.jit, static_argnames=('model',))
def predict_step(params, feature, *, model) -> dict:
  """Run the suppressed branch.

  Args:
    params: of the model.
    feature: [B, T, D].
    model: a models.BackTAL.

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


def restore(config, checkpoint, mesh):
  """Return the model of a config, a checkpoint's parameters and its epoch.

  Args:
    config: of the model.
    checkpoint: see checkpoints.restore_params.
    mesh: every device of it gets all parameters.
  """
  model = models.BackTAL(**config.model)
  shapes = jax.eval_shape(
    lambda: models.init(model, jax.random.key(0), config.data.num_snippets)
  )
  replicated = sharding.replicated(mesh)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
    shapes,
  )
  return model, *checkpoints.restore_params(checkpoint, shapes)


class Model:
  """A trained network with its localisation, made by `load`.

  Attributes:
    config: of the run.
    classes: names in index order.
    epoch: of the checkpoint, -1 where unknown.
    shape: (T, D) of the network's input.
  """

  def __init__(self, config, checkpoint, classes):
    self.config, self.classes = config, tuple(classes)
    self.shape = config.data.num_snippets, config.model.feature_dim
    if len(self.classes) != config.model.num_classes:
      raise errors.InputError(
        f'{len(self.classes)} class names, config.model.num_classes is '
        f'{config.model.num_classes}'
      )
    self._mesh = sharding.make_mesh(config.mesh)
    self._model, self._params, self.epoch = restore(
      config, checkpoint, self._mesh
    )

  def predict(self, features, *, duration, frame_num=None) -> list[dict]:
    """Find the segments of one video.

    Args:
      features: [T', D] or [D, T'], any T'; resampled to T.
      duration: seconds.
      frame_num: how many frames it has, which segments are made of; by
        default as many as 30 frames a second make.

    Returns:
      [{'label', 'segment': [start, end] in seconds, 'score'}], by class, then
      by descending score.

    Raises:
      errors.InputError: the features or the duration cannot be used.
    """
    video = feature_files.make_video(
      'features', [features], duration, frame_num, shape=self.shape
    )
    ((_, _, segments),) = self.predict_videos([video], batch_size=1)
    return segments

  def predict_videos(self, videos, batch_size=None):
    """Find the segments of many videos, a batch at a time.

    Args:
      videos: an iterable of sources.Video, features [T, D].
      batch_size: by default config.eval.batch_size.

    Yields:
      Of each in turn: the video; its cas, score, magnitude and foreground (see
      `predict_step`); its segments (see `predict`).
    """
    size = batch_size or self.config.eval.batch_size
    size = sharding.batch_size(size, self._mesh)
    videos = iter(videos)
    while batch := list(itertools.islice(videos, size)):
      feature = np.zeros((size, *self.shape), np.float32)
      for row, video in zip(feature, batch, strict=False):
        row[:] = video.feature
      on_device = sharding.shard_batch({'feature': feature}, self._mesh)
      outputs = predict_step(
        self._params, on_device['feature'], model=self._model
      )
      outputs = {k: sharding.local_rows(v) for k, v in outputs.items()}
      for row, video in enumerate(batch):
        curves = {k: v[row] for k, v in outputs.items()}
        yield video, curves, self._localize(video, curves)

  def _localize(self, video, curves):
    found = localization.localize(
      curves['cas'],
      curves['score'],
      curves['magnitude'],
      frame_num=video.frame_num,
      duration=video.duration,
      **self.config.localization,
    )
    return localization.format_video(*found, self.classes)


def load(checkpoint, *, config=None, classes=None) -> Model:
  """Load a checkpoint to predict with.

  Args:
    checkpoint: a workdir (its best checkpoint), one step of it, or an official
      .pth file.
    config: by default that of the workdir; a .pth file has none.
    classes: names in index order; by default those of the workdir, else of
      the ground truth that the config names.

  Raises:
    errors.InputError: something is missing, or the one does not fit the other.
  """
  workdir = None
  if not official.is_official(checkpoint):
    workdir, _ = checkpoints.locate(checkpoint)
  if config is None:
    if workdir is None:
      raise errors.InputError(
        f'{checkpoint}: a .pth file holds no config; expected one beside it, '
        'say config=configs.thumos14.get_config()'
      )
    config = ml_collections.ConfigDict(files.read_json(workdir / 'config.json'))
    config.mesh = ()  # the devices here, not those of the run
  if classes is None:
    if workdir is not None and (workdir / 'classes.json').exists():
      classes = files.read_json(workdir / 'classes.json')
    else:
      path = files.find(config.data.ground_truth, config.data.root)
      classes = annotations.read_ground_truth(path).classes
  return Model(config, checkpoint, classes)


def predict(config, checkpoint, input, output, *, duration=None, plot=False):
  """Predict a file or a folder: a JSON file, a table and, asked for, pictures.

  Args:
    config: of the model.
    checkpoint: see `load`.
    input: a feature file (see feature_files.read_video) or a folder of them.
    output: gets the predictions in ActivityNet's form.
    duration: seconds, of files that tell none.
    plot: whether to draw a timeline of each video, OUTPUT_timelines/VIDEO.png.

  Raises:
    errors.InputError: a user error; nothing is written to `output` then.
  """
  model = load(checkpoint, config=config)
  output, results = epath.Path(output), {}
  truth = _read_truth(config) if plot else {}
  videos = (
    feature_files.read_video(path, duration, shape=model.shape)
    for path in feature_files.find(input)
  )
  for video, curves, segments in model.predict_videos(videos):
    if video.name in results:
      raise errors.InputError(f'{input}: two files are video {video.name!r}')
    results[video.name] = segments
    print(_table(video, segments))
    if plot:
      picture = f'{output.stem}_timelines/{video.name.replace("/", "_")}.png'
      figure = draw(model, video, curves, segments, truth)
      with files.atomic(output.parent / picture) as f:
        figure.savefig(f, format='png', dpi=100)
  results = localization.format_results(dict(sorted(results.items())))
  files.write_json(output, results)


def draw(model, video, curves, segments, truth):
  """Draw the timeline of a video, see figures.timeline.

  Args:
    model: a Model.
    video, curves, segments: as Model.predict_videos yields them.
    truth: {name: annotations.Video}, may lack the video.
  """
  from backtal_jax import figures  # not needed to predict

  found = {segment['label'] for segment in segments}
  found = [i for i, label in enumerate(model.classes) if label in found]
  # Nothing found is worth a look, too: at the class that came closest.
  found = found or [int(np.argmax(curves['score'][:-1]))]
  read = model.config.localization.get('read', 'logits')
  cas = localization.activation(curves['cas'], read)
  known = annotations.match_name(video.name, truth)
  (clicked,) = np.nonzero(video.click == len(model.classes))
  return figures.timeline(
    video.name,
    video.duration,
    {model.classes[i]: cas[:, i] for i in found},
    curves['foreground'],
    curves['magnitude'],
    segments,
    [
      {'label': s.label, 'segment': [s.start, s.end]}
      for s in (truth[known].segments if known else ())
    ],
    ((clicked + 0.5) * (video.duration / len(video.click))).tolist(),
  )


def _read_truth(config):
  """Return the videos of the ground truth, none where there is no such file."""
  try:
    path = files.find(config.data.ground_truth, config.data.root)
  except errors.InputError:
    return {}
  return annotations.read_ground_truth(path).videos


def _table(video, segments):
  """Lay out the best segments of a video."""
  best = sorted(segments, key=lambda s: -s['score'])
  lines = [f'{video.name}  {video.duration:.1f} s  {len(segments)} segments']
  width = max((len(s['label']) for s in best[:_SHOWN]), default=0)
  for s in best[:_SHOWN]:
    start, end = s['segment']
    lines.append(
      f'  {s["label"]:{width}} {start:9.2f} – {end:8.2f} s {s["score"]:8.3f}'
    )
  if best[_SHOWN:]:
    lines.append(f'  … and {len(best) - _SHOWN} with lower scores')
  return '\n'.join(lines)
