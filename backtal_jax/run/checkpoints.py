"""Checkpoints of a run: the latest and the best, by Orbax.

A checkpoint has two items, `params` and `training` (step, optimiser, rng), so
that evaluation reads the parameters alone. Its metrics are the epoch and the
value by which the best is chosen. Here PyTorch's files are read like our own,
and ours written as such.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, Protocol, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from backtal_jax import errors, files, models
from backtal_jax.run import hosts, model_folders, torch_checkpoints


class State(Protocol):
  """What is saved: a NamedTuple of `step`, `params` and others."""

  @property
  def step(self) -> jax.Array: ...

  @property
  def params(self) -> models.Params: ...

  def _asdict(self) -> dict[str, Any]: ...

  def _replace(self, *, params: models.Params) -> Self: ...


_S = TypeVar('_S', bound=State)
# Below every value that an evaluation gives.
UNKNOWN = -1.0


def _rank(metrics):
  """Order checkpoints by value; of equal ones the earliest is the best."""
  return metrics['value'], -metrics['epoch']


@contextlib.contextmanager
def manager(workdir: epath.Path) -> Iterator[ocp.CheckpointManager]:
  """Open WORKDIR/checkpoints, keeping the two latest and the best.

  Raises:
    errors.InputError: What was saved last could not be written.
  """
  options = ocp.CheckpointManagerOptions(
    best_fn=_rank,
    preservation_policy=preservation_policy.AnyPreservationPolicy(
      [
        preservation_policy.LatestN(2),
        preservation_policy.BestN(get_metric_fn=_rank, n=1),
      ]
    ),
    cleanup_tmp_directories=True,
  )
  with files.no_pattern(workdir.absolute()) as folder:
    opened = ocp.CheckpointManager(
      folder / 'checkpoints',
      options=options,
      item_handlers={
        'params': ocp.StandardCheckpointHandler(),
        'training': ocp.StandardCheckpointHandler(),
      },
    )
    try:
      yield opened
    except BaseException:
      # What ended the run is what is told, not what closing says after it.
      with contextlib.suppress(Exception):
        opened.close()
      raise
    with _writing(opened):
      opened.close()


def _name(manager):
  """Return the folder that a manager has, by its own name."""
  link, folder = manager.directory.parent, manager.directory
  if os.path.islink(link):  # see files.no_pattern
    return files.path(os.path.realpath(folder))
  return folder


def save(
  manager: ocp.CheckpointManager,
  state: State,
  *,
  epoch: int,
  value: float | None = UNKNOWN,
) -> None:
  """Save a state after an epoch under its step; asynchronous.

  The best checkpoint has the largest value, UNKNOWN if not evaluated.

  Raises:
    errors.InputError: It cannot be written (a full disk, say).
  """
  training = state._asdict()
  params = training.pop('params')
  with _writing(manager):
    manager.save(
      int(training['step']),
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(params),
        training=ocp.args.StandardSave(training),
      ),
      metrics={'epoch': epoch, 'value': value},
      force=True,
    )


def best_value(manager: ocp.CheckpointManager) -> float:
  """Return the value of the best checkpoint, UNKNOWN where there is none."""
  step = manager.best_step()
  return UNKNOWN if step is None else manager.metrics(step)['value']


def finish(manager: ocp.CheckpointManager) -> None:
  """Wait until everything saved is on disk."""
  with _writing(manager):
    manager.wait_until_finished()
    manager.check_for_errors()


@contextlib.contextmanager
def _writing(manager):
  """Name the folder when Orbax, in whatever way, could not write to it."""
  try:
    yield
  except Exception as e:
    if hosts.is_lost(e):  # not this folder's fault
      raise
    raise errors.InputError(
      f'{_name(manager)}: the checkpoint could not be written: {e}'
    ) from e


def restore(manager: ocp.CheckpointManager, state: _S) -> _S | None:
  """Restore the latest whole state; None where there is no checkpoint.

  A damaged checkpoint is named, removed and the one before it used. The `state`
  gives the shapes and shardings.

  Raises:
    errors.InputError: Every checkpoint is damaged.
  """
  training = state._asdict()
  params = training.pop('params')
  steps = sorted(manager.all_steps(), reverse=True)
  for step in steps:
    folder, reason = _name(manager) / str(step), ''
    try:
      restored = {
        'params': _read(folder / 'params', params),
        **_read(folder / 'training', training),
      }
    except Exception as e:  # whatever the damage makes Orbax raise
      reason = _first_line(e)
    # With a state that is split, only one of the hosts may see the damage.
    reasons = [r for r in hosts.gather_objects(reason) if r]
    if reasons:
      print(
        f'{folder}: the checkpoint is damaged and not used: {reasons[0]}',
        file=sys.stderr,
      )
      continue
    for damaged in steps[: steps.index(step)]:
      manager.delete(damaged)
    return type(state)(**restored)
  if steps:
    raise errors.InputError(
      f'{_name(manager)}: all {len(steps)} checkpoints are damaged; remove '
      'the folder to start anew'
    )
  return None


def initial_state(
  manager: ocp.CheckpointManager,
  state: _S,
  init_checkpoint: epath.Path | None = None,
) -> _S:
  """Return the latest state, see `restore`; of a new run the given one.

  The parameters of the latter are those of `init_checkpoint`, if there is one.
  """
  restored = restore(manager, state)
  if restored is not None:
    return restored
  if init_checkpoint:
    params, _ = restore_params(init_checkpoint, state.params)
    state = type(state)(**state._asdict() | {'params': params})
  return state


def _read(folder, template):
  """Read an item, not by the manager, which would wait for all hosts."""
  template = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
  args = ocp.args.StandardRestore(template)
  return ocp.StandardCheckpointHandler().restore(folder, args=args)


def _first_line(error):
  return str(error).partition('\n')[0] or type(error).__name__


def restore_params(
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
  try:
    found = ocp.StandardCheckpointHandler().metadata(step / 'params')
    if params is None:
      here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
      shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)
      params = jax.tree.map(shape, found, is_leaf=_has_shape)
    kept = _known(params, 'standard' in found)
    _check_shapes(checkpoint, found, kept)
    epoch = _metrics(step)['epoch']
    return _whole(_read(step / 'params', kept), params), epoch
  except errors.InputError:
    raise
  except Exception as e:  # whatever the damage makes Orbax raise
    raise errors.InputError(
      f'{step}: the checkpoint is damaged: {_first_line(e)}'
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
      return max(steps, key=lambda p: (_rank(_metrics(p)), int(p.name)))
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


def _has_shape(leaf):  # what Orbax says of an array is a tree for jax
  return hasattr(leaf, 'shape')


def _restore_official(path, params):
  """Do what `restore_params` does, from a PyTorch file."""
  state, epoch = torch_checkpoints.read(path)
  known = any(name.startswith('standard_module.') for name in state)
  kept = _known(params, known)
  names = torch_checkpoints.names(kept)
  leaves = zip(jax.tree.leaves(names), jax.tree.leaves(kept), strict=True)
  expected = {
    name: jax.ShapeDtypeStruct(x.shape[::-1], x.dtype) for name, x in leaves
  }
  _check_shapes(path, state, expected)
  place = lambda name, x: _place(state[name].T, x)
  return _whole(jax.tree.map(place, names, kept), params), epoch


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
  nothing = models.standard(np.zeros(dim), np.ones(dim))
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
    {
      jax.tree_util.keystr(path, simple=True, separator='.'): tuple(x.shape)
      for path, x in jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=_has_shape
      )
    }
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
