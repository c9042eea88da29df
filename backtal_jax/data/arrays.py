"""What arrays that somebody else has written must be; runs in arrays."""

import contextlib
import math

import numpy as np
from numpy import typing as npt

from backtal_jax import errors


def matrix(
  array: npt.ArrayLike, where: object, allow_pickle: bool = False
) -> np.ndarray:
  """Return numbers in two dimensions; axes of one element beyond go.

  With `allow_pickle` objects may stand for numbers.

  Raises:
    errors.InputError: The array, which errors call `where`, is something else.
  """
  array = np.asarray(array)
  if allow_pickle and array.dtype.hasobject:
    try:
      array = np.array(array.tolist(), np.float32)
    except (TypeError, ValueError) as e:
      raise errors.InputError(f'{where}: no array of numbers: {e}') from e
  long = [n for n in array.shape if n != 1]
  if array.ndim > 2 and len(long) <= 2:
    short = [1] * (2 - len(long))
    array = array.reshape(short + long if array.shape[0] == 1 else long + short)
  if array.ndim != 2 or array.dtype.kind not in 'fiu':
    raise errors.InputError(
      f'{where}: features have shape {array.shape} of {array.dtype}, expected '
      'numbers in two dimensions'
    )
  return array


def vector(array: npt.ArrayLike) -> np.ndarray:
  """Return [N] of an array of which only one axis is longer than 1."""
  array = np.asarray(array)
  only = array.size == max(array.shape, default=1)
  return array.reshape(-1) if only else array


def finite(array: npt.ArrayLike, where: object) -> np.ndarray:
  """Return the array as float32; NaN, Inf and beyond are an InputError."""
  with np.errstate(over='ignore', invalid='ignore'):
    result = np.asarray(array, np.float32)
  if np.isfinite(result).all():
    return result
  count, what = np.count_nonzero(~np.isfinite(array)), 'NaN or Inf values'
  if not count:
    count = np.count_nonzero(~np.isfinite(result))
    what = f'values beyond float32, up to {np.abs(array).max():g}'
  raise errors.InputError(f'{where}: features hold {count} {what}')


def number(value: npt.ArrayLike | None) -> float:
  """Return the one number in an array, NaN where there is none."""
  value = np.asarray(value)
  with contextlib.suppress(ValueError):
    if value.size == 1 and value.dtype.kind in 'fiuSU':
      return float(value.item())
  return math.nan


def text(value: npt.ArrayLike, where: object) -> str:
  """Return the one text in an array, which may be bytes in UTF-8.

  Raises:
    errors.InputError: There is none, or several.
  """
  value = np.asarray(value)
  with contextlib.suppress(UnicodeDecodeError):
    if value.size == 1:
      found = value.item()
      return found.decode() if isinstance(found, bytes) else str(found)
  raise errors.InputError(
    f'{where} has shape {value.shape} of {value.dtype}, expected one text'
  )


def runs(marked: np.ndarray) -> np.ndarray:
  """Return the runs [N, 2] of True in [T], the end excluded."""
  edges = np.flatnonzero(np.diff(np.pad(marked.astype(np.int8), 1)))
  return edges.reshape(-1, 2)
