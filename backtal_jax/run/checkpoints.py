"""Checkpoints of a run: the latest and the best, by Orbax.

A checkpoint has two items, `params` and `training` (step, optimiser, rng), so
that evaluation reads the parameters alone. Its metrics are the epoch and the
value by which the best is chosen.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, Protocol, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from backtal_jax import errors, files, models
from backtal_jax.run import hosts, parameters


class State(Protocol):
  """What is saved: a NamedTuple of `step`, `params` and others."""

  @property
  def step(self) -> jax.Array: ...

  @property
  def params(self) -> models.Params: ...

  def _asdict(self) -> dict[str, Any]: ...

  def _replace(self, *, params: models.Params) -> Self: ...


_S = TypeVar('_S', bound=State)


@contextlib.contextmanager
def manager(workdir: epath.Path) -> Iterator[ocp.CheckpointManager]:
  """Open WORKDIR/checkpoints, keeping the two latest and the best.

  Raises:
    errors.InputError: What was saved last could not be written.
  """
  options = ocp.CheckpointManagerOptions(
    best_fn=parameters.rank,
    preservation_policy=preservation_policy.AnyPreservationPolicy(
      [
        preservation_policy.LatestN(2),
        preservation_policy.BestN(get_metric_fn=parameters.rank, n=1),
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
  folder = manager.directory
  linked = os.path.islink(folder.parent)  # see files.no_pattern
  return files.path(os.path.realpath(folder)) if linked else folder


def save(
  manager: ocp.CheckpointManager,
  state: State,
  *,
  epoch: int,
  value: float = parameters.UNKNOWN,
) -> None:
  """Save a state after an epoch under its step; asynchronous.

  The best has the largest value, parameters.UNKNOWN if not evaluated.

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
  return parameters.UNKNOWN if step is None else manager.metrics(step)['value']


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


def initial_state(
  manager: ocp.CheckpointManager,
  state: _S,
  init_checkpoint: epath.Path | None = None,
) -> _S:
  """Restore the latest whole state; of a new run return the given one.

  A damaged checkpoint is named, removed and the one before it used. The `state`
  gives the shapes and shardings; of a new run, its parameters are those of
  `init_checkpoint`, if there is one.

  Raises:
    errors.InputError: Every checkpoint is damaged; or see parameters.restore.
  """
  training = state._asdict()
  params = training.pop('params')
  steps = sorted(manager.all_steps(), reverse=True)
  for step in steps:
    folder, reason = _name(manager) / str(step), ''
    try:
      restored = {
        'params': parameters.read_item(folder / 'params', params),
        **parameters.read_item(folder / 'training', training),
      }
    except Exception as e:  # whatever the damage makes Orbax raise
      reason = parameters.first_line(e)
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
  if init_checkpoint:
    params, _ = parameters.restore(init_checkpoint, state.params)
    state = state._replace(params=params)
  return state
