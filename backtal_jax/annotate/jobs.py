"""Commands that the page runs: one at a time, each in a process of its own.

They outlive the server: what locks the project is a file that the process has
open, too. A server that starts while a command of an earlier one goes on shows
how far that is, and waits. What a command says is in its log.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import tqdm
from etils import epath

from backtal_jax import command_line, errors, files
from backtal_jax.annotate import project as projects
from backtal_jax.annotate import store as click_store
from backtal_jax.metrics import agreement

# Characters of a log that are looked at for progress.
_TAIL = 4000
_POINTS = 100  # of the curve of losses


class Runner:
  """Runs the commands of a project in turn, in a thread.

  Trainings begin with the clicks that are `opened`; `count` is the number of
  videos, for the progress of their features.
  """

  def __init__(
    self, project: projects.Project, opened: click_store.Store, count: int
  ) -> None:
    self._project, self._opened, self._count = project, opened, count
    self._mutex = threading.RLock()
    self._steps: list[projects.Step] = []
    self._process: subprocess.Popen[bytes] | None = None
    self._thread: threading.Thread | None = None
    self._cancelled, self._problem, self._since = False, '', time.time()
    self._lock_path = project.path / '.running'
    self._lock = open(self._lock_path, 'a+b', buffering=0)  # noqa: SIM115, closed in `close`
    self._held = self._try_lock()

  def close(self) -> None:
    """End the making of features; say that a training goes on by itself."""
    with self._mutex:
      self._steps[1:] = []
      process, kind = self._process, self._steps[0].kind if self._steps else ''
      if process and kind == 'features':
        process.terminate()
      elif process:
        print(f'{kind} goes on, process {process.pid}', file=sys.stderr)
    self._lock.close()

  def extract(self) -> None:
    """Make the features that are not there yet, in the background."""
    if self._held:
      self._add(self._missing())

  def train(self) -> None:
    """Train with the clicks there are, then find segments in all videos.

    Raises:
      errors.InputError: A training is under way, of this server or another,
      or there is nothing to train with.
      OSError: The clicks could not be copied; nothing was begun.
    """
    with self._mutex:
      self._held = self._held or self._try_lock()
      if not self._held:
        raise errors.InputError(
          f'{self._told()[1]} of an earlier server is still under way; wait '
          'for its end, or cancel it'
        )
      if any(s.kind != 'features' for s in self._steps):
        raise errors.InputError('a training is under way already')
      steps = self._project.steps(self._project.begin(self._opened))
      self._add([*(() if self._steps else self._missing()), *steps])

  def _missing(self):
    """Return the command that makes features, if some are not there."""
    step = self._project.extraction()
    if not step:
      return []
    folder = self._project.feature_folder
    there = {p.stem for p in files.listed(folder, '.npy', '.failed')}
    whole = step.result.exists() and there.issuperset(self._opened.names)
    return [] if whole else [step]

  def _add(self, steps):
    with self._mutex:
      self._steps += steps
      self._cancelled, self._problem = False, ''
      if self._steps and not self._thread:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

  def cancel(self) -> None:
    """End what is running; a training leaves a checkpoint and can go on."""
    with self._mutex:
      self._steps[1:] = []
      self._cancelled = True
      number = self._process.pid if self._process else 0
      if not self._held:  # of an earlier server
        number, _ = self._told()
      if number:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
          os.killpg(number, signal.SIGTERM)

  def status(self) -> dict[str, Any]:
    """Return how far it is.

    That is doing (a step's kind or ''), share (0…1 or None), left (time, as
    text), losses {name: value}, curve (of the total), problem (in one line),
    round, segments (of which round there are any; 0 of none), failed (videos
    without features), resumable and agreement, where metrics.json tells it.
    """
    with self._mutex:
      self._held = self._held or self._try_lock()
      doing = self._steps[0].kind if self._steps else ''
      if not self._held:
        _, doing = self._told()
    rounds = self._project.rounds()
    found = self._project.segments()
    last = rounds[-1] if rounds else None
    share, left = None, ''
    if doing == 'features':
      share, left = self._extracted()
    elif doing and last:
      share, left = _progress(last / f'{doing}.log')
    losses, curve = (
      _losses(last / 'run' / 'metrics.jsonl') if last else ({}, [])
    )
    return {
      'doing': doing,
      'share': share,
      'left': left,
      'losses': losses,
      'curve': curve,
      'problem': self._problem,
      'round': int(last.name) if last else 0,
      'segments': int(found.parent.name) if found else 0,
      'failed': len(files.listed(self._project.feature_folder, '.failed')),
      'resumable': bool(
        not doing and last and not (last / 'segments.json').exists()
      ),
      'agreement': _agreement(found.parent / 'run') if found else None,
    }

  def _run(self):
    while True:
      with self._mutex:
        if not self._steps:
          self._thread = None
          return
        step = self._steps[0]
      problem = ''
      try:
        # Of a round that goes on, what was made stays.
        if step.kind in ('features', 'train') or not step.result.exists():
          problem = self._execute(step)
      except (OSError, errors.InputError) as e:
        problem = str(e)
      with self._mutex:
        self._steps.pop(0)
        if problem:
          self._steps.clear()
          self._problem = (
            'cancelled; Train goes on' if self._cancelled else problem
          )

  def _execute(self, step):
    """Run a command to its end; return what is wrong, '' if nothing is."""
    with open(self._project.path / 'commands.log', 'a') as f:
      arguments = step.arguments()
      f.write(command_line.command(*arguments) + '\n')
      f.flush()
      os.fsync(f.fileno())
    self._since = time.time()
    with open(step.log, 'wb') as log, self._mutex:
      self._process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        start_new_session=True, pass_fds=(self._lock.fileno(),),
      )  # fmt: skip
      self._lock.truncate(0)
      self._lock.write(f'{self._process.pid} {step.kind}'.encode())
    status = self._process.wait()
    with self._mutex:
      self._process = None
      self._lock.truncate(0)
    return _explain(step, status) if status else ''

  def _try_lock(self):
    try:
      files.lock(self._lock, self._lock_path, 'taken')
    except errors.InputError:
      return False
    return True

  def _told(self):
    """Return the process that holds the lock, 0 if none is, and its kind."""
    self._lock.seek(0)
    words = self._lock.read().decode().split()
    return (int(words[0]), words[1]) if len(words) == 2 else (0, 'a command')

  def _extracted(self):
    """Return the share of the videos that have features, and the time left."""
    folder = self._project.feature_folder
    paths = files.listed(folder, '.npy', '.failed')
    share = min(1.0, len(paths) / max(1, self._count))
    new = sum(files.modified(p) >= self._since for p in paths)
    gone, rest = time.time() - self._since, self._count - len(paths)
    left = tqdm.tqdm.format_interval(gone / new * rest) if new else ''
    return share, left


def _progress(log: epath.Path) -> tuple[float | None, str]:
  """Return the share and the time left that a bar of progress tells."""
  if not log.exists():
    return None, ''
  found = re.findall(
    r'(\d+)%\|[^\r\n]*?(?:<([\d:]+))?[,\]]',
    log.read_bytes()[-_TAIL:].decode(errors='replace'),
  )
  return (int(found[-1][0]) / 100, found[-1][1]) if found else (None, '')


def _losses(path: epath.Path) -> tuple[dict[str, float], list[float]]:
  """Return the last losses of a run, and the curve of their total."""
  rows = [row for row in files.read_json_lines(path) if 'loss/total' in row]
  if not rows:
    return {}, []
  last = {k[5:]: v for k, v in rows[-1].items() if k.startswith('loss/')}
  step = max(1, len(rows) // _POINTS)
  return last, [row['loss/total'] for row in rows[::step]]


def _agreement(run: epath.Path) -> agreement.Agreement | None:
  path = run / 'metrics.json'
  found = files.read_json(path) if path.exists() else {}
  return found.get('click_agreement') if isinstance(found, dict) else None


def _explain(step, status):
  """Return in one line why a command has failed."""
  text = step.log.read_bytes().decode(errors='replace')
  lines = text.replace('\r', '\n').splitlines()
  told = [x.removeprefix('error: ') for x in lines if x.startswith('error: ')]
  if told:
    return told[-1]
  how = f'signal {-status}' if status < 0 else f'status {status}'
  return f'{step.kind} ended with {how}: see {step.log}'
