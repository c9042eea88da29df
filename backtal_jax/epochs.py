"""What the end of an epoch brings: segments, scores, the end of a part."""

from collections.abc import Callable

import numpy as np
from etils import epath

from backtal_jax import evaluate, staging, watch
from backtal_jax.metrics import scores, segments
from backtal_jax.run import checkpoints, hosts, log, outputs, parameters

# (truth, results) -> {name: image [height, width, 3] uint8}.
Draw = Callable[[segments.Truth, outputs.Results], dict[str, np.ndarray]]


class Epochs:
  """Evaluates epochs when due, and writes the results of the best.

  The best is that of the largest value. Its results are written before its
  checkpoint: a run that dies between the two evaluates that epoch again when
  it resumes. So is what follows from a part at its last epoch. Epochs of
  later parts are better, and so is the one whose proposals a head judges.

  Args:
    workdir: Workdir of the run.
    evaluator: Evaluates parameters.
    stages: What follows from each part.
    every: Epochs from one evaluation to the next.
    watched: What is also looked at without dropout, if anything.
    draw: Makes TensorBoard's images at the end.

  Of a run that goes on, `best` has to be set to the value of its best epoch.
  """

  def __init__(
    self,
    workdir: epath.Path,
    evaluator: evaluate.Evaluator,
    stages: staging.Stages,
    every: int,
    watched: watch.Trained | None = None,
    draw: Draw | None = None,
  ) -> None:
    self._workdir, self._evaluator, self.stages = workdir, evaluator, stages
    self._every, self.best = every, parameters.UNKNOWN
    self._watched, self._draw = watched, draw

  def end(
    self,
    epoch: int,
    state: checkpoints.State,
    run_log: log.Log,
    part: staging.Part,
  ) -> float:
    """Do what is due after an epoch; return its value, if any."""
    last, head, final = epoch == part.last, None, False
    if epoch % self._every and not last:
      return parameters.UNKNOWN
    if last:
      final, head = self.stages.finish(part, state.params, run_log.say)
    results, step = self._evaluator(state.params, epoch, head), int(state.step)
    if self._watched:
      measured = watch.watch(self._watched, state.params)
      results.metrics['training'] = measured
      run_log.say(watch.told(measured))
      if last and (line := watch.warning(measured)):
        run_log.say(line)
    run_log.write(step, scores.scalars(results.metrics))
    table = f'epoch {epoch}\n{scores.table(results.metrics)}'
    run_log.say(table)
    if self._draw and final and hosts.is_main_process():
      run_log.show(step, table, self._draw(self._evaluator.truth, results))
    value = self._evaluator.value(results) + part.number + (head is not None)
    if value > self.best:
      self.best = value
      outputs.write(self._workdir, results)
    return value
