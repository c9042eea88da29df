"""Checkpoints of a run: the latest and the best, by Orbax.

A checkpoint has two items, `params` and `training` (step, optimiser, rng), so
that evaluation reads the parameters alone. Its metrics are the epoch and the
value by which the best is chosen. Here the official program's .pth files are
read like our own, and ours written as such:

  python -m backtal_jax.run.checkpoints export --checkpoint DIR --output X
"""

import argparse
import contextlib
import json
import sys

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from backtal_jax import errors, files
from backtal_jax.run import hosts, torch_checkpoints

# Below every value that an evaluation gives.
UNKNOWN = -1.0


def _rank(metrics):
  """Order checkpoints by value; of equal ones the earliest is the best."""
  return metrics['value'], -metrics['epoch']


@contextlib.contextmanager
def manager(workdir, create=True):
  """Open WORKDIR/checkpoints, keeping the two latest and the best.

  Yields:
    An Orbax CheckpointManager.

  Raises:
    errors.InputError: what was saved last could not be written.
  """
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
  folder = files.path(workdir).absolute() / 'checkpoints'
  opened = ocp.CheckpointManager(
    folder,
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
    # Another process lost is not this folder's fault.
    if isinstance(error, Exception) and not hosts.is_lost(error):
      raise errors.InputError(
        f'{self._folder}: the checkpoint could not be written: {error}'
      ) from error


def restore(manager, state):
  """Restore the latest whole state; None where there is no checkpoint.

  A damaged checkpoint is named, removed and the one before it used.

  Args:
    manager: of the workdir.
    state: gives the shapes and shardings.

  Raises:
    errors.InputError: every checkpoint is damaged.
  """
  training = jax.tree.map(ocp.utils.to_shape_dtype_struct, state._asdict())
  params = training.pop('params')
  steps = sorted(manager.all_steps(), reverse=True)
  for step in steps:
    folder, reason = manager.directory / str(step), ''
    try:
      restored = {
        'params': _read(folder / 'params', params),
        **_read(folder / 'training', training),
      }
    except Exception as e:  # whatever the damage makes Orbax raise
      reason = str(e).partition('\n')[0] or type(e).__name__
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
      f'{manager.directory}: all {len(steps)} checkpoints are damaged; remove '
      'the folder to start anew'
    )
  return None


def _read(folder, template):
  """Read an item, not by the manager, which would wait for all hosts."""
  args = ocp.args.StandardRestore(template)
  return ocp.StandardCheckpointHandler().restore(folder, args=args)


def restore_params(checkpoint, params):
  """Read the parameters of a checkpoint, in the shapes of `params`.

  Args:
    checkpoint: a workdir (its best checkpoint), its checkpoints folder, one
      step of it, or an official .pth file.
    params: arrays or shapes to be filled; None: whatever is there.

  Returns:
    The parameters, and the epoch of the checkpoint (-1 where unknown).

  Raises:
    errors.InputError: there is no checkpoint, or one of other shapes.
  """
  if torch_checkpoints.is_official(checkpoint):
    return _restore_official(checkpoint, params)
  path, step = locate(checkpoint)
  with manager(path, create=False) as opened:
    step = opened.best_step() if step is None else step
    step = opened.latest_step() if step is None else step
    if step not in opened.all_steps():
      raise errors.InputError(
        f'{checkpoint}: no whole checkpoint in it; steps found: '
        f'{opened.all_steps()}'
      )
    found = opened.item_metadata(step).params
    if params is None:
      params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
          x.shape, x.dtype, sharding=_first_device()
        ),
        found,
        is_leaf=lambda x: hasattr(x, 'shape'),
      )
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


def locate(checkpoint) -> tuple[epath.Path, int | None]:
  """Return the workdir of a checkpoint of ours, and its step if it names one.

  Raises:
    errors.InputError: there is none.
  """
  path, step = files.path(checkpoint).absolute(), None
  if path.name.isdigit():
    path, step = path.parent, int(path.name)
  if path.name == 'checkpoints':
    path = path.parent
  if not (path / 'checkpoints').is_dir():
    raise errors.InputError(
      f'{checkpoint}: no checkpoint there; expected a workdir with a '
      'checkpoints folder, or a .pth file'
    )
  return path, step


def workdir_of(checkpoint) -> epath.Path | None:
  """Return the workdir of a checkpoint of ours; an official file has none."""
  if torch_checkpoints.is_official(checkpoint):
    return None
  return locate(checkpoint)[0]


def _first_device():
  return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _restore_official(path, params):
  """Do what `restore_params` does, from a .pth file."""
  state, epoch = torch_checkpoints.read(path)
  names = torch_checkpoints.names(params)
  leaves = zip(jax.tree.leaves(names), jax.tree.leaves(params), strict=True)
  expected = {
    name: jax.ShapeDtypeStruct(x.shape[::-1], x.dtype) for name, x in leaves
  }
  _check_shapes(path, state, expected)
  place = lambda name, x: jax.device_put(
    state[name].T.astype(x.dtype), getattr(x, 'sharding', None)
  )
  return jax.tree.map(place, names, params), epoch


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


def export(checkpoint, output):
  """Write a checkpoint of ours as an official .pth file.

  Args:
    checkpoint: a workdir (its best checkpoint), or one step of it.
    output: path of the file.

  Raises:
    errors.InputError: torch is not installed, or there is no checkpoint.
  """
  workdir, _ = locate(checkpoint)
  params, epoch = restore_params(checkpoint, None)
  torch_checkpoints.write(output, params, epoch)
  config = workdir / 'config.json'
  model = json.loads(config.read_text())['model'] if config.exists() else {}
  if model.get('affinity', 'official') != 'official':
    print(
      f'{output}: trained with config.model.affinity={model["affinity"]}; the '
      'official program computes another affinity with these weights',
      file=sys.stderr,
    )


def main(argv=None):
  """Run the command line."""
  parser = argparse.ArgumentParser(prog='python -m backtal_jax.run.checkpoints')
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  command = commands.add_parser('export', help='to the official .pth form')
  command.add_argument('--checkpoint', required=True, help='a workdir or step')
  command.add_argument('--output', required=True, help='the .pth file')
  args = parser.parse_args(argv)
  with errors.one_line():
    export(args.checkpoint, args.output)


if __name__ == '__main__':
  main()
