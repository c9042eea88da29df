"""Segments of training videos, not named yet: runs of foreground.

Shapes: T snippets, C classes, the background last among C + 1, S segments of
all videos together.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its parts load where they are used

from backtal_jax import IGNORED
from backtal_jax.data import arrays

# A run's snippets are foreground by more than this.
_FOREGROUND = 0.5
_EPSILON = 1e-6
# An instance ends where the log-odds of its class are half as high, or below
# this: what is as sure as that is no valley.
_SURE = 4.0
# A run of snippets, and the class that a click names it, else IGNORED.
_Piece = tuple[tuple[int, int], int]


class Observed(NamedTuple):
  """What is known of a training video; T snippets."""

  label: np.ndarray  # [C] float32, multi-hot
  click: np.ndarray  # [T] int: background C, action 0…C-1, else IGNORED
  cas: np.ndarray  # [T, C+1] logits of the suppressed branch, without dropout
  score: np.ndarray  # [C+1] softmax of the video scores
  foreground: np.ndarray  # [T] weight between 0 and 1
  duration: float  # seconds


class Segments(NamedTuple):
  """Runs of foreground of several videos, in columns."""

  video: np.ndarray  # [S] int, index of the video
  run: np.ndarray  # [S, 2] int, snippets, the end excluded
  clicked: np.ndarray  # [S] int, what clicks name it, else IGNORED
  score: np.ndarray  # [S, C+1] mean log-probability inside


def believed(video: Observed) -> np.ndarray:
  """Mark the background clicks [T] that the foreground weight agrees with.

  It is at most its mean over the video there, see losses.doubt.
  """
  agrees = video.foreground <= video.foreground.mean() + _EPSILON
  return (video.click == len(video.label)) & agrees


def probabilities(video: Observed) -> np.ndarray:
  """Return [T, C+1] softmax over a video's own classes and the background.

  Its own are those of its label and of its action clicks; others get 0.
  """
  own = np.append(video.label == 1, True)
  own[video.click[action_clicks(video)]] = True
  logits = np.where(own, video.cas.astype(float), -np.inf)
  return scipy.special.softmax(logits, axis=1)


def action_clicks(video: Observed) -> np.ndarray:
  """Return the snippets of a video where a click names a class."""
  named = (video.click >= 0) & (video.click < len(video.label))
  return np.flatnonzero(named)


def pointed(video: Observed) -> bool:
  """Check that every label of a video has an action click.

  Such clicks are taken for point supervision, one on every instance.
  """
  named = video.click[action_clicks(video)]
  return bool(np.isin(np.flatnonzero(video.label == 1), named).all())


def separate(video: Observed) -> Observed:
  """Click the background between the action clicks of a pointed video alone.

  Between two instances lies background (Lee and Byun, ICCV 2021): where it is
  likeliest, unless a believed background click tells.
  """
  if not pointed(video):
    return video
  click = video.click.copy()
  for first, last in _between(video):
    if first == last:
      click[first] = len(video.label)
  return video._replace(click=click)


def _between(video):
  """List the first and the last background snippet between action clicks.

  Of neighbouring snippets there is none between: (b, b - 1), before b.
  """
  barred, found = believed(video), []
  likely = probabilities(video)[:, -1]
  for a, b in itertools.pairwise(action_clicks(video)):
    inside = a + 1 + np.flatnonzero(barred[a + 1 : b])
    if b - a == 1:
      inside = np.array([b, b - 1])
    elif not len(inside):
      inside = np.array([a + 1 + likely[a + 1 : b].argmax()])
    found.append((inside[0], inside[-1]))
  return found


def find(videos: Sequence[Observed], every_instance: bool = False) -> Segments:
  """Find the segments of training videos; one without a label has none.

  They are the runs of snippets that are foreground by more than a half; a
  believed background click belongs to none, and so splits one. An action click
  names the segment that it lies in. Where none is, it seeds one: the snippets
  around it where its class is at least half as probable as there. A run with
  clicks of several classes is cut between them, where that explains it best.

  With `every_instance`, segments of a pointed video are its instances, one
  around each click, and every run without a click is named background.
  """
  found = []
  for i, video in enumerate(videos):
    if not video.label.any():
      continue
    share = probabilities(video)
    pieces = _instances if every_instance and pointed(video) else _pieces
    for (start, end), name in pieces(video, share):
      inside = np.log(share[start:end] + _EPSILON).mean(axis=0)
      found.append((i, (start, end), name, inside))
  columns = zip(*found, strict=True) if found else ((), (), (), ())
  video, run, clicked, score = columns
  width = len(videos[0].label) + 1 if videos else 1
  return Segments(
    np.array(video, int),
    np.array(run, int).reshape(-1, 2),
    np.array(clicked, int),
    np.array(score, float).reshape(-1, width),
  )


def _taken(video, share):
  """Mark the snippets of segments, and those of believed background clicks."""
  barred = believed(video)
  return (1 - share[:, -1] > _FOREGROUND) & ~barred, barred


def _pieces(video: Observed, share: np.ndarray) -> Iterator[_Piece]:
  """Yield the runs of foreground, each with the class that a click names."""
  taken, barred = _taken(video, share)
  spans = [*arrays.runs(taken)]
  for t in action_clicks(video):
    if not taken[t]:
      like = share[:, video.click[t]]
      span = _run_at((like >= like[t] / 2) & ~(barred | taken), t)
      taken[slice(*span)] = True
      spans.append(span)
  for span in sorted(map(tuple, spans)):
    yield from _cut(span, video, share)


def _instances(video: Observed, share: np.ndarray) -> Iterator[_Piece]:
  """Yield an instance around each action click, and the runs without one.

  It ends where the log-odds of its class to the background are half way from
  the click to their lowest before the next instance.
  """
  background, found = len(video.label), []
  taken, barred = _taken(video, share)
  between, clicks = _between(video), action_clicks(video)
  before = 1 + np.flatnonzero(barred[: clicks[0]])[-1:]
  after = clicks[-1] + np.flatnonzero(barred[clicks[-1] :])[:1]
  starts = [*before, 0][:1] + [last + 1 for _, last in between]
  ends = [first for first, _ in between] + [*after, len(share)][:1]
  odds = np.log(share + _EPSILON)
  odds = odds - odds[:, background:]
  for t, low, high in zip(clicks, starts, ends, strict=True):
    name = video.click[t]
    span = low + _around(odds[low:high, name], t - low)
    found.append((tuple(span), name))
    taken[slice(*span)] = True
  clicked = np.isin(np.arange(len(share)), clicks)
  found += [
    (tuple(run), background)
    for run in arrays.runs(taken)
    if not clicked[slice(*run)].any()
  ]
  yield from sorted(found)


def _around(odds, t):
  """Return the run around t where log-odds are half way down on each side."""
  top = odds[max(t - 1, 0) : t + 2].max()
  lows = odds[: t + 1].min(), odds[t:].min()
  half = (top + np.array(lows)) / 2
  high = odds >= np.repeat(half.clip(0, _SURE), (t, len(odds) - t))
  return _run_at(high, t)


def _run_at(marked, t):
  """Return the run of True around snippet t, which counts as marked."""
  marked[t] = True
  (run,) = (run for run in arrays.runs(marked) if run[0] <= t < run[1])
  return run


def _cut(span, video, share):
  """List the pieces of a run, each with the class that a click names."""
  start, end = span
  pieces, name, at = [], IGNORED, start
  for t in action_clicks(video):
    if not start <= t < end:
      continue
    if name not in (IGNORED, video.click[t]):
      # What comes before is best of the one class, what comes after of the
      # other.
      odds = np.log(share[at:t, [name, video.click[t]]] + _EPSILON)
      cut = at + 1 + int((odds[:, 0] - odds[:, 1]).cumsum().argmax())
      pieces.append(((start, cut), name))
      start = cut
    name, at = video.click[t], t
  return [*pieces, ((start, end), name)]
