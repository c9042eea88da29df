"""What a run says while it goes on: progress, metrics.jsonl, TensorBoard."""

import json
import sys
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import tqdm
from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import pipeline
from backtal_jax.run import hosts

# Steps between two looks at the losses; every look waits for the device.
_PERIOD = 20


class Log:
  """Progress on screen, metrics.jsonl and TensorBoard, all up to a step.

  Args:
    workdir: Workdir of the run.
    plan: [steps, B, 2] of the whole run.
    start: Steps done; what a run that died wrote beyond them is dropped.
    names: Of the videos, for errors.
    on_nan: 'stop' or 'skip'.
  """

  def __init__(
    self,
    workdir: epath.Path,
    plan: np.ndarray,
    start: int,
    names: Sequence[str],
    on_nan: str,
  ) -> None:
    self._path, self._pending = workdir / 'metrics.jsonl', []
    self._names, self._on_nan = names, on_nan
    self._main = hosts.is_main_process()
    if self._main:
      # Late: it takes seconds.
      tf = errors.need('tensorflow', 'train', 'training')

      rows = files.read_json_lines(self._path)
      with files.atomic(self._path, 'w') as f:
        for row in rows:
          if row.get('step', start + 1) <= start:
            f.write(json.dumps(row) + '\n')
      self._tf = tf
      self._writer = tf.summary.create_file_writer(str(workdir))
    videos = (plan[..., 1] != -1).sum(axis=1)
    self._bar = tqdm.tqdm(
      total=int(videos.sum()),
      initial=int(videos[:start].sum()),
      unit='video',
      disable=not self._main,
      mininterval=0.2 if sys.stderr.isatty() else 10,
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()
    if self._main:
      self._writer.close()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Write scalars of a step."""
    if self._main:
      # One record of all: an operation for each costs more than the step.
      summary = self._tf.compat.v1.Summary()
      for name, value in scalars.items():
        summary.value.add(tag=name, simple_value=value)
      with self._writer.as_default(step):
        self._tf.summary.experimental.write_raw_pb(summary.SerializeToString())
      with files.naming(self._path), self._path.open('a') as f:
        f.write(json.dumps({'step': step, **scalars}) + '\n')

  def show(self, step: int, text: str, images: dict[str, np.ndarray]) -> None:
    """Write a table and images [height, width, 3] uint8 to TensorBoard."""
    if self._main:
      # Indented lines are what Markdown keeps as they are.
      indented = text.replace('\n', '\n    ')
      with self._writer.as_default(step):
        self._tf.summary.text('results', f'    {indented}')
        for name, image in images.items():
          self._tf.summary.image(name, image[None])

  def add(
    self,
    step: int,
    metrics: dict[str, jax.Array],
    batch: pipeline.Batch,
    **others: float,
  ) -> None:
    """Remember a step's metrics, still on the device; look once a period.

    They stand in the place of `others` of their names.
    """
    self._pending.append((step, metrics, batch['video_index'], others))
    self._bar.update(int(batch['mask'].sum()) * jax.process_count())
    if len(self._pending) >= _PERIOD:
      self.flush()

  def flush(self) -> None:
    """Read back and write the remembered steps.

    Raises:
      errors.InputError: A loss was not finite and on_nan is 'stop'.
    """
    pending, self._pending = self._pending, []
    values = jax.device_get([metrics for _, metrics, _, _ in pending])
    for (step, _, videos, others), scalars in zip(pending, values, strict=True):
      finite = scalars.pop('finite')
      scalars = {k: float(v) for k, v in scalars.items()}
      if not finite:
        self._not_finite(step, scalars, videos)
      else:
        self.write(step, others | scalars)
        terms = {k[5:]: f'{v:.3g}' for k, v in scalars.items() if 'loss/' in k}
        self._bar.set_postfix(terms, refresh=False)

  def _not_finite(self, step, scalars, videos):
    shares = hosts.gather_objects([self._names[i] for i in videos if i >= 0])
    videos = [name for share in shares for name in share]
    message = (
      f'step {step}: the loss or its gradient is not finite: '
      + ', '.join(f'{k} {v:.4g}' for k, v in scalars.items())
      + f'; videos of the batch: {", ".join(videos)}'
    )
    if self._on_nan == 'stop':
      raise errors.InputError(
        f'{message}. The last checkpoint is whole; config.train.on_nan=skip '
        'goes on without such steps'
      )
    self.say(f'{message}. The step is skipped')

  def say(self, text: str) -> None:
    """Print above the progress bar."""
    if self._main:
      self._bar.write(text)
