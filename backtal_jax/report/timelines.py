"""Videos drawn: what was found beside the ground truth, and the curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure as mpl_figure

from backtal_jax.metrics import average_precision, diagnosis, segments
from backtal_jax.report import figures, style
from backtal_jax.run import outputs

# The tIoU of everything that shows a single one.
THETA = 0.5
# Curves of more classes than these could not be told apart.
_MAX_CLASSES = 4


def images(
  truth: segments.Truth, results: outputs.Results
) -> dict[str, np.ndarray]:
  """Draw three videos of an evaluation.

  Returns:
    {'best', 'median', 'worst': pixels [height, width, 3]}.
  """
  drawn = select(truth, results.segments, results.curves)
  return {title.split()[0]: style.image(f) for title, f in drawn.items()}


def select(
  truth: segments.Truth,
  predictions: segments.Segments,
  curves: Mapping[str, outputs.Shown],
  *,
  count: int = 1,
) -> dict[str, mpl_figure.Figure]:
  """Draw the videos that went best, in the middle and worst.

  By the AP, at tIoU 0.5, of all their predictions together; `count` of each.
  The curves, {video: outputs.take}, may lack videos.

  Returns:
    {'best 1: VIDEO, AP 97.1 %': Figure}, in that order.
  """
  ap = average_precision.video_ap(truth, predictions, THETA)
  order = np.argsort(-ap, kind='stable')
  order = order[: np.isfinite(ap).sum()]
  count = min(count, len(order))
  middle = (len(order) - count) // 2
  chosen = {
    'best': order[:count],
    'median': order[middle : middle + count],
    'worst': order[::-1][:count],
  }
  kinds = diagnosis.error_kinds(truth, predictions, [THETA])[0]
  drawn = {}
  for word, videos in chosen.items():
    for i, video in enumerate(videos, 1):
      name = f'{word} {i}: {truth.videos[video]}, AP {100 * ap[video]:.1f} %'
      drawn[name] = draw_column(truth, predictions, curves, video, kinds, name)
  return drawn


def draw_column(
  truth: segments.Truth,
  predictions: segments.Segments,
  curves: Mapping[str, outputs.Shown],
  video: int,
  kinds: np.ndarray,
  title: str,
) -> mpl_figure.Figure:
  """Draw one of truth.videos, its predictions by kind, see error_kinds."""
  name = truth.videos[video]
  return draw(
    title,
    float(np.nan_to_num(truth.durations[video])) or None,
    _listed(truth, predictions, video, kinds),
    _listed(truth, truth.segments, video),
    curves.get(name, curves.get(name.removeprefix('v_'))),
  )


def _listed(truth, segments, video, kinds=None):
  """List the segments of one video as dictionaries."""
  return [
    {
      'label': truth.labels[segments.label[i]],
      'segment': [float(segments.start[i]), float(segments.end[i])],
      'score': float(segments.score[i]),
    }
    | ({} if kinds is None else {'kind': diagnosis.KINDS[kinds[i]]})
    for i in np.flatnonzero(segments.video == video)
  ]


def draw(
  title: str,
  duration: float | None,
  found: Sequence[figures.Entry],
  annotated: Sequence[figures.Entry],
  shown: outputs.Shown | None = None,
  strip: Sequence[np.ndarray] = (),
) -> mpl_figure.Figure:
  """Draw one video: segments, and curves of the classes that they are of.

  Predictions (found), ground truth (annotated) and the strip are those of
  figures.timeline. The curves are outputs.take's; without them, or without a
  duration in seconds, none are drawn.
  """
  curves: dict[str, Any] = {}
  if shown is not None and duration is not None:
    best = sorted(found, key=lambda s: -s['score'])
    names = dict.fromkeys(s['label'] for s in (*annotated, *best))
    # Nothing found is worth a look, too.
    names = [n for n in names if n in shown['labels']] or shown['labels']
    clicked = np.flatnonzero(shown['background'])
    curves = {
      'cas': {
        name: shown['cas'][shown['labels'].index(name)]
        for name in names[:_MAX_CLASSES]
      },
      'foreground': shown['foreground'],
      'magnitude': shown['magnitude'],
      'clicks': (clicked + 0.5) / len(shown['background']) * duration,
    }
  return figures.timeline(
    title,
    duration,
    segments=found,
    ground_truth=annotated,
    strip=strip,
    **curves,
  )
