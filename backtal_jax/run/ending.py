"""How a process is asked to end (SIGTERM) while it has nothing to save.

Importing JAX, waiting for the other processes and reading data take seconds,
on a network file system a minute. Until a training listens for itself, see
hosts.preemption, the process just ends, with the status that says: run the
same command again. Imports nothing, to be first.
"""

import os
import signal
import sys
import threading

# Exit status of a run that was asked to end: run the same command again.
PREEMPTED = 75


def listen() -> None:
  """End this process when it is asked to, while no other handler is set."""
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.signal(signal.SIGTERM, _asked)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def _asked(*_):
  """Mark that `listen` was called; the thread does what is asked."""


def _watch(reader):
  # Python runs a handler when C++ returns: where the other processes are
  # waited for that may be never.
  while number := os.read(reader, 1):
    listening = signal.getsignal(signal.SIGTERM) is _asked
    if number[0] == signal.SIGTERM and listening:
      line = 'asked to end with nothing to save; the same command goes on'
      print(line, file=sys.stderr, flush=True)
      os._exit(PREEMPTED)
