"""Work that is killed ten times and must end as if it never was.

In a process of its own: python -c 'import kills; kills.check(work, folder)'.
A fork starts at once, with everything imported.
"""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

KILLS = 10


def run(code, folder):
  """Run code that defines `work(output)` under `check`."""
  code += '\nimport kills\nkills.check(work, sys.argv[1])'
  subprocess.run(
    [sys.executable, '-c', code, str(folder)],
    env=os.environ | {'PYTHONPATH': os.path.dirname(__file__)},
    check=True,
  )


def contents(folder):
  """Return {path: bytes} of all files, but hidden or incomplete ones."""
  paths = (p.relative_to(folder) for p in pathlib.Path(folder).rglob('*'))
  return {
    str(p): (folder / p).read_bytes()
    for p in paths
    if (folder / p).is_file()
    and not any(x[0] == '.' or 'incomplete' in x for x in p.parts)
  }


def check(work, folder):
  """Kill `work(output)` at KILLS moments, then let it end; compare."""
  # Of one name, which the files may hold.
  whole, output = (pathlib.Path(folder, n, 'out') for n in ('whole', 'killed'))
  start = time.perf_counter()
  assert _fork(work, whole) == 0
  seconds, expected = time.perf_counter() - start, contents(whole)
  moments, killed, partly = random.Random(0), 0, 0
  while killed < KILLS or not partly:
    status = _fork(work, output, moments.uniform(0, seconds))
    assert status in (0, signal.SIGKILL)
    found = contents(output)
    # What has its final name is whole.
    assert found.items() <= expected.items()
    partly += output.exists() and found != expected
    if status:
      killed += 1
    else:
      assert found == expected
      shutil.rmtree(output)
  assert _fork(work, output) == 0
  assert contents(output) == expected
  left = [p for p in output.rglob('*') if p.name[0] == '.']
  assert not left and not list(output.rglob('*incomplete*'))


def _fork(work, output, until=None):
  """Return the status of `work(output)` in a fork, killed in time if told."""
  pid = os.fork()
  if not pid:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    work(str(output))
    os._exit(0)
  if until is not None:
    time.sleep(until)
    os.kill(pid, signal.SIGKILL)
  return os.waitpid(pid, 0)[1]
