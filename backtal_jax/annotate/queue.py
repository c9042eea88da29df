"""Where a click is worth most, by what a trained model finds.

First the stretches where the curve of a found class is high and no click has
spoken for or against it: the model is sure of what nobody has confirmed. Then
the clicks that contradict the curve, to be checked again: a wrong click costs
more than a missing one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtal_jax import localization
from backtal_jax.data import annotations, arrays

if TYPE_CHECKING:  # JAX takes seconds
  from backtal_jax import predict
  from backtal_jax.data import sources

# Of classes, over the snippets of a video: [T] each.
_Curves = Mapping[str, np.ndarray]

UNCLICKED = 'high, no click'
CHECK = 'check again'
# Seconds around a click in which nothing new is proposed.
DISTANCE = 2.0


def proposals(
  model: 'predict.Model',
  video: 'sources.Example',
  clicks: Sequence[annotations.Click],
) -> list[tuple[float, str, float]]:
  """Return the moments of a video that are worth a click, best first.

  Args:
    model: A trained one.
    video: Its features, perhaps its labels.
    clicks: Of this video; a label that is no class of the model and not
      background speaks for its surroundings, too, but is never checked again.

  Returns:
    [(seconds, UNCLICKED or CHECK, value)]. UNCLICKED, one for each stretch
    of a high curve without a click, lies DISTANCE or more from every click;
    its value is the curve there. CHECK is at its click; its value is how far
    the curve is from what the click says.
  """
  return rank(*curves(model, video), video.duration, clicks)


def curves(
  model: 'predict.Model', video: 'sources.Example', labels: Sequence[str] = ()
) -> tuple[_Curves, _Curves]:
  """Return {class: [T] probabilities} of a video's classes, and of all.

  The video's classes are the `labels` that the model knows, else the video's
  own, else those that the model finds.
  """
  ((_, found, segments),) = model.predict_videos([video], batch_size=1)
  scores = localization.activation(found['cas'], 'probabilities')
  every = {label: scores[:, i] for i, label in enumerate(model.classes)}
  told = [c for c, x in zip(model.classes, video.label, strict=False) if x > 0]
  names = (
    [label for label in labels if label in every]
    or told
    or sorted({segment['label'] for segment in segments})
    or [model.classes[int(np.argmax(found['score'][:-1]))]]
  )
  return {label: every[label] for label in names}, every


def rank(
  found: _Curves,
  every: _Curves,
  duration: float,
  clicks: Sequence[annotations.Click],
) -> list[tuple[float, str, float]]:
  """Return what `proposals` does, of `curves` over a duration in seconds."""
  curve = np.max(list(found.values()), axis=0)
  step = duration / len(curve)
  times = (np.arange(len(curve)) + 0.5) * step
  far = np.ones(len(curve), bool)
  for click in clicks:
    far &= np.abs(times - click.time) >= DISTANCE
  fresh = []
  for start, end in arrays.runs(curve >= np.max(curve) / 2).tolist():
    if any(start * step <= click.time <= end * step for click in clicks):
      continue
    (free,) = np.nonzero(far[start:end])
    if len(free):
      best = start + free[np.argmax(curve[start:end][free])]
      fresh.append((float(times[best]), UNCLICKED, float(curve[best])))
  checks = []
  for click in clicks:
    at = min(int(click.time / step), len(curve) - 1)
    if click.is_background:
      value = float(curve[at])
    elif click.label in every:
      value = 1.0 - float(every[click.label][at])
    else:
      continue
    if value > 0.5:
      checks.append((click.time, CHECK, value))
  best_first = lambda proposal: (-proposal[2], proposal[0])
  return sorted(fresh, key=best_first) + sorted(checks, key=best_first)


def sureness(
  segments: Sequence[Mapping[str, Any]], labels: Collection[str]
) -> float:
  """Return how sure a model is of a video, for `order`.

  That is the best score of its segments, {'label', 'score'} each, of the one
  of its classes for which that is lowest (of all, if none are known), or 0.
  """
  best = dict.fromkeys(labels, 0.0)
  for segment in segments:
    label, score = segment['label'], float(segment['score'])
    if label in best or not labels:
      best[label] = max(best.get(label, 0.0), score)
  return min(best.values(), default=0.0)


def order(
  names: Iterable[str],
  clicked: Collection[str],
  sure: Mapping[str, float],
) -> list[str]:
  """Order videos by what a look is worth.

  Never clicked ones go first, of these what the model is least sure of:
  {video: `sureness`}.
  """
  key = lambda name: (name in clicked, sure.get(name, 0.0))
  return sorted(names, key=key)
