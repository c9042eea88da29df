"""Every plot, for the report, the notebook, TensorBoard and the README.

Each function takes plain values and returns a matplotlib Figure, which
`style` turns into pixels or into SVG.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure as mpl_figure
from matplotlib import ticker

from backtal_jax.metrics import diagnosis
from backtal_jax.report import style

_COLOR, _LINES = style.COLOR, style.LINES
# Segments of one timeline, the best ones.
_SHOWN = 15
# A segment as a dictionary: 'label', 'segment' [start, end] in seconds, of a
# prediction 'score' and, which colours it, 'kind', one of diagnosis.KINDS.
Entry = Mapping[str, Any]
# Values of the snippets of a video, or times in seconds.
Values = Sequence[float] | np.ndarray


@style.styled
def timeline(
  name: str,
  duration: float | None,
  cas: Mapping[str, Values] | None = None,
  foreground: Values | None = None,
  magnitude: Values | None = None,
  segments: Sequence[Entry] = (),
  ground_truth: Sequence[Entry] = (),
  clicks: Values = (),
  *,
  action_clicks: Sequence[Entry] = (),
  strip: Sequence[np.ndarray] = (),
) -> mpl_figure.Figure:
  """Draw one video along time; every part may be left out.

  Args:
    name: Name of the video, the title.
    duration: Seconds; None is the end of the last segment.
    cas: {class: [T]}, what was localised.
    foreground: [T] weights in 0…1.
    magnitude: [T] of the features, drawn as a share of its largest.
    segments: Predictions, of which the best are shown.
    ground_truth: What is annotated.
    clicks: Seconds of background clicks.
    action_clicks: 'label' and 'time', seconds.
    strip: Pictures of equal parts of the video, above all else.
  """
  cas, best = cas or {}, sorted(segments, key=lambda s: -s['score'])[:_SHOWN]
  ends = [s['segment'][1] for s in (*best, *ground_truth)]
  duration = duration or max([*ends, *clicks, 1.0])
  labels = dict.fromkeys(s['label'] for s in (*ground_truth, *action_clicks))
  color = {
    label: _LINES[i % len(_LINES)]
    for i, label in enumerate(dict.fromkeys([*labels, *cas]))
  }
  lanes = [*labels, *(['clicks'] if len(clicks) else [])]
  has_weights = foreground is not None or magnitude is not None
  axes = _stack(
    [
      (0.6 * bool(len(strip)), _strip, (strip, duration)),
      (0.22 * len(lanes), _truth, (ground_truth, clicks, action_clicks, lanes)),
      (1.2 * bool(cas), _cas, (cas, duration, color, ground_truth)),
      (0.8 * has_weights, _weights, (foreground, magnitude, duration)),
      (0.19 * len(best), _predictions, (best, len(segments), color)),
    ]
  )
  axes[0].set_title(_short(name, 80), fontweight='bold')
  axes[-1].set_xlim(0, duration)
  axes[-1].set_xlabel('seconds')
  return axes[0].figure


def _stack(parts):
  """Draw (height in inches, function, its arguments) below each other."""
  parts = [part for part in parts if part[0]]
  parts = parts or [(0.5, lambda ax: ax.set_yticks([]), ())]
  heights = [height for height, _, _ in parts]
  _, axes = style.new(
    9, sum(heights) + 0.25 * len(parts) + 0.55, len(parts), sharex=True,
    squeeze=False, height_ratios=heights,
  )  # fmt: skip
  for ax, (_, draw, arguments) in zip(axes[:, 0], parts, strict=True):
    draw(ax, *arguments)
  return axes[:, 0]


def _strip(ax, strip, duration):
  width = duration / len(strip)
  for i, picture in enumerate(strip):
    ax.imshow(picture, aspect='auto', extent=(i * width, (i + 1) * width, 0, 1))
  ax.set_yticks([])
  ax.grid(False)


def _bars(ax, entries, row, colors):
  for y, entry, color in zip(row, entries, colors, strict=True):
    start, end = entry['segment']
    ax.barh(y, end - start, 0.7, start, color=color)


def _lanes(ax, names):
  ax.set_yticks(range(len(names)), [_short(name) for name in names])
  ax.set_ylim(len(names) - 0.4, -0.6)
  ax.grid(False, axis='y')


def _truth(ax, ground_truth, clicks, action_clicks, lanes):
  rows = [lanes.index(s['label']) for s in ground_truth]
  _bars(ax, ground_truth, rows, [_COLOR['muted']] * len(rows))
  if len(clicks):
    y = [len(lanes) - 1] * len(clicks)
    ax.plot(clicks, y, 'v', color=_COLOR['background'], clip_on=False)
  for click in action_clicks:
    y = lanes.index(click['label'])
    ax.plot(click['time'], y, 'v', color=_COLOR['background'], clip_on=False)
  _lanes(ax, lanes)
  kinds = 'background ' * bool(len(clicks)), 'action ' * bool(action_clicks)
  told = ' and '.join(filter(None, kinds))
  ax.text(
    1, 1.02, 'ground truth' + (f', {told}clicks' if told else ''),
    transform=ax.transAxes, ha='right', color=_COLOR['muted'],
  )  # fmt: skip


def _centres(values, duration):
  return (np.arange(len(values)) + 0.5) / len(values) * duration


def _cas(ax, cas, duration, color, ground_truth):
  for entry in ground_truth:
    ax.axvspan(*entry['segment'], color=_COLOR['grid'], alpha=0.6, lw=0)
  for label, values in cas.items():
    x = _centres(values, duration)
    ax.plot(x, values, color=color[label], label=_short(label))
  ax.set_ylabel('CAS')
  _legend(ax)


def _weights(ax, foreground, magnitude, duration):
  if magnitude is not None:
    share = np.asarray(magnitude, float)
    share = share / (share.max() or 1)
    ax.fill_between(
      _centres(share, duration), share, color=_COLOR['grid'], label='magnitude'
    )
  if foreground is not None:
    x = _centres(foreground, duration)
    ax.plot(x, foreground, color=_COLOR['line-3'], label='foreground weight')
  ax.set_ylim(0, 1.05)
  _legend(ax)


def _legend(ax):  # above the axes, where it hides nothing
  ax.legend(loc='lower right', bbox_to_anchor=(1, 0.94), ncols=6)


def _predictions(ax, best, total, color):
  kinds = [s.get('kind') for s in best]
  colors = [
    _COLOR[kind] if kind else color.get(s['label'], _LINES[5])
    for kind, s in zip(kinds, best, strict=True)
  ]
  _bars(ax, best, range(len(best)), colors)
  _lanes(ax, [f'{_short(s["label"], 20)} {s["score"]:.2f}' for s in best])
  for y, kind in enumerate(kinds):
    ax.text(
      1.005, y, kind or '', transform=ax.get_yaxis_transform(), va='center',
      color=_COLOR['muted'], fontsize='small',
    )  # fmt: skip
  ax.text(
    1, 1.01, f'best {len(best)} of {total} predictions',
    transform=ax.transAxes, ha='right', color=_COLOR['muted'],
  )  # fmt: skip


@style.styled
def curves(
  rows: Sequence[Mapping[str, float]],
  keys: Iterable[str],
  *,
  ylabel: str = '',
  log: bool = False,
) -> mpl_figure.Figure:
  """Draw scalars over steps, at most some 200 points of each.

  Of the lines of metrics.jsonl, [{'step', key: value}], these keys, the first
  one bold; logarithmic, if asked for, where all is positive.
  """
  figure, ax = style.new(4.5, 3)
  lowest = math.inf
  for i, key in enumerate(keys):
    points = np.array([(r['step'], r[key]) for r in rows if key in r], float)
    parts = np.array_split(points, min(200, len(points)) or 1)
    points = np.array([p.mean(0) for p in parts if len(p)]).reshape(-1, 2)
    ax.plot(*points.T, marker='.' if len(points) < 50 else '', lw=1.2 + (not i),
            color=_LINES[i % 6], ls='--' if i >= 6 else '-',
            label=key.removeprefix('loss/'))  # fmt: skip
    lowest = min(lowest, *points[:, 1], math.inf)
  if log and 0 < lowest < math.inf:
    ax.set_yscale('log')
    # The usual one writes mathematical text, which our style does not read.
    ax.yaxis.set_major_formatter('{x:g}')
    ax.yaxis.set_minor_formatter('')
  ax.set(xlabel='step', ylabel=ylabel)
  figure.legend(loc='outside upper center', ncols=4)
  return figure


@style.styled
def precision_recall(
  tiou: Sequence[float], precision: Sequence[Values]
) -> mpl_figure.Figure:
  """Draw precision [len(tiou), R] over R equal steps of recall from 0 to 1."""
  figure, ax = style.new(4.5, 3)
  for i, (threshold, values) in enumerate(zip(tiou, precision, strict=True)):
    ax.plot(np.linspace(0, 1, len(values)), values, color=_LINES[i % 6],
            ls='--' if i >= 6 else '-', label=f'{threshold:g}')  # fmt: skip
  ax.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
  ax.legend(title='tIoU', ncols=2, loc='upper right')
  return figure


@style.styled
def shares(rows: Mapping[str, Mapping[str, float]]) -> mpl_figure.Figure:
  """Draw {name: {kind: count}} as stacked bars, in percent of a row's total."""
  figure, ax = style.new(4.5, 0.24 * len(rows) + 1.1)
  left = np.zeros(len(rows))
  total = np.array([max(sum(r.values()), 1) for r in rows.values()])
  for kind in diagnosis.KINDS:
    width = 100 * np.array([row[kind] for row in rows.values()]) / total
    ax.barh(range(len(rows)), width, 0.78, left, label=kind,
            color=_COLOR[kind])  # fmt: skip
    left += width
  _lanes(ax, rows)
  ax.set(xlabel='% of the predictions', xlim=(0, 100))
  figure.legend(loc='outside upper center', ncols=3)
  return figure


