"""Python in a process of its own, and a port for it."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def python(*arguments, cwd=ROOT, **env):
  """Run Python to its end; return the process, which has its output as text."""
  return subprocess.run(
    [sys.executable, *map(str, arguments)], cwd=cwd, env=os.environ | env,
    capture_output=True, text=True, timeout=3600,
  )  # fmt: skip


def free_port():
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return s.getsockname()[1]
