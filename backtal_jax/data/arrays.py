"""What arrays that somebody else has written must be."""

import contextlib
import math

import numpy as np

from backtal_jax import errors


def matrix(array, where, allow_pickle: bool = False) -> np.ndarray:
  """Return numbers in two dimensions.

  Args:
    array: Anything.
    where: What errors call it.
    allow_pickle: Whether objects may stand for numbers.

  Raises:
    errors.InputError: The array is something else.
  """
  array = np.asarray(array)
  if allow_pickle and array.dtype.hasobject:
    try:
      array = np.array(array.tolist(), np.float32)
    except (TypeError, ValueError) as e:
      raise errors.InputError(f'{where}: no array of numbers: {e}') from e
  if array.ndim != 2 or array.dtype.kind not in 'fiu':
    raise errors.InputError(
      f'{where}: features have shape {array.shape} of {array.dtype}, expected '
      'numbers in two dimensions'
    )
  return array


def finite(array, where) -> np.ndarray:
  """Return the array as float32; NaN and Inf are an InputError."""
  array = np.asarray(array, np.float32)
  if not np.isfinite(array).all():
    count = np.count_nonzero(~np.isfinite(array))
    raise errors.InputError(f'{where}: features hold {count} NaN or Inf values')
  return array


def number(value) -> float:
  """Return the one number in an array, NaN where there is none."""
  value = np.asarray(value)
  with contextlib.suppress(ValueError):
    if value.size == 1 and value.dtype.kind in 'fiuSU':
      return float(value.item())
  return math.nan


def text(value, where) -> str:
  """Return the one text in an array, which may be bytes.

  Args:
    value: Array.
    where: What errors call it.

  Raises:
    errors.InputError: There is none, or several, or not UTF-8.
  """
  value = np.asarray(value)
  with contextlib.suppress(UnicodeDecodeError):
    if value.size == 1:
      value = value.item()
      return value.decode() if isinstance(value, bytes) else str(value)
  raise errors.InputError(
    f'{where} has shape {value.shape} of {value.dtype}, expected one text'
  )
