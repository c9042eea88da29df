"""Reading npz files: damage told in one line, failing reads tried again."""

import io
import struct
import threading
import time
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from typing import NamedTuple, TypeVar

import numpy as np
from etils import epath

from backtal_jax import errors

# What a damaged file makes NumPy and zipfile raise; a NUL in a header is a
# SystemError from Python 3.12 on.
DAMAGED = (
  ValueError, EOFError, NotImplementedError, RuntimeError, SystemError,
  struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Up to Python 3.11 two threads that parse headers at once can fail
# (python/cpython#106905).
HEADERS = threading.Lock()
# Seconds before a failed read is tried again.
_WAITS = (0.1, 0.5, 2.0)
_N = TypeVar('_N', bound=NamedTuple)


def read(
  path: epath.Path, keys: Collection[str] | None = None
) -> dict[str, np.ndarray]:
  """Read the members of an npz, all or those of the keys that are there.

  A read that fails is tried again after a moment, three times: network file
  systems do that.

  Raises:
    errors.InputError: The file is not a whole npz, holds pickled objects, or
      cannot be read.
  """
  waits = list(_WAITS)
  while True:
    try:
      return _read(path, keys)
    except DAMAGED as e:
      raise errors.InputError(f'{path}: not a whole .npz file: {e}') from e
    except OSError as e:
      if not waits:
        reason = 'no such file' if isinstance(e, FileNotFoundError) else e
        raise errors.InputError(
          f'{path}: {reason} (tried {len(_WAITS) + 1} times)'
        ) from e
      time.sleep(waits.pop(0))


def read_as(path: epath.Path, kind: type[_N], what: str) -> _N:
  """Read a NamedTuple of arrays, which was written by its fields' names.

  Raises:
    errors.InputError: See `read`, or there is no `what` in the file.
  """
  found = read(path, kind._fields)
  if missing := [name for name in kind._fields if name not in found]:
    raise errors.InputError(
      f'{path}: no {what} in it: lacks {", ".join(missing)}'
    )
  return kind._make(found[name] for name in kind._fields)


def _read(path, keys):
  arrays = {}
  with path.open('rb') as f, zipfile.ZipFile(f) as archive:
    for member in archive.namelist():
      key = member.removesuffix('.npy')
      if keys is None or key in keys:
        raw = io.BytesIO(archive.read(member))
        with HEADERS:
          arrays[key] = np.lib.format.read_array(raw)
  return arrays
