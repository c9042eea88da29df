"""A checkpoint as the official program's file."""

import sys

import jax
from etils import epath

from backtal_jax import errors, files, models
from backtal_jax.run import parameters, torch_checkpoints


def write(
  checkpoint: epath.Path,
  output: epath.Path,
  params: models.Shapes | None = None,
) -> float:
  """Write a checkpoint of ours as an official .pth file.

  The arguments are as of parameters.restore.

  Returns:
    The largest difference of a tensor that is read back.

  Raises:
    errors.InputError: torch is not installed, or there is no checkpoint.
  """
  if parameters.is_torch(checkpoint):
    raise errors.InputError(f'{checkpoint}: a PyTorch file as it is')
  params, epoch = parameters.restore(checkpoint, params)
  torch_checkpoints.write(output, params, epoch)
  workdir = parameters.workdir_of(checkpoint)
  config = files.read_json(workdir / 'config.json') if workdir else {}
  affinity = config.get('model', {}).get('affinity', 'official')
  for applies, what in (
    (config.get('stages', {}).get('quality'),
     f'without the quality head of {workdir}, which the official program has '
     'no place for'),
    (affinity != 'official',
     f'trained with config.model.affinity={affinity}; the official program '
     'computes another affinity with these weights'),
    ('standard' in params,
     'with config.model.standardize, which the official program does not '
     'know: it refuses standard_module'),
  ):  # fmt: skip
    if applies:
      print(f'{output}: {what}', file=sys.stderr)
  written, _ = parameters.restore(output, params)
  apart = jax.tree.map(lambda a, b: abs(a - b).max(), written, params)
  return float(max(jax.tree.leaves(apart)))
