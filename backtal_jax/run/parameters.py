"""The parameters of any checkpoint: ours, an exported folder's, PyTorch's.

Where the best step of a run is, and what is in it.
"""

from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from backtal_jax import errors, files, models
from backtal_jax.run import model_folders, torch_checkpoints

_T = TypeVar('_T')
# Below every value that an evaluation gives.
UNKNOWN = -1.0


def rank(metrics: Mapping[str, float]) -> tuple[float, float]:
  """Order checkpoints by value; of equal ones the earliest is the best."""
  return metrics['value'], -metrics['epoch']


def restore(
  checkpoint: epath.Path, params: models.Params | models.Shapes | None
) -> tuple[models.Params, int]:
  """Read the parameters of a checkpoint, in the shapes of `params`.

  Args:
    checkpoint: A workdir (its best checkpoint), its checkpoints folder,
      one of its steps, an exported folder or a PyTorch file, told apart by
      what lies there.
    params: Arrays or shapes to be filled; None: whatever is there.

  Returns:
    The parameters, and the epoch of the checkpoint (-1 where unknown). Where
    only models.Standard's are missing, the network saw features as they are,
    and goes on to.

  Raises:
    errors.InputError: There is no checkpoint, a damaged one, or one of other
      shapes.
  """
  if is_torch(checkpoint):
    return _restore_official(checkpoint, params)
  if model_folders.is_one(checkpoint):
    found, epoch = model_folders.read(checkpoint)
    params = found if params is None else params
    kept = _known(params, 'standard' in found)
    _check_shapes(checkpoint, found, kept)
    return _whole(jax.tree.map(_place, found, kept), params), epoch
  step = locate(checkpoint)
  here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)
  try:
    found = ocp.StandardCheckpointHandler().metadata(step / 'params').tree
    # What Orbax says of an array is a tree for jax.
    is_leaf = lambda x: hasattr(x, 'shape')
    found = jax.tree.map(shape, found, is_leaf=is_leaf)
    params = found if params is None else params
    kept = _known(params, 'standard' in found)
    _check_shapes(checkpoint, found, kept)
    epoch = _metrics(step)['epoch']
    return _whole(read_item(step / 'params', kept), params), epoch
  except errors.InputError:
    raise
  except Exception as e:  # whatever the damage makes Orbax raise
    raise errors.InputError(
      f'{step}: the checkpoint is damaged: {first_line(e)}'
    ) from e


def is_torch(checkpoint: epath.Path) -> bool:
  """Check for a file, which only PyTorch's checkpoints are."""
  return checkpoint.is_file()


def locate(checkpoint: epath.Path) -> epath.Path:
  """Find the step that a folder is, or the best that it holds.

  Raises:
    errors.InputError: there is none.
  """
  path = checkpoint.absolute()
  if not path.exists():
    raise errors.InputError(f'{checkpoint}: no such file or folder')
  if _is_step(path):
    return path
  for folder in (path / 'checkpoints', path):
    steps = filter(_is_step, folder.iterdir()) if folder.is_dir() else ()
    steps = [p for p in steps if p.name.isdigit()]
    if steps:
      # Of equal ones that cannot be told apart, the latest.
      return max(steps, key=lambda p: (rank(_metrics(p)), int(p.name)))
  if (path / 'checkpoints').is_dir():
    raise errors.InputError(f'{checkpoint}: no whole checkpoint in it')
  raise errors.InputError(
    f'{checkpoint}: no checkpoint there; expected a workdir with a checkpoints '
    f'folder, an exported folder with {model_folders.NAME}, or a PyTorch file'
  )


def workdir_of(checkpoint: epath.Path) -> epath.Path | None:
  """Return the folder that holds the checkpoint's config, if one does.

  It is the checkpoint's own or one above; a PyTorch file has none.
  """
  if is_torch(checkpoint):
    return None
  path = checkpoint.absolute()
  for folder in (path, *path.parents[:2]):
    if (folder / 'config.json').is_file():
      return folder
  return None


def _is_step(folder):
  return (folder / 'params').is_dir()


def _metrics(step):
  """Read the epoch of a step, and the value by which the best is chosen."""
  path = step / 'metrics' / 'metrics'
  found = files.read_json(path) if path.exists() else {}
  return {'epoch': -1, 'value': UNKNOWN} | found


def _restore_official(path, params):
  """Do what `restore` does, from a PyTorch file."""
  state, epoch = torch_checkpoints.read(path)
  known = any(name.startswith('standard_module.') for name in state)
  kept = _known(params, known)
  flat = traverse_util.flatten_dict(kept, sep='.')
  names = {name: torch_checkpoints.official(name) for name in flat}
  expected = {
    names[name]: jax.ShapeDtypeStruct(x.shape[::-1], x.dtype)
    for name, x in flat.items()
  }
  _check_shapes(path, state, expected)
  found = {name: _place(state[names[name]].T, x) for name, x in flat.items()}
  return _whole(traverse_util.unflatten_dict(found, sep='.'), params), epoch


def _known(params, has_standard):
  """Return what of `params` a checkpoint has; models.Standard is new."""
  if has_standard:
    return params
  return {k: v for k, v in params.items() if k != 'standard'}


def _whole(found, params):
  """Add what `_known` left out, such that it changes nothing."""
  if 'standard' in found or 'standard' not in params:
    return found
  channels = params['standard']['channels']
  dim = channels['mean'].shape
  nothing = {'mean': np.zeros(dim), 'scale': np.ones(dim)}
  given = {'channels': jax.tree.map(_place, nothing, channels)}
  return found | {'standard': given}


def _place(array, like):
  """Put an array where another one is, or will be, in its type."""
  return jax.device_put(
    array.astype(like.dtype), getattr(like, 'sharding', None)
  )


def _check_shapes(checkpoint, found, expected):
  """Compare two parameter trees by name and shape, listing what differs."""
  found, expected = (
    traverse_util.flatten_dict(jax.tree.map(lambda x: x.shape, tree), sep='.')
    for tree in (found, expected)
  )
  different = [
    f'{name} is {found.get(name, "missing")}, expected '
    f'{expected.get(name, "nothing")}'
    for name in sorted(found.keys() | expected.keys())
    if found.get(name) != expected.get(name)
  ]
  if different:
    raise errors.InputError(
      f'{checkpoint}: does not fit config.model: {"; ".join(different)}'
    )


def read_item(folder: epath.Path, template: _T) -> _T:
  """Read an item, not by the manager, which would wait for all hosts."""
  template = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
  args = ocp.args.StandardRestore(template)
  return ocp.StandardCheckpointHandler().restore(folder, args=args)


def first_line(error: Exception) -> str:
  """Return the first line of what an error says, else its kind."""
  return str(error).partition('\n')[0] or type(error).__name__
