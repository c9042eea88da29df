"""Palette, style and output of figures.

Figures are drawn in the light palette. `svg` turns one into text whose colours
follow the page's theme, `image` into pixels.
"""

import html
import io
import re
import warnings
from typing import Any

import matplotlib
import numpy as np
from matplotlib import figure as mpl_figure
from matplotlib.backends import backend_agg

# Name: (on light paper, on dark). Safe for the colour-blind; the names are
# the CSS variables of the report.
PALETTE = {
  'paper': ('#fefefe', '#14171c'),
  'ink': ('#1f2328', '#e8eaed'),
  'muted': ('#57606a', '#a3acb8'),
  'grid': ('#d6dbe1', '#363c45'),
  'true positive': ('#007f5f', '#2fbf95'),
  'double detection': ('#2b8cc4', '#6cc0ee'),
  'wrong label': ('#0a4f8f', '#4f8fd9'),
  'localisation': ('#b87700', '#efb030'),
  'confusion': ('#b0568c', '#dd8fbb'),
  'background': ('#cc4c02', '#ff7d45'),
  'line-1': ('#0060a9', '#62aaf0'),
  'line-2': ('#b3400d', '#f58f5a'),
  'line-3': ('#00704c', '#3fc79a'),
  'line-4': ('#8c3c83', '#d68ad0'),
  'line-5': ('#7a5b01', '#d9b44a'),
  'line-6': ('#4d5966', '#b4bfcb'),
}
COLOR = {name: light for name, (light, _) in PALETTE.items()}
LINES = [COLOR[f'line-{i}'] for i in range(1, 7)]
_STYLE: dict[Any, Any] = {
  'font.family': 'sans-serif',
  'font.size': 9,
  'text.parse_math': False,  # a video may be called $a$
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': True,
  'axes.axisbelow': True,
  'axes.titlesize': 'medium',
  'axes.titlelocation': 'left',
  'axes.edgecolor': COLOR['muted'],
  'grid.color': COLOR['grid'],
  'grid.linewidth': 0.6,
  'legend.frameon': False,
  'legend.fontsize': 'small',
  'lines.linewidth': 1.4,
  'figure.facecolor': COLOR['paper'],
  'axes.facecolor': 'none',
} | {
  key: COLOR['ink']
  for key in ('text.color', 'axes.labelcolor', 'xtick.color', 'ytick.color')
}  # fmt: skip
_NO_METADATA = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
# Draws in our style whatever the user's matplotlib is set to.
styled = matplotlib.rc_context(_STYLE)


def svg(figure: mpl_figure.Figure, title: str) -> str:
  """Render a figure as an <svg> element that follows the page's theme.

  Colours become the CSS variables `--NAME` of PALETTE, text stays text; the
  title is what a screen reader says.
  """
  text = io.StringIO()
  style = _STYLE | {'svg.fonttype': 'none', 'svg.hashsalt': title}
  with matplotlib.rc_context(style), _quiet():
    figure.savefig(text, format='svg', facecolor='none', metadata=_NO_METADATA)
  body = text.getvalue().partition('<svg')[2]
  # Figures of one page must not share names; those in use are hashes.
  body = re.sub(r' id="[a-zA-Z0-9.]*_\d+"', '', body)
  for name, color in COLOR.items():
    body = body.replace(color, f'var(--{variable(name)})')
  width = round(figure.get_figwidth() * 96)
  return (
    f'<svg role="img" aria-label="{html.escape(title)}" '
    f'style="--width: {width}px"{body}'
  )


def variable(name: str) -> str:
  """Return the CSS variable of a name in PALETTE, without its dashes."""
  return name.replace(' ', '-')


def image(figure: mpl_figure.Figure, dpi: int = 100) -> np.ndarray:
  """Render a figure as pixels [height, width, 3] uint8."""
  figure.set_dpi(dpi)
  canvas = backend_agg.FigureCanvasAgg(figure)
  # Ticks are made as late as here.
  with matplotlib.rc_context(_STYLE), _quiet():
    canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _quiet():
  """Ignore that matplotlib's font lacks a glyph of some language."""
  return warnings.catch_warnings(action='ignore', category=UserWarning)


def new(
  width: float, height: float, rows: int = 1, columns: int = 1, **kwargs: Any
) -> tuple[mpl_figure.Figure, Any]:
  """Make a figure of inches with rows × columns axes."""
  figure = mpl_figure.Figure(figsize=(width, height), layout='constrained')
  return figure, figure.subplots(rows, columns, **kwargs)
