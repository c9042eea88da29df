"""How a user's mistake is told: one line, then a non-zero exit."""

import contextlib
import sys


class InputError(ValueError):
  """Something the user gave is wrong.

  The message is one line that names the file or the field, what was found
  there and what was expected. Bugs of ours must never be raised as this.
  """


@contextlib.contextmanager
def one_line():
  """Turn an InputError or a failing file system into one line and exit 1."""
  try:
    yield
  except InputError as e:
    message = str(e)
  except OSError as e:
    where = f'{e.filename}: ' if e.filename else ''
    message = f'{where}{e.strerror or e}'
  else:
    return
  sys.exit(f'error: {" ".join(message.split())}')
