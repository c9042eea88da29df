"""What is printed is one line where it must be, and never ends a program."""

import os
import subprocess
import sys

import pytest

from backtal_jax import errors

_CODE = """
import sys
from backtal_jax import errors
with errors.one_line():
  for stream in sys.stdout, sys.stderr:
    for _ in range(20000):  # more than a pipe holds
      print('10.00 – 20.00 s, 漢, \\udce9', file=stream)
  open('done', 'w').close()
  if sys.argv[1:]:
    raise errors.InputError('what\\n  –  was wrong')
"""


def _print(folder, *args, redirect='', **env):
  """Run the code above; return its process, which has to come to its end."""
  done = subprocess.run(
    f'"{sys.executable}" -c "$CODE" {" ".join(args)} {redirect}',
    shell=True,
    executable='/bin/bash',
    cwd=folder,
    env=os.environ | {'CODE': _CODE, 'PYTHONPATH': os.getcwd()} | env,
    capture_output=True,
  )
  assert (folder / 'done').exists(), done.stderr
  return done


@pytest.mark.parametrize(
  'encoding', ['ascii', 'ascii:strict', 'latin-1', 'cp1252:strict', 'utf-8']
)
def test_what_an_encoding_lacks_is_escaped(tmp_path, encoding):
  done = _print(tmp_path, PYTHONIOENCODING=encoding)
  assert done.returncode == 0
  name = encoding.partition(':')[0]
  expected = '10.00 – 20.00 s, 漢, \udce9\n'.encode(name, 'backslashreplace')
  assert done.stdout == expected * 20000


@pytest.mark.parametrize(
  'redirect', ['| head -n 1', '> /dev/full', '2> /dev/full', '>&- 2>&-']
)
def test_a_screen_that_is_gone_ends_nothing(tmp_path, redirect):
  done = _print(tmp_path, redirect=f'{redirect}; exit ${{PIPESTATUS[0]}}')
  assert done.returncode == 0


def test_an_error_is_one_line_in_any_encoding(tmp_path):
  done = _print(tmp_path, 'wrong', PYTHONIOENCODING='ascii:strict')
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1] == b'error: what \\u2013 was wrong'


def test_an_error_of_the_system_carries_its_path():
  for error, line in (
    (FileNotFoundError(2, 'No such file', 'a'), 'error: a: No such file'),
    (OSError(18, 'Cross-device', 'a', None, 'b'), 'error: b: Cross-device'),
    (OSError('odd'), 'error: odd'),
    (MemoryError(), 'error: not enough memory: none left'),
  ):
    with pytest.raises(SystemExit, match=f'^{line}$'), errors.one_line():
      raise error
