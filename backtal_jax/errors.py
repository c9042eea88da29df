"""How a user's mistake is told: one line, then a non-zero exit."""

import contextlib
import sys


class InputError(ValueError):
  """Something the user gave is wrong.

  The message is one line that names the file or the field, what was found
  there and what was expected. Bugs of ours must never be raised as this.
  """


def few(names, separator: str = ', ') -> str:
  """Join five names, and say how many more there are."""
  names = list(map(str, names))
  more = f' and {len(names) - 5} more' if names[5:] else ''
  return separator.join(names[:5]) + more


def tell(problems, lenient):
  """List problems on stderr; raise InputError with the first unless lenient."""
  for problem in problems:
    print(f'{"left out" if lenient else "wrong"}: {problem}', file=sys.stderr)
  if problems and not lenient:
    raise InputError(
      f'{problems[0]} (1 of {len(problems)} problems, listed above; --lenient '
      'leaves out what is wrong)'
    )


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
