"""Click agreement: segments held against clicks that were not trained on.

The value of a moment is the highest score of a found segment over it; below
all scores where there is none. Measured is the chance that a random moment of
the video has a higher value than a background click of the video, equal ones
counting half; and, with action clicks, that such a click has a higher value, by
segments of its class alone, than a background click of its video has by these.
No boundary is needed; docs/metrics.md says what it is worth.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypedDict

import numpy as np

from backtal_jax import errors
from backtal_jax.data import annotations
from backtal_jax.data import clicks as click_files
from backtal_jax.metrics import segments


class Agreement(TypedDict):
  """The measure, in fractions of 1; None where no click tells it."""

  value: float  # the mean of those of the next two that are known
  background: float | None  # a random moment against a background click
  action: float | None  # an action click against a background click
  low: float  # 95 % of the bootstrap's values lie from here
  high: float
  clicks: int  # of background that were not trained on
  pairs: int  # of an action click and one of these
  videos: int  # that have them


# {video: [sum, count] of background clicks, of pairs with an action click}.
ByVideo = dict[str, list[list[float]]]


class _Steps(NamedTuple):
  """A value along a video: `value` [N] from `edge` [N + 1] to the next."""

  edge: np.ndarray
  value: np.ndarray

  def at(self, time: float) -> float:
    """Return the value of a moment; on an edge the larger one."""
    here = (self.edge[:-1] <= time) & (time <= self.edge[1:])
    return float(self.value[here].max(initial=-np.inf))

  def rank(self, value: float) -> float:
    """Return the share of the time above a value, equal ones by half."""
    length = np.diff(self.edge)
    above = (self.value > value) + 0.5 * (self.value == value)
    return float((length * above).sum() / length.sum())


def _steps(
  duration: float, start: np.ndarray, end: np.ndarray, score: np.ndarray
) -> _Steps:
  """Return the highest score of segments along a video of some seconds."""
  bounds = np.clip(np.concatenate([[0.0, duration], start, end]), 0, duration)
  edge = np.unique(bounds)
  middle = (edge[:-1] + edge[1:]) / 2
  over = (start[:, None] <= middle) & (middle <= end[:, None])
  value = np.where(over, score[:, None], -np.inf).max(axis=0, initial=-np.inf)
  return _Steps(edge, value)


def by_video(
  truth: segments.Truth,
  predictions: segments.Segments,
  clicks: Iterable[annotations.Click],
) -> ByVideo:
  """Compare every video's clicks with its segments.

  Args:
    truth: Videos, their durations and the names of classes; no segments of it
      are looked at.
    predictions: Segments.
    clicks: Those that were not trained on; of other videos none.

  Returns:
    Of every video with such clicks how much was compared, and the sum.

  Raises:
    errors.InputError: A clicked video has no duration.
  """
  place = {name: i for i, name in enumerate(truth.videos)}
  number = {name: i for i, name in enumerate(truth.labels)}
  found = {}
  for name, own in sorted(click_files.by_video(clicks).items()):
    i = place[name]
    duration = truth.durations[i]
    if not duration > 0:
      raise errors.InputError(
        f'video {name!r} has no duration in the ground truth, expected one to '
        'hold its segments against clicks'
      )
    here = predictions.video == i
    columns = [column[here] for column in predictions]
    found[name] = _compare(duration, columns, own, number)
  return found


def _compare(duration, columns, clicks, number):
  """Return [[sum, count] of background clicks, of pairs]."""
  _, label, *rest = columns
  times = [c.time for c in clicks if c.is_background]
  whole = _steps(duration, *rest)
  background = [whole.rank(whole.at(time)) for time in times]
  pairs = []
  for click in clicks:
    if click.is_background or not times:
      continue
    own = label == number[click.label]
    steps = _steps(duration, *(column[own] for column in rest))
    value = steps.at(click.time)
    others = np.array([steps.at(time) for time in times])
    pairs += ((value > others) + 0.5 * (value == others)).tolist()
  return [[float(sum(part)), float(len(part))] for part in (background, pairs)]


def summarize(found: ByVideo) -> Agreement | None:
  """Return the measure over all videos; None where nothing was compared."""
  table, values = _table(found), sampled(found)
  if np.isnan(values[0]):
    return None
  low, high = np.nanquantile(values[1:], [0.025, 0.975]).tolist()
  total, count = table.sum(axis=0).T
  background, action = (
    float(x / n) if n else None for x, n in zip(total, count, strict=True)
  )
  return Agreement(
    value=float(values[0]), background=background, action=action,
    low=low, high=high, clicks=int(count[0]), pairs=int(count[1]),
    videos=int((table[:, 0, 1] > 0).sum()),
  )  # fmt: skip


def sampled(found: ByVideo) -> np.ndarray:
  """Return the value over all videos, then those of 1000 draws of them.

  The draws are the same for all that is of the same videos; NaN stands where a
  draw lacks what all have.
  """
  table = _table(found)
  weights = draws(len(table))
  total = np.einsum('rv,vps->rps', weights, table)
  known = table[..., 1].any(axis=0)
  with np.errstate(invalid='ignore'):
    parts = total[:, known, 0] / total[:, known, 1]
    return parts.sum(axis=1) / known.sum()


def draws(count: int, times: int = 1000) -> np.ndarray:
  """Draw videos with replacement: how often each counts, [1 + times, count].

  The first row is all of them, once.
  """
  rng, share = np.random.default_rng(0), np.full(count, 1 / count)
  drawn = rng.multinomial(count, share, size=times)
  return np.concatenate([np.ones((1, count), int), drawn])


def _table(found):
  """Return sums and counts [V, 2, 2] in the order of the videos' names."""
  rows = [found[name] for name in sorted(found)]
  return np.array(rows, float).reshape(-1, 2, 2)
