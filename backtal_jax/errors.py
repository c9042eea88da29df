"""How a user's mistake is told: one line, then a non-zero exit."""

import contextlib
import importlib
import io
import logging
import os
import sys
import types
from collections.abc import Iterable, Iterator, Sequence


class InputError(ValueError):
  """Something the user gave is wrong.

  The message is one line that names the file or the field, what was found
  there and what was expected. Bugs of ours must never be raised as this.
  """


def few(names: Iterable[str], separator: str = ', ') -> str:
  """Join five names, and say how many more there are."""
  names = list(map(str, names))
  more = f' and {len(names) - 5} more' if names[5:] else ''
  return separator.join(names[:5]) + more


def tell(problems: Sequence[str], lenient: bool) -> None:
  """List problems on stderr; raise InputError with the first unless lenient."""
  for problem in problems:
    print(f'{"left out" if lenient else "wrong"}: {problem}', file=sys.stderr)
  if problems and not lenient:
    raise InputError(
      f'{problems[0]} (1 of {len(problems)} problems, listed above; --lenient '
      'leaves out what is wrong)'
    )


def need(module: str, extra: str, what: object) -> types.ModuleType:
  """Import a module of an extra, late.

  Raises:
    InputError: It is not installed; says `what` needs it, and the extra.
  """
  try:
    return importlib.import_module(module)
  except ImportError as e:
    raise InputError(
      f"{what} needs {module}: pip install 'backtal-jax[{extra}]'"
    ) from e


@contextlib.contextmanager
def one_line() -> Iterator[None]:
  """Turn an InputError or a failing file system into one line and exit 1.

  Every command runs in this, so here what it prints is made harmless, too.
  """
  sys.stdout, sys.stderr = map(_Screen.of, (sys.stdout, sys.stderr))
  try:
    yield
  except InputError as e:
    message = str(e)
  except OSError as e:
    name = e.filename2 or e.filename
    message = f'{f"{name}: " if name else ""}{e.strerror or e}'
  except UnicodeEncodeError as e:  # of names of files that are no text
    around = e.object[max(0, e.start - 40) : e.end + 40]
    message = f'{around!a}: not UTF-8, expected a name that is'
  except MemoryError as e:
    message = f'not enough memory: {str(e) or "none left"}'
  else:
    return
  # What else went wrong in Orbax's coroutines it would log after our line.
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)
  sys.exit(f'error: {" ".join(message.split())}')


class _Screen:
  """A stream to print to that never ends the program.

  What its encoding lacks is escaped; from where nobody reads it any more, or
  its disk is full, nothing is written.
  """

  @classmethod
  def of(cls, stream):
    """Wrap sys.stdout or sys.stderr, once."""
    if isinstance(stream, cls):
      return stream
    if stream is None:  # was closed when Python started
      return cls(_nowhere())
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')
    return cls(stream)

  def __init__(self, stream):
    self._stream = stream

  def __getattr__(self, name):
    return getattr(self._stream, name)

  def write(self, text):
    """Write, and return how much."""
    self._try(self._stream.write, text)
    return len(text)

  def flush(self):
    """Flush."""
    self._try(self._stream.flush)

  def _try(self, do, *args):
    try:
      do(*args)
    except (OSError, ValueError):  # of a file: ValueError if it is closed
      lost, self._stream = self._stream, _nowhere()
      with contextlib.suppress(OSError, ValueError):
        # Python flushes what is left when it ends.
        os.dup2(self._stream.fileno(), lost.fileno())


def _nowhere():
  return open(os.devnull, 'w', errors='backslashreplace')
