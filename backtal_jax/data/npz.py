"""Reading npz files; matrices that are not compressed row by row."""

import functools
import io
import math
import os
import struct
import threading
import time
import tokenize
import zipfile
import zlib

import numpy as np
from etils import epath

from backtal_jax import errors

# What a damaged file makes NumPy and zipfile raise.
DAMAGED = (
  ValueError, EOFError, NotImplementedError, RuntimeError, struct.error,
  tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Up to Python 3.11 two threads that parse headers at once can fail
# (python/cpython#106905).
HEADERS = threading.Lock()
# Seconds before a failed read is tried again.
_WAITS = (0.1, 0.5, 2.0)


class Rows:
  """A matrix in an open file, of which only the rows asked for are read.

  Args:
    path: of the file, for errors.
    f: the file, where the matrix begins.
    shape: of the matrix.
    dtype: of the matrix.
  """

  def __init__(self, path, f, shape, dtype):
    self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
    self._path, self._file, self._start = path, f, f.tell()

  def __len__(self):
    return self.shape[0]

  def __getitem__(self, rows) -> np.ndarray:
    start, stop, _ = rows.indices(len(self))
    found = np.empty((max(stop - start, 0), *self.shape[1:]), self.dtype)
    width = math.prod(self.shape[1:]) * self.dtype.itemsize
    self._file.seek(self._start + start * width)
    if self._file.readinto(found) < found.nbytes:
      raise errors.InputError(f'{self._path}: not a whole .npz file')
    return found


def read(path, keys=None) -> dict[str, np.ndarray]:
  """Read the members of an npz.

  Args:
    path: of the file.
    keys: which members, all by default; absent ones are left out.

  Raises:
    errors.InputError: as `using`.
  """
  whole = lambda v: v[:] if isinstance(v, Rows) else v
  return using(path, lambda found: {k: whole(found[k]) for k in found}, keys)


def using(path, function, keys=None):
  """Return function({key: array or Rows}), called while the npz is open.

  A read that fails is tried again after a moment, three times: network file
  systems do that.

  Args:
    path: of the file.
    function: may slice Rows, but not keep them.
    keys: which members, all by default; absent ones are left out.

  Raises:
    errors.InputError: not a whole npz, pickled objects in it, or unreadable.
  """
  for wait in (*_WAITS, None):
    try:
      with (
        open(path, 'rb')
        if os.path.isfile(path)
        else io.BytesIO(epath.Path(path).read_bytes()) as f
      ):
        return function(_members(path, f, keys))
    except OSError as e:
      if wait is None:
        reason = 'no such file' if isinstance(e, FileNotFoundError) else e
        raise errors.InputError(
          f'{path}: {reason} (tried {len(_WAITS) + 1} times)'
        ) from e
      time.sleep(wait)


def _members(path, f, keys):
  arrays = {}
  try:
    with zipfile.ZipFile(f) as archive:
      for info in archive.infolist():
        key = info.filename.removesuffix('.npy')
        if keys is not None and key not in keys:
          continue
        if info.compress_type == zipfile.ZIP_STORED:
          arrays[key] = _stored(path, f, info)
        else:
          raw = io.BytesIO(archive.read(info))
          with HEADERS:
            arrays[key] = np.lib.format.read_array(raw)
  except DAMAGED as e:
    raise errors.InputError(f'{path}: not a whole .npz file: {e}') from e
  return arrays


def _stored(path, f, info):
  """Return a member that is not compressed: Rows of a matrix, else all."""
  f.seek(info.header_offset + 26)
  start = info.header_offset + 30 + sum(struct.unpack('<HH', f.read(4)))
  f.seek(start)
  raw = f.read(12)
  shape, fortran, dtype = _header(raw + f.read(_header_size(raw) - len(raw)))
  f.seek(start + _header_size(raw))
  if dtype.hasobject:
    raise ValueError(f'{info.filename} holds pickled objects')
  size = math.prod(shape) * dtype.itemsize
  if f.tell() + size > start + info.file_size:
    raise ValueError(f'{info.filename} is shorter than its header says')
  if len(shape) == 2 and not fortran:
    return Rows(path, f, shape, dtype)
  flat = np.frombuffer(f.read(size), dtype)
  return flat.reshape(shape, order='F' if fortran else 'C')


def _header_size(raw):
  """Return how many bytes precede the values, from the first 12 of them."""
  major, _ = np.lib.format.read_magic(io.BytesIO(raw))
  if major == 1:
    return 10 + struct.unpack_from('<H', raw, 8)[0]
  return 12 + struct.unpack_from('<I', raw, 8)[0]


@functools.lru_cache
def _header(raw):
  """Return shape, Fortran order and dtype; the same few in every file."""
  f = io.BytesIO(raw)
  with HEADERS:
    if np.lib.format.read_magic(f) == (1, 0):
      return np.lib.format.read_array_header_1_0(f)
    return np.lib.format.read_array_header_2_0(f)
