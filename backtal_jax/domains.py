"""The values that a field of a config may have, in words and by a test."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from backtal_jax import files

Holds = Callable[[Any], bool]


class Domain(NamedTuple):
  """The values that a field may have."""

  expected: str  # in errors
  comment: str  # in the comment of configs/thumos14.py
  holds: Holds


def is_number(
  value: Any, kinds: type | tuple[type, ...] = (int, float)
) -> bool:
  """Check for a number; True, infinities and NaN are none."""
  good = isinstance(value, kinds) and not isinstance(value, bool)
  return good and math.isfinite(value)


def number(bound: str, holds: Callable[[float], bool]) -> Domain:
  """Return the numbers within a bound, in words and by a test."""
  is_held = lambda v: is_number(v) and holds(v)
  return Domain(f'a number {bound}', bound, is_held)


def integer(low: int, high: int | float = math.inf) -> Domain:
  """Return the integers from one to another, both included."""
  bound = f'at least {low}' if high == math.inf else f'from {low} to {high}'
  holds = lambda v: is_number(v, int) and low <= v <= high
  return Domain(f'an integer, {bound}', bound, holds)


def one_of(*values: object) -> Domain:
  """Return these values."""
  names = [v if isinstance(v, str) else repr(v) for v in values]
  # True is no 1.
  holds = lambda v: any(type(v) is type(x) and v == x for x in values)
  return Domain(f'one of {", ".join(names)}', ' | '.join(names), holds)


def listed(expected: str, comment: str, holds: Holds) -> Domain:
  """Return the tuples and lists of which a test holds."""
  # A config that was read from JSON has lists.
  is_tuple = lambda v: isinstance(v, (tuple, list))
  return Domain(expected, comment, lambda v: is_tuple(v) and holds(v))


def _is_range(value):
  """Check (start, stop, step) of a few levels, or ()."""
  if not len(value):
    return True
  if len(value) != 3 or not all(map(is_number, value)):
    return False
  start, stop, step = value
  return 0 <= start < min(stop, 1) and 0 < stop - start <= 1000 * step


def is_rising(value: Sequence[Any]) -> bool:
  """Check tIoU thresholds, which the names of metrics must be able to hold."""
  if not len(value) or not all(map(is_number, value)):
    return False
  named = all(0 < v <= 1 and float(f'{v:g}') == v for v in value)
  return named and all(a < b for a, b in itertools.pairwise(value))


def is_record(value: Any) -> bool:
  """Check for what features.json holds, as text, or nothing."""
  try:
    return value == '' or isinstance(files.parse_json(value, ''), dict)
  except (TypeError, ValueError):
    return False


def is_text(value: object) -> bool:
  """Check for a text without spaces around it."""
  return isinstance(value, str) and value == value.strip()


TEXT = Domain(
  'a text, not empty and without spaces around it',
  '',
  lambda v: is_text(v) and v != '',
)
CLICKS = Domain(
  "files, a comma between them, or ''",
  "'' for none",
  lambda v: v == '' or (is_text(v) and all(map(str.strip, v.split(',')))),
)
POSITIVE = number('more than 0', lambda v: v > 0)
NOT_NEGATIVE = number('at least 0', lambda v: v >= 0)
SHARE = number('more than 0, at most 1', lambda v: 0 < v <= 1)
FRACTION = number('at least 0, at most 1', lambda v: 0 <= v <= 1)
BELOW_ONE = number('at least 0, less than 1', lambda v: 0 <= v < 1)
COSINE = number('from -1 to 1', lambda v: -1 <= v <= 1)
SWITCH = one_of(False, True)
LEVELS = listed(
  '(start, stop, step) with 0 <= start < 1, start < stop and at most 1000 '
  'steps, or ()',
  'start, stop, step',
  _is_range,
)
