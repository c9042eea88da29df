"""One line for what ends a process of several from C++.

When a process of a run is lost, or they do not find each other, jax's
coordination service aborts the others in C++, where nothing can be caught,
with a stack trace. So what is written to file descriptor 2 passes through a
small process, this file: it leaves out what that service says and, where it
was fatal, tells it in one line. Python's own sys.stderr goes around it.
"""

import os
import re
import subprocess
import sys

# As absl logs: E1231 23:59:59.123456   4711 some_file.cc:12] …
_RECORD = re.compile(r'[IWEF]\d{4} \d\d:\S+ +\d+ ([^\s:]+):\d+\] ')
_FATAL = 'JAX distributed service detected fatal errors'


def explain(what):
  """Say from now on `what` where jax's service aborts this process."""
  if sys.stderr.fileno() == 2:
    sys.stderr = open(  # noqa: SIM115, as long as the process
      os.dup(2), 'w', buffering=1, errors='backslashreplace'
    )
    helper = subprocess.Popen(
      [sys.executable, '-I', '-S', __file__],
      stdin=subprocess.PIPE,
      stdout=sys.stderr,
      start_new_session=True,  # Ctrl-C is for the run, not for it
    )
    os.dup2(helper.stdin.fileno(), 2)
    helper.stdin.close()
    helper.returncode = 0  # it ends after us: nothing to wait for
  os.write(2, f'\0{what}\n'.encode())


def _main():
  what, dropped, fatal = '', False, []
  for raw in sys.stdin.buffer:
    line = raw.decode(errors='replace')
    if line.startswith('\0'):
      what = line[1:].strip()
      continue
    if fatal:
      fatal.append(line)
      continue
    if record := _RECORD.match(line):
      if record[0][0] == 'F' and _FATAL in line:
        fatal.append(line)
      dropped = record[1].startswith('coordination_service')
    if not (fatal or dropped):
      sys.stdout.buffer.write(raw)
      sys.stdout.flush()
  if fatal:
    reason = ' '.join(''.join(fatal).partition('absl::Status: ')[2].split())
    print(f'error: {what}: {re.split(r"[.] |[*]{3}| RPC:", reason)[0]}')


if __name__ == '__main__':
  _main()