@style.styled
def bars(
  values: Mapping[str, float | None], *, xlabel: str, colors: Iterable[str] = ()
) -> mpl_figure.Figure:
  """Draw {name: value} as bars from the top, each with its number.

  None is drawn as absent; `colors` names one of PALETTE for each value.
  """
  figure, ax = style.new(4.5, 0.21 * len(values) + 0.7)
  width = [0 if v is None else v for v in values.values()]
  color = [_COLOR[c] for c in colors] or _LINES[0]
  drawn = ax.barh(range(len(values)), width, 0.74, color=color)
  texts = ['–' if v is None else f'{v:.1f}' for v in values.values()]
  ax.bar_label(drawn, texts, padding=3, fontsize='small')
  _lanes(ax, values)
  ax.margins(x=0.12)
  ax.set_xlabel(xlabel)
  return figure


@style.styled
def groups(
  characteristics: Mapping[str, Sequence[Mapping[str, Any]]],
  key: str,
  ylabel: str,
  baseline: float,
) -> mpl_figure.Figure:
  """Draw one number by groups of the ground truth: a share of 1, or None.

  The groups are {name: [{'from', 'to', 'count', key: number}]}; the baseline is
  the same number of all the ground truth.
  """
  figure, axes = style.new(
    4.5, 2.4, 1, max(len(characteristics), 1), sharey=True, squeeze=False
  )
  for ax, (name, rows) in zip(axes[0], characteristics.items(), strict=False):
    heights = [100 * (row[key] or 0) for row in rows]
    drawn = ax.bar(range(len(rows)), heights, 0.8, color=_LINES[0])
    ax.bar_label(drawn, [f'{h:.0f}' for h in heights], fontsize='x-small')
    ticks = [f'≤{row["to"]:.3g}' for row in rows]
    ax.set_xticks(range(len(rows)), ticks, rotation=60, fontsize='small')
    ax.set_title(name, fontsize='small')
    ax.grid(False, axis='x')
    ax.axhline(100 * baseline, color=_COLOR['muted'], ls='--', lw=1)
  axes[0, 0].set_ylabel(ylabel)
  axes[0, 0].yaxis.set_major_locator(ticker.MaxNLocator(5))
  return figure


