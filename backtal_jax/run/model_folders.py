"""A trained network in a folder that `--mode export` wrote, read like a run.

  model.safetensors  the parameters by their names, `backbone.conv_1.kernel`
  config.json        the whole config, as in a workdir
  classes.json       names in index order, as in a workdir
  localization.json  options of localization.localize
  features.json      how the features were made, {} where that is unknown
  stages/quality.npz the quality head, where the training made one

What is said twice must agree: who changes one file finds that it counts, or
that another contradicts it. The card, README.md, is for people.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath
from flax import traverse_util

from backtal_jax import errors, fields, files, models

NAME = 'model.safetensors'


def is_one(folder: epath.Path) -> bool:
  """Tell whether a folder is one of these."""
  return (folder / NAME).is_file()


def write(
  folder: epath.Path,
  params: models.Params,
  epoch: int,
  config: Mapping[str, Any],
  classes: Sequence[str],
  record: Mapping[str, Any],
) -> None:
  """Write all but the quality head and the card.

  Args:
    folder: Is made where it is missing.
    params: Parameters.
    epoch: Of the checkpoint, -1 where unknown.
    config: Of the model, plain values.
    classes: Names in index order.
    record: See feature_records.
  """
  safetensors = errors.need('safetensors.numpy', 'export', folder)
  about = {'epoch': str(epoch), 'classes': json.dumps(list(classes))}
  tensors = traverse_util.flatten_dict(jax.device_get(params), sep='.')
  with files.atomic(folder / NAME) as f:
    f.write(safetensors.save(tensors, about))
  for name, value in {
    'config.json': config,
    'classes.json': list(classes),
    'localization.json': config['localization'],
    'features.json': record,
  }.items():
    files.write_json(folder / name, value, indent=1)


def read(folder: epath.Path) -> tuple[dict[str, Any], int]:
  """Read the parameters, as the tree that they are, and their epoch.

  Raises:
    errors.InputError: A file is missing, damaged, or contradicts another.
  """
  path = folder / NAME
  safetensors = errors.need('safetensors', 'export', folder)
  try:
    with safetensors.safe_open(path, 'numpy') as f:
      about = f.metadata() or {}
      found = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
  except Exception as e:  # a bare one for each kind of damage
    raise errors.InputError(f'{path}: not a whole file of tensors: {e}') from e
  _require_agreement(folder, about)
  tree: dict[str, Any] = {}
  for name, tensor in sorted(found.items()):
    *above, last = name.split('.')
    inner = tree
    for part in above:
      inner = inner.setdefault(part, {})
      if not isinstance(inner, dict):
        raise errors.InputError(f'{path}: {part} is a tensor, and in {name}')
    inner[last] = tensor
  epoch = about.get('epoch', '')
  return tree, int(epoch) if epoch.isdigit() else -1


def _require_agreement(folder, about):
  """Refuse a folder whose files contradict each other."""
  config = fields.read_saved(folder / 'config.json')
  features = config['data'].get('features') or '{}'
  for name, other, expected in (
    ('classes.json', NAME, json.loads(about.get('classes', 'null'))),
    ('localization.json', 'config.json', config['localization']),
    ('features.json', 'config.json', json.loads(features)),
  ):
    found, where = files.read_json(folder / name), folder / name
    if expected is None or found == expected:
      continue
    found, expected = map(_by_key, (found, expected))
    key = next(
      k for k in (*expected, *found) if found.get(k) != expected.get(k)
    )
    raise errors.InputError(
      f'{where}: {key} is {found.get(key)!r}, in {other} {expected.get(key)!r}'
    )


def _by_key(value):
  """Return what JSON holds as a dict, a list by its indices."""
  if isinstance(value, dict):
    return value
  return dict(enumerate(value if isinstance(value, list) else [value]))
