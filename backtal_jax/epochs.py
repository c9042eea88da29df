"""What the end of an epoch brings: segments, scores, the end of a part."""

import dataclasses
from collections.abc import Callable

import numpy as np
from etils import epath

from backtal_jax import evaluate, staging, watch
from backtal_jax.metrics import scores, segments
from backtal_jax.run import checkpoints, hosts, log, outputs, parameters

# (truth, results) -> {name: image [height, width, 3] uint8}.
Draw = Callable[[segments.Truth, outputs.Results], dict[str, np.ndarray]]


@dataclasses.dataclass
class Epochs:
  """Evaluates epochs when due, and writes the results of the best.

  The best is that of the largest value. Its results are written before its
  checkpoint: a run that dies between the two evaluates that epoch again when
  it resumes. So is what follows from a part at its last epoch. Epochs of
  later parts are better, and so is the one whose proposals a head judges.
  """

  workdir: epath.Path
  evaluator: evaluate.Evaluator
  stages: staging.Stages
  every: int  # epochs from one evaluation to the next
  watched: watch.Trained | None  # what is also looked at without dropout
  draw: Draw | None  # makes TensorBoard's images at the end
  best: float = parameters.UNKNOWN  # to be set where a run goes on

  def end(
    self,
    epoch: int,
    state: checkpoints.State,
    run_log: log.Log,
    part: staging.Part,
  ) -> float:
    """Do what is due after an epoch; return its value, if any."""
    last, head, final = epoch == part.last, None, False
    if epoch % self.every and not last:
      return parameters.UNKNOWN
    if last:
      final, head = self.stages.finish(part, state.params, run_log.say)
    results, step = self.evaluator(state.params, epoch, head), int(state.step)
    if self.watched:
      measured = watch.watch(self.watched, state.params)
      results.metrics['training'] = measured
      run_log.say(watch.told(measured))
      if last and (line := watch.warning(measured)):
        run_log.say(line)
    run_log.write(step, scores.scalars(results.metrics))
    table = f'epoch {epoch}\n{scores.table(results.metrics)}'
    run_log.say(table)
    if self.draw and final and hosts.is_main_process():
      run_log.show(step, table, self.draw(self.evaluator.truth, results))
    value = self.evaluator.value(results) + part.number + (head is not None)
    if value > self.best:
      self.best = value
      outputs.write(self.workdir, results)
    return value