@style.styled
def recall(
  proposals: Sequence[int], average_recall: Sequence[float]
) -> mpl_figure.Figure:
  """Draw average recall over the number of predictions a video."""
  figure, ax = style.new(4.5, 3)
  ax.plot(proposals, 100 * np.asarray(average_recall), marker='.', c=_LINES[0])
  ax.set(xlabel='predictions a video (AN)', ylabel='average recall (%)')
  ax.set_ylim(0)
  return figure


@style.styled
def differences(
  rows: Mapping[str, Sequence[float]], *, xlabel: str
) -> mpl_figure.Figure:
  """Draw {name: (difference, low, high)}: what got better and what worse."""
  figure, ax = style.new(4.5, 0.21 * len(rows) + 0.7)
  for y, (middle, low, high) in enumerate(rows.values()):
    sure = low > 0 or high < 0
    color = _COLOR['line-1' if sure else 'line-6']
    ax.plot([low, high], [y, y], color=color, lw=1.6)
    ax.plot(middle, y, 'o', color=color, ms=4)
  ax.axvline(0, color=_COLOR['muted'], lw=1)
  _lanes(ax, rows)
  ax.set_xlabel(xlabel)
  return figure


def _short(text, length=26):
  return text if len(text) <= length else text[: length - 1] + '…'
