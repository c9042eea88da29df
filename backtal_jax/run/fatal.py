"""One line for what ends a process of several from C++.

When a process of a run dies, jax's coordination service may abort the others
from C++, where nothing can be caught, with a stack trace. So what is written to
file descriptor 2 passes through a small process, which runs this file: it
leaves out what that service says and, where it was fatal, tells it in one
line. Python's own sys.stderr goes around it.
"""

import os
import re
import signal
import subprocess
import sys

# As absl logs: E1231 23:59:59.123456   4711 some_file.cc:12] …
_RECORD = re.compile(r'[IWEF]\d{4} \d\d:\S+ +\d+ ([^\s:]+):\d+\] ')
_SERVICE = ('coordination_service', 'preemption_')
_FATAL = 'JAX distributed service detected fatal errors'


def explain(what: str) -> None:
  """Print `what` and the reason in one line if jax's service aborts us."""
  screen = os.dup(2)
  helper = subprocess.Popen(
    [sys.executable, '-I', '-S', __file__, what],
    stdin=subprocess.PIPE,
    stdout=screen,
  )
  assert helper.stdin is not None
  os.dup2(helper.stdin.fileno(), 2)
  helper.stdin.close()
  helper.returncode = 0  # it ends after us: nothing to wait for
  sys.stderr = open(  # noqa: SIM115, as long as the process
    screen, 'w', buffering=1, errors='backslashreplace'
  )


def _pass_on(what):
  # It ends with the run, whose signals may be sent to its whole group.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  dropped, fatal = False, []
  for raw in sys.stdin.buffer:
    line = raw.decode(errors='replace')
    record = _RECORD.match(line)
    if fatal or (record and _FATAL in line):
      fatal.append(line)  # and all that follows: stack traces
      continue
    if record:
      dropped = record[1].startswith(_SERVICE)
    if not dropped:
      sys.stdout.buffer.write(raw)
      sys.stdout.flush()
  if fatal:
    reason = ' '.join(''.join(fatal).partition('absl::Status: ')[2].split())
    print(f'error: {what}: {re.split(r"[.] |[*]{3}| RPC:", reason)[0]}')


if __name__ == '__main__':
  _pass_on(sys.argv[1])
