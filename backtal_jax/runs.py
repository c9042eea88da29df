"""What a run leaves in its workdir while it goes on."""

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading

import jax
import tqdm
from clu import metric_writers

from backtal_jax import canvas, errors, files, sharding

# Exit status of a run that was asked to end: run the same command again.
PREEMPTED = 75
# Steps between two looks at the losses; every look waits for the device.
_PERIOD = 20


@contextlib.contextmanager
def lock(workdir):
  """Keep other runs out of the workdir; a run that dies lets go of it.

  Raises:
    errors.InputError: another run is in it.
  """
  if not sharding.is_main_process():
    yield
    return
  workdir.mkdir(parents=True, exist_ok=True)
  if not os.path.isdir(workdir):  # a bucket: nothing to lock there
    yield
    return
  with open(workdir / '.lock', 'w') as f:
    try:
      fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise errors.InputError(
        f'{workdir}: another run is using it; choose another --workdir'
      ) from None
    yield


class Preemption:
  """Lets a run end whole when it is asked to (SIGTERM)."""

  def __enter__(self):
    self._flagged, self._before = False, None
    # With several processes jax's own service listens, and tells all hosts.
    if jax.process_count() == 1 and _in_main_thread():
      self._before = signal.signal(signal.SIGTERM, self._flag)
    return self

  def _flag(self, *_):
    self._flagged = True

  def __exit__(self, *_):
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def reached(self, step) -> bool:
    """Tell whether to stop after this step, the same on every host."""
    return sharding.stop_requested(step, self._flagged)


def _in_main_thread():
  return threading.current_thread() is threading.main_thread()


def check(workdir, config):
  """Refuse a workdir that holds a run of another config.

  Only `train.num_epochs` may have been raised since, and the number of
  devices is how a run is made, not what it is.

  Raises:
    errors.InputError: names every field that differs.
  """
  path, ours = workdir / 'config.json', json.loads(config.to_json())
  if not path.exists():
    return
  theirs = files.read_json(path)
  if theirs['train']['num_epochs'] <= ours['train']['num_epochs']:
    theirs['train']['num_epochs'] = ours['train']['num_epochs']
  theirs['mesh'] = ours['mesh']
  different = _differences('config', theirs, ours)
  if different:
    raise errors.InputError(
      f'{workdir}: holds a run of another config: {"; ".join(different)}; '
      'choose another --workdir'
    )


def claim(workdir, config):
  """Make the workdir this run's: check it and write its config.json."""
  check(workdir, config)
  if sharding.is_main_process():
    ours = json.loads(config.to_json())
    files.write_json(workdir / 'config.json', ours, indent=1)


def _differences(name, theirs, ours):
  """List the fields of two configs that differ."""
  if isinstance(theirs, dict) and isinstance(ours, dict):
    return [
      line
      for key in sorted(theirs.keys() | ours.keys())
      for line in _differences(f'{name}.{key}', theirs.get(key), ours.get(key))
    ]
  return [] if theirs == ours else [f'{name} is {theirs} there, {ours} here']


class Log:
  """Progress on screen, metrics.jsonl and TensorBoard, all up to a step.

  Args:
    workdir: of the run.
    plan: [steps, B, 2] of the whole run.
    start: steps done; what a run that died wrote beyond them is dropped.
    source: of the videos, which errors name.
    on_nan: 'stop' or 'skip'.
  """

  def __init__(self, workdir, plan, start, source, on_nan):
    self._path, self._pending = workdir / 'metrics.jsonl', []
    self._names, self._on_nan = source.names, on_nan
    self._main = sharding.is_main_process()
    if self._main:
      lines = self._path.read_text().splitlines() if self._path.exists() else []
      kept = [line for line in lines if _is_until(line, start)]
      with files.atomic(self._path, 'w') as f:
        f.writelines(f'{line}\n' for line in kept)
      self._writer = metric_writers.SummaryWriter(str(workdir))
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

  def write(self, step, scalars):
    """Write scalars of a step."""
    if self._main:
      self._writer.write_scalars(step, scalars)
      with self._path.open('a') as f:
        f.write(json.dumps({'step': step, **scalars}) + '\n')

  def show(self, step, text, figures):
    """Write a table and figures of a step to TensorBoard."""
    if self._main:
      # Indented lines are what Markdown keeps as they are.
      indented = text.replace('\n', '\n    ')
      self._writer.write_texts(step, {'results': f'    {indented}'})
      images = {k: canvas.image(figure)[None] for k, figure in figures.items()}
      self._writer.write_images(step, images)

  def add(self, step, metrics, batch, **others):
    """Remember a step's metrics, still on the device; look once a period."""
    self._pending.append((step, metrics, batch['video_index'], others))
    self._bar.update(int(batch['mask'].sum()) * jax.process_count())
    if len(self._pending) >= _PERIOD:
      self.flush()

  def flush(self):
    """Read back and write the remembered steps.

    Raises:
      errors.InputError: a loss was not finite and on_nan is 'stop'.
    """
    pending, self._pending = self._pending, []
    values = jax.device_get([metrics for _, metrics, _, _ in pending])
    for (step, _, videos, others), scalars in zip(pending, values, strict=True):
      finite = scalars.pop('finite')
      scalars = {k: float(v) for k, v in scalars.items()}
      if not finite:
        self._not_finite(step, scalars, videos)
      else:
        self.write(step, scalars | others)
        terms = {k[5:]: f'{v:.3g}' for k, v in scalars.items() if 'loss/' in k}
        self._bar.set_postfix(terms, refresh=False)

  def _not_finite(self, step, scalars, videos):
    shares = sharding.gather_objects([self._names[i] for i in videos if i >= 0])
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

  def say(self, text):
    """Print above the progress bar."""
    if self._main:
      self._bar.write(text)


def _is_until(line, step):
  """Tell whether a line of metrics.jsonl is whole and not after a step."""
  try:
    return json.loads(line)['step'] <= step
  except (ValueError, KeyError):
    return False
