"""Checkpoints of a run: the latest and the best, by Orbax.

A checkpoint has two items, `params` and `training` (step, optimiser, rng), so
that evaluation reads the parameters alone. Its metrics are the epoch and the
value by which the best is chosen.
"""

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from backtal_jax import errors

# Below every value that an evaluation gives.
UNKNOWN = -1.0


def _rank(metrics):
  """Order checkpoints by value; of equal ones the earliest is the best."""
  return metrics['value'], -metrics['epoch']


def manager(workdir, create=True) -> ocp.CheckpointManager:
  """Open WORKDIR/checkpoints, keeping the two latest and the best."""
  options = ocp.CheckpointManagerOptions(
    best_fn=_rank,
    preservation_policy=preservation_policy.AnyPreservationPolicy(
      [
        preservation_policy.LatestN(2),
        preservation_policy.BestN(get_metric_fn=_rank, n=1),
      ]
    ),
    cleanup_tmp_directories=create,
    create=create,
  )
  folder = epath.Path(workdir).absolute() / 'checkpoints'
  return ocp.CheckpointManager(
    folder,
    options=options,
    item_handlers={
      'params': ocp.StandardCheckpointHandler(),
      'training': ocp.StandardCheckpointHandler(),
    },
  )


def save(manager, state, *, epoch, value=UNKNOWN):
  """Save a training state under its step; asynchronous.

  Args:
    manager: of the workdir.
    state: a train.TrainState.
    epoch: how many are done.
    value: the best checkpoint has the largest; UNKNOWN if not evaluated.

  Raises:
    errors.InputError: it cannot be written (a full disk, say).
  """
  state = state._asdict()
  params = state.pop('params')
  with _writing(manager):
    manager.save(
      int(state['step']),
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(params),
        training=ocp.args.StandardSave(state),
      ),
      metrics={'epoch': epoch, 'value': value},
      force=True,
    )


def finish(manager):
  """Wait until everything saved is on disk."""
  with _writing(manager):
    manager.wait_until_finished()
    manager.check_for_errors()


class _writing:
  """Name the folder when Orbax, in whatever way, could not write to it."""

  def __init__(self, manager):
    self._folder = manager.directory

  def __enter__(self):
    pass

  def __exit__(self, kind, error, traceback):
    if isinstance(error, Exception):
      raise errors.InputError(
        f'{self._folder}: the checkpoint could not be written: {error}'
      ) from error


def restore(manager, state):
  """Restore the latest state, in the shapes and shardings of `state`."""
  template = jax.tree.map(ocp.utils.to_shape_dtype_struct, state._asdict())
  params = template.pop('params')
  restored = manager.restore(
    manager.latest_step(),
    args=ocp.args.Composite(
      params=ocp.args.StandardRestore(params),
      training=ocp.args.StandardRestore(template),
    ),
  )
  return type(state)(params=restored['params'], **restored['training'])


def restore_params(checkpoint, params):
  """Read the parameters of a checkpoint, in the shapes of `params`.

  Args:
    checkpoint: a workdir (its best checkpoint), its checkpoints folder, or
      one step of it.
    params: arrays or shapes to be filled.

  Returns:
    The parameters, and the epoch of the checkpoint (-1 where unknown).

  Raises:
    errors.InputError: there is no checkpoint, or one of other shapes.
  """
  path, step = epath.Path(checkpoint).absolute(), None
  if path.name.isdigit():
    path, step = path.parent, int(path.name)
  if path.name == 'checkpoints':
    path = path.parent
  if not (path / 'checkpoints').is_dir():
    raise errors.InputError(
      f'{checkpoint}: no checkpoint there; expected a workdir with a '
      'checkpoints folder'
    )
  with manager(path, create=False) as opened:
    step = opened.best_step() if step is None else step
    step = opened.latest_step() if step is None else step
    if step not in opened.all_steps():
      raise errors.InputError(
        f'{checkpoint}: no whole checkpoint in it; steps found: '
        f'{opened.all_steps()}'
      )
    found = opened.item_metadata(step).params
    _check_shapes(checkpoint, found, params)
    restored = opened.restore(
      step,
      args=ocp.args.Composite(
        params=ocp.args.StandardRestore(
          jax.tree.map(ocp.utils.to_shape_dtype_struct, params)
        )
      ),
    )
    metrics = opened.metrics(step) or {}
  return restored['params'], int(metrics.get('epoch', -1))


def _check_shapes(checkpoint, found, expected):
  """Compare two parameter trees by name and shape, listing what differs."""
  found, expected = (
    {
      jax.tree_util.keystr(path, simple=True, separator='.'): tuple(x.shape)
      for path, x in jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda x: hasattr(x, 'shape')
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
