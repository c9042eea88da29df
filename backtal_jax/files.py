"""Files that appear under their final name only when they are whole."""

import contextlib
import json
import os
import secrets

from etils import epath

from backtal_jax import errors


@contextlib.contextmanager
def atomic(path, mode='wb'):
  """Open a temporary neighbour of `path`; rename it when the block succeeds.

  Args:
    path: the final name; its folder is made where it is missing.
    mode: 'wb' or 'w' (UTF-8).

  Yields:
    The open file. If the block raises, nothing is left behind.
  """
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(
    f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp'
  )
  try:
    with temporary.open(mode) as f:
      yield f
    temporary.replace(path)
  except BaseException:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    raise


def write_json(path, value, indent=None):
  """Write `value` as JSON, whole or not at all; NaN is refused."""
  text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
  with atomic(path, 'w') as f:
    f.write(text + '\n')


def read_json(path):
  """Read a JSON file.

  Raises:
    errors.InputError: the file is missing or is not JSON.
  """
  path = epath.Path(path)
  if not path.is_file():
    raise errors.InputError(f'{path}: no such file')
  try:
    return json.loads(path.read_bytes().decode('utf-8-sig'))
  except ValueError as e:
    raise errors.InputError(f'{path}: not JSON: {e}') from e


def find(path, root) -> epath.Path:
  """Look `path` up from the current folder, then inside `root`.

  Raises:
    errors.InputError: it is in neither.
  """
  for candidate in (epath.Path(path), epath.Path(root) / path):
    if candidate.is_file():
      return candidate
  raise errors.InputError(f'{path}: no such file, nor {root}/{path}')
