"""Videos drawn: what was found beside the ground truth, and the curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure as mpl_figure

from backtal_jax.metrics import (
  agreement,
  average_precision,
  diagnosis,
  segments,
)
from backtal_jax.report import figures, style
from backtal_jax.run import outputs

# The tIoU of everything that shows a single one.
THETA = 0.5
# Curves of more classes than these could not be told apart.
_MAX_CLASSES = 4
_ORDINALS = 'first', 'second', 'third', 'fourth', 'fifth', 'sixth'


def images(
  truth: segments.Truth, results: outputs.Results
) -> dict[str, np.ndarray]:
  """Draw three videos of an evaluation.

  Returns:
    {'best', 'median', 'worst': pixels [height, width, 3]}; of training videos
    without annotation {'first', 'second', 'third'}.
  """
  columns = truth, results.segments, results.curves
  if len(truth.segments.video):
    drawn = select(*columns)
  else:
    drawn = select_clicked(*columns, results.agreement)
  word = lambda title: title.split()[0].removesuffix(':')
  return {word(title): style.image(f) for title, f in drawn.items()}


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


def select_clicked(
  truth: segments.Truth,
  predictions: segments.Segments,
  curves: Mapping[str, outputs.Shown],
  agreed: agreement.ByVideo,
  *,
  count: int = 3,
) -> dict[str, mpl_figure.Figure]:
  """Draw training videos that nobody annotated, `count` at most.

  They lie evenly between the first and the last by agreement with background
  clicks that were kept aside; else by name, those with clicks if there are.

  Returns:
    {'first: VIDEO, 5 segments, agreement 71.3 %': Figure}, in that order.
  """
  shown = {name: _curves(curves, name) for name in truth.videos}
  shown = {name: row for name, row in shown.items() if row}
  clicked = [
    name
    for name, row in shown.items()
    if row['background'].any() or (row['action'] >= 0).any()
  ]
  order = clicked or list(shown)
  known = {name: agreed[name][0] for name in shown if name in agreed}
  ranked = {name: total / n for name, (total, n) in known.items() if n}
  if ranked:
    order = sorted(ranked, key=lambda name: -ranked[name])
  some = np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)
  drawn, place = {}, {name: i for i, name in enumerate(truth.videos)}
  for word, i in zip(_ORDINALS, some.tolist(), strict=False):
    name = order[i]
    video = place[name]
    title = f'{word}: {name}, {(predictions.video == video).sum()} segments'
    if name in ranked:
      title += f', agreement {100 * ranked[name]:.1f} %'
    drawn[title] = draw_column(truth, predictions, curves, video, None, title)
  return drawn


def _curves(curves, name):
  return curves.get(name, curves.get(name.removeprefix('v_')))


def draw_column(
  truth: segments.Truth,
  predictions: segments.Segments,
  curves: Mapping[str, outputs.Shown],
  video: int,
  kinds: np.ndarray | None,
  title: str,
) -> mpl_figure.Figure:
  """Draw one of truth.videos, its predictions by kind, see error_kinds.

  Without kinds they are in the colours of their classes.
  """
  name = truth.videos[video]
  return draw(
    title,
    float(np.nan_to_num(truth.durations[video])) or None,
    _listed(truth, predictions, video, kinds),
    _listed(truth, truth.segments, video),
    _curves(curves, name),
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
    middle = (np.arange(len(shown['background'])) + 0.5) * duration
    middle /= len(shown['background'])
    curves = {
      'cas': {
        name: shown['cas'][shown['labels'].index(name)]
        for name in names[:_MAX_CLASSES]
      },
      'foreground': shown['foreground'],
      'magnitude': shown['magnitude'],
      'clicks': middle[clicked],
      'action_clicks': [
        {'label': shown['labels'][shown['action'][t]], 'time': middle[t]}
        for t in np.flatnonzero(shown['action'] >= 0)
      ],
    }
  return figures.timeline(
    title,
    duration,
    segments=found,
    ground_truth=annotated,
    strip=strip,
    **curves,
  )
