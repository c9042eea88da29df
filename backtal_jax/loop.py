"""The loop of a training: parts, steps, epochs and checkpoints.

It sees values only, which `train` makes of a config.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from etils import epath

from backtal_jax import epochs, models, staging
from backtal_jax.data import pipeline
from backtal_jax.run import checkpoints, ending, log, parameters

# By name, on the devices: a batch, or scalars.
Arrays = dict[str, jax.Array]


class TrainState(NamedTuple):
  """All that training changes."""

  step: jax.Array
  params: models.Params
  opt_state: optax.OptState
  rng: jax.Array


Step = Callable[[TrainState, Arrays], tuple[TrainState, Arrays]]


class Program(NamedTuple):
  """What trains."""

  model: models.BackTAL
  # Samples a first state; of mean and deviation of channels, where a network
  # standardises by them.
  new_state: Callable[..., TrainState]
  layout: TrainState  # where a state's arrays live: their shardings
  step: Step  # jitted; reuses the old state's memory


class Run(NamedTuple):
  """What all parts of a training share."""

  workdir: epath.Path
  names: Sequence[str]  # of the videos, for errors
  plan: Callable[..., np.ndarray]  # (num_epochs) -> pipeline.train_plan
  per_epoch: int  # steps
  num_steps: int  # of the first part
  # (rows of the plan, targets=labels and weights of snippets) -> batches.
  feed: Callable[..., Iterator[tuple[Arrays, pipeline.Batch]]]
  program: Program  # of the first part
  build: Callable[..., Program]  # (num_steps, first_step, clicks) -> of others
  learning_rate: float
  checkpoint_every: int  # steps, 0 for epochs alone
  on_nan: str  # see config.train
  manager: ocp.CheckpointManager
  preempted: Callable[[], bool]
  epochs: epochs.Epochs


def _begin(
  run: Run, part: staging.Part, state: TrainState
) -> tuple[Step, TrainState]:
  """Return the step of a part, and the state that it goes on from."""
  if not part.number:
    return run.program.step, state
  first = run.per_epoch * part.first
  # What goes on from parameters is past all warm-ups.
  since = first if part.targets is None else first - run.num_steps
  step = run.build(run.num_steps, since, part.clicks).step
  if int(state.step) == first:
    fresh = run.program.new_state()._replace(step=state.step)
    if part.targets is not None:
      fresh = fresh._replace(params=state.params)
    state = fresh
  return step, state


def train(run: Run, state: TrainState) -> None:
  """Train what is left of all parts from a state within one of them."""
  for part in run.epochs.stages.parts():
    if int(state.step) < run.per_epoch * part.last:
      state = _train_part(run, part, state)


def _train_part(run: Run, part: staging.Part, state: TrainState) -> TrainState:
  """Train a part from a state within it, to its end; exit where asked to."""
  step_fn, state = _begin(run, part, state)
  start, plan = int(state.step), run.plan(num_epochs=part.last)
  every, batches = run.checkpoint_every, run.feed(plan[start:], part.targets)
  with log.Log(run.workdir, plan, start, run.names, run.on_nan) as run_log:
    for step, (on_device, batch) in enumerate(batches, start + 1):
      state, metrics = step_fn(state, on_device)
      run_log.add(step, metrics, batch, learning_rate=run.learning_rate)
      epoch, rest = divmod(step, run.per_epoch)
      stop, value = run.preempted(), parameters.UNKNOWN
      if not rest or stop or (every and step % every == 0):
        run_log.flush()
        if not rest:
          value = run.epochs.end(epoch, state, run_log, part)
        checkpoints.save(run.manager, state, epoch=epoch, value=value)
      if stop:
        checkpoints.finish(run.manager)
        run_log.say(f'asked to end after step {step}; the same command goes on')
        sys.exit(ending.PREEMPTED)
  return state
