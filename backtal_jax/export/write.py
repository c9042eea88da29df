"""A checkpoint as one of the files that leave home, told apart by its ending.

Each is compared with JAX before it appears, on features that are drawn.
"""

import importlib.metadata
import os
import shutil
import tempfile

import jax
import ml_collections
import numpy as np
from etils import epath

import backtal_jax
from backtal_jax import errors, fields, files, models, predict
from backtal_jax.data import feature_records
from backtal_jax.export import card, official, onnx_graph
from backtal_jax.run import model_folders, parameters
from backtal_jax.stages import quality

ENDINGS = '.pth', '.pt', '.onnx', '.stablehlo'
PLATFORMS = 'cpu', 'cuda', 'tpu'
# How far an output may be from JAX's, relative to its largest value above 1.
TOLERANCE = 1e-4
_VIDEOS = 3  # that are compared


def export(
  checkpoint: epath.PathLike,
  output: epath.PathLike,
  config: ml_collections.ConfigDict | None = None,
) -> None:
  """Write a checkpoint as a PyTorch, ONNX or StableHLO file, or as a folder.

  Args:
    checkpoint: See parameters.restore.
    output: Ends in one of `ENDINGS`; else it is a folder, which may not be
      there or has to be empty, see model_folders.
    config: Of the model; by default that of the workdir.

  Raises:
    errors.InputError: A user error, or what was written computes something
      else than JAX; there is no output then.
  """
  checkpoint, output = files.path(checkpoint), files.path(output)
  files.require_ending(output, *ENDINGS, folder=True)
  kind = output.suffix.lower()
  if kind in ('.pth', '.pt'):
    # What is exported then has to fit the config.
    shapes = config and models.shapes(models.BackTAL(**config.model))
    difference = official.write(checkpoint, output, shapes)
  else:
    config = config or predict.config_of(checkpoint)
    config = config.copy_and_resolve_references()
    config.mesh = ()  # for the devices of whoever reads it
    model = predict.load(checkpoint, config=config)
    if kind in ENDINGS:
      write = _onnx if kind == '.onnx' else _stablehlo
      difference = _write_file(output, config, model, write)
    else:
      difference = _write_folder(output, checkpoint, config, model)
  print(f'largest difference to JAX: {difference:.1e}')


def _write_file(output, config, model, write):
  """Write a file once its network is compared; see `_onnx`."""
  if model.head is not None:
    raise errors.InputError(
      f'{output}: the training made a quality head, which has no place in one '
      'network; expected a folder as --output, or --config C.py '
      '--config.stages.quality=False, which leaves it out'
    )
  content, network = write(output, config, model)
  difference = _compare(output, model, network)
  with files.atomic(output) as f:
    f.write(content)
  return difference


def _onnx(output, config, model):
  """Return an ONNX file, and what onnxruntime makes of it."""
  runtime = errors.need('onnxruntime', 'export', output)
  about = {
    'version': backtal_jax.__version__,
    **{k: importlib.metadata.version(k) for k in ('jax', 'flax', 'onnx')},
    'epoch': model.epoch,
    'num_snippets': model.shape[0],
    'classes': model.classes,
    'localization': fields.plain(config)['localization'],
    'features': model.read.record,
  }
  params = jax.device_get(model.params)
  content = onnx_graph.build(params, model.network, model.shape[0], about)
  session = runtime.InferenceSession(content)
  names = [x.name for x in session.get_outputs()]

  def network(feature):
    found = session.run(names, {'feature': feature})
    return dict(zip(names, found, strict=True))

  return content, network


def _stablehlo(output, _, model):
  """Return a serialised jax.export.Exported, and what it computes here."""
  errors.need('flatbuffers', 'export', output)
  params = jax.device_get(model.params)
  step = jax.jit(lambda x: predict.predict_step(params, x, model=model.network))
  videos = jax.export.symbolic_shape('videos')
  shape = jax.ShapeDtypeStruct((*videos, *model.shape), np.float32)
  exported = jax.export.export(step, platforms=PLATFORMS)(shape)
  content = bytes(exported.serialize())
  print(
    f'{output}: for {", ".join(PLATFORMS)}; JAX promises to read it for 6 '
    f'months from jax {jax.__version__} on'
  )
  return content, jax.export.deserialize(bytearray(content)).call


def _write_folder(output, checkpoint, config, model):
  """Write a folder under another name; compare it; rename it."""
  if output.exists() and (not output.is_dir() or any(output.iterdir())):
    raise errors.InputError(f'{output}: exists; expected a new or empty folder')
  workdir = parameters.workdir_of(checkpoint)
  plain = _without_homes(fields.plain(config))
  plain['data']['features'] = feature_records.to_text(model.read.record)
  files.make_folder(output.parent)
  scratch = tempfile.mkdtemp(prefix=f'.{output.name}.', dir=output.parent)
  try:
    # Written as anybody may read it, which a temporary folder is not.
    folder = files.path(scratch) / output.name
    model_folders.write(
      folder, model.params, model.epoch, plain, model.classes,
      model.read.record,
    )  # fmt: skip
    if model.head is not None:
      quality.write(folder / 'stages' / 'quality.npz', model.head)
    text = card.write(output.name, plain, model, _metrics(workdir, model.epoch))
    files.write_text(folder / 'README.md', text)
    read = predict.load(folder)
    difference = _compare(output, model, lambda x: _step(read, x))
    folder.replace(output)
  finally:
    shutil.rmtree(scratch)
  return difference


def _without_homes(value):
  """Return a config with the last parts of paths that say where somebody is."""
  if isinstance(value, dict):
    return {key: _without_homes(inner) for key, inner in value.items()}
  parts = value.split(',') if isinstance(value, str) else ()
  if any(part.strip().startswith(('/', '~')) for part in parts):
    return ','.join(os.path.basename(part.rstrip('/')) for part in parts)
  return value


def _metrics(workdir, epoch):
  """Return the metrics of a run, {} where they are of another epoch."""
  path = workdir and workdir / 'metrics.json'
  found = files.read_json(path) if path and path.exists() else {}
  return found if found.get('epoch') == epoch else {}


def _step(model, feature):
  return predict.predict_step(model.params, feature, model=model.network)


def _compare(output, model, network):
  """Return how far a network's outputs are from JAX's, see `TOLERANCE`.

  Raises:
    errors.InputError: Further than that, or not a number.
  """
  rng = np.random.default_rng(0)
  feature = rng.normal(size=(_VIDEOS, *model.shape)).astype(np.float32)
  found, largest = network(feature), 0.0
  for name, expected in _step(model, feature).items():
    expected = np.asarray(expected, float)
    apart = np.abs(np.asarray(found[name], float) - expected).max()
    apart = float(apart / max(1, np.abs(expected).max()))
    if not apart <= TOLERANCE:
      raise errors.InputError(
        f'{output}: {name} is {apart:.1e} from what JAX computes, expected at '
        f'most {TOLERANCE:g}; the parameters may be damaged, else this is a '
        'fault to be reported'
      )
    largest = max(largest, apart)
  return largest
