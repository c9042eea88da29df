"""Figures: what is drawn where, in which colour, whatever the names are."""

import pathlib
import re
import runpy
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colors as mpl_colors
from PIL import Image
from report_test import make_workdir

from backtal_jax.metrics import diagnosis
from backtal_jax.report import figures, style

SVG = '{http://www.w3.org/2000/svg}'
ODD = '<b>"$x_{1}$ 跳水 & \\frac'


def texts(figure):
  """Return every text of a figure's SVG."""
  root = ElementTree.fromstring(style.svg(figure, 'title'))
  return [''.join(e.itertext()) for e in root.iter(f'{SVG}text')]


def bars_of(ax):
  """Return (start, end, lane, colour) of every bar of an axes."""
  return [
    (
      p.get_x(),
      p.get_x() + p.get_width(),
      round(p.get_y() + p.get_height() / 2),
      mpl_colors.to_hex(p.get_facecolor()),
    )
    for p in ax.patches
  ]


def test_timeline_draws_everything_where_it_is():
  cas = {'dive': np.linspace(-2, 2, 20)}
  segments = [
    {'label': 'dive', 'segment': [10, 30], 'score': 0.2, 'kind': 'background'},
    {'label': 'dive', 'segment': [50, 70], 'score': 0.9,
     'kind': 'true positive'},
  ]  # fmt: skip
  figure = figures.timeline(
    'name', 80.0, cas, np.full(20, 0.5), np.arange(20.0), segments,
    [{'label': 'dive', 'segment': [52, 71]}], [5.0, 40.0],
  )  # fmt: skip
  truth, activation, weights, found = figure.axes
  assert [b[:3] for b in bars_of(truth)] == [(52, 71, 0)]
  assert list(truth.lines[0].get_xdata()) == [5.0, 40.0]
  # Twenty snippets of 4 s: the first is centred at 2 s.
  (line,) = activation.lines
  assert line.get_xdata()[0] == 2 and line.get_xdata()[-1] == 78
  np.testing.assert_array_equal(line.get_ydata(), cas['dive'])
  np.testing.assert_array_equal(weights.lines[0].get_ydata(), 0.5)
  # Best first, coloured by kind.
  assert bars_of(found) == [
    (50, 70, 0, style.COLOR['true positive']),
    (10, 30, 1, style.COLOR['background']),
  ]
  assert found.get_xlim() == (0, 80)
  shown = texts(figure)
  for text in ('dive 0.90', 'dive 0.20', 'true positive', 'background'):
    assert text in shown


def test_every_part_of_a_timeline_is_optional():
  parts = {
    'cas': {'a': np.zeros(4)},
    'foreground': np.zeros(4),
    'magnitude': np.zeros(4),
    'segments': [{'label': 'a', 'segment': [0, 1], 'score': -1.0}],
    'ground_truth': [{'label': 'a', 'segment': [0, 1]}],
    'clicks': [0.5],
  }
  for duration in (None, 9.0):
    assert style.image(figures.timeline('x', duration)).ndim == 3
    for key, value in parts.items():
      figure = figures.timeline('x', duration, **{key: value})
      assert len(figure.axes) == 1
      assert style.image(figure).std() > 0
  figure = figures.timeline(
    'x', 9.0, segments=[dict(parts['segments'][0], score=i) for i in range(20)],
  )  # fmt: skip
  assert len(bars_of(figure.axes[0])) == 15


def test_names_are_text_whatever_is_in_them():
  figure = figures.timeline(
    ODD, 10.0, {ODD: np.zeros(3)},
    segments=[{'label': ODD, 'segment': [0, 1], 'score': 0.5}],
    ground_truth=[{'label': ODD, 'segment': [0, 1]}],
  )  # fmt: skip
  shown = texts(figure)  # as parsed: the markup is escaped
  assert ODD in shown
  svg = style.svg(figure, ODD)
  assert '<b>' not in svg
  assert ElementTree.fromstring(svg).get('aria-label') == ODD
  assert style.image(figure).shape[2] == 3


def test_svg_has_theme_colours_only_and_no_clashing_ids():
  figure = figures.shares({'a': dict.fromkeys(diagnosis.KINDS, 1)})
  one, two = style.svg(figure, 'one'), style.svg(figure, 'two')
  assert not re.search(r'#[0-9a-f]{6}\b', one.replace('href="#', ''))
  for kind in diagnosis.KINDS:
    assert f'var(--{kind.replace(" ", "-")})' in one
  ids = [set(re.findall(r' id="([^"]*)"', text)) for text in (one, two)]
  assert ids[0] and not ids[0] & ids[1]
  for text, own in zip((one, two), ids, strict=True):
    used = re.findall(r'(?:url\(|href=")#([^)"]*)', text)
    assert used and set(used) <= own


def test_palette_contrasts_with_its_paper():
  def light(color):
    rgb = np.array(mpl_colors.to_rgb(color))
    rgb = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return rgb @ [0.2126, 0.7152, 0.0722]

  for theme in (0, 1):
    paper = light(style.PALETTE['paper'][theme])
    for name, colors in style.PALETTE.items():
      ink = light(colors[theme])
      ratio = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
      if name in ('ink', 'muted'):  # text
        assert ratio >= 4.5, name
      elif name not in ('paper', 'grid'):  # lines and bars
        assert ratio >= 3, name
  shades = [c for colors in style.PALETTE.values() for c in colors[:1]]
  assert len({*shades}) == len(shades)  # else one could not be told in an SVG


def test_shares_are_stacked_to_a_hundred():
  row = dict(zip(diagnosis.KINDS, [1, 0, 2, 3, 0, 4], strict=True))
  nothing = dict.fromkeys(diagnosis.KINDS, 0)
  figure = figures.shares({'x': row, 'none': nothing})
  bars = [b for b in bars_of(figure.axes[0]) if b[2] == 0]
  ends = [(b[0], b[1]) for b in bars if b[1] > b[0]]
  flat = [0, 10, 10, 30, 30, 60, 60, 100]
  assert [x for pair in ends for x in pair] == pytest.approx(flat)
  assert all(b[0] == b[1] == 0 for b in bars_of(figure.axes[0]) if b[2] == 1)


def test_long_curves_are_thinned_to_their_mean():
  rows = [{'step': i, 'loss/a': i % 2, 'other': 1} for i in range(10_000)]
  figure = figures.curves([*rows, {'step': 3}], ['loss/a'], log=True)
  (line,) = figure.axes[0].lines
  assert len(line.get_xdata()) == 200
  np.testing.assert_allclose(line.get_ydata(), 0.5)
  assert figure.axes[0].get_yscale() == 'log'
  assert not [text for text in texts(figure) if '$' in text]
  figure = figures.curves([{'step': 1, 'a': 0.0}], ['a', 'absent'], log=True)
  assert figure.axes[0].get_yscale() == 'linear'  # of zero there is no log


@pytest.mark.parametrize(
  'draw, shown',
  [
    (lambda: figures.bars({ODD: 12.34, 'n': None}, xlabel='AP'),
     [ODD, '12.3', '–', 'AP']),
    (lambda: figures.precision_recall([0.5], [[1, 0.5]]), ['0.5', 'recall']),
    (lambda: figures.recall([1, 10], [0.1, 0.4]), ['average recall (%)']),
    (lambda: figures.differences(
      {'up': (3, 1, 4), 'none': (0, -1, 1)}, xlabel='d'), ['up', 'none', 'd']),
    (lambda: figures.groups(
      {'length (s)': [{'from': 0, 'to': 2.5, 'count': 3, 'x': 0.25},
                      {'from': 2.5, 'to': 9, 'count': 3, 'x': None}]},
      'x', ylabel='%', baseline=0.5), ['≤2.5', '≤9', '25', 'length (s)']),
    (lambda: figures.groups({}, 'x', '%', 0.5), ['%']),
    (lambda: figures.shares({}), ['% of the predictions']),
  ],
)  # fmt: skip
def test_other_charts_say_what_they_show(draw, shown):
  figure = draw()
  found = texts(figure)
  for text in shown:
    assert text in found, found
  assert style.image(figure).std() > 0


def test_users_settings_of_matplotlib_do_not_matter():
  import matplotlib

  draw = lambda: style.image(figures.recall([1, 2], [0.1, 0.2]))
  expected = draw()
  with matplotlib.rc_context({'font.size': 20, 'text.color': 'red'}):
    before = dict(matplotlib.rcParams)
    np.testing.assert_array_equal(draw(), expected)
    assert dict(matplotlib.rcParams) == before


def test_pictures_are_made_from_workdirs(tmp_path):
  path = pathlib.Path(__file__).parents[1] / 'docs' / 'make_pictures.py'
  main = runpy.run_path(str(path))['main']
  a, b = (str(make_workdir(tmp_path / x, num_videos=3)) for x in 'ab')
  main(['--demo', a, b, '--hapt', b, a, '--output', str(tmp_path / 'o')])
  made = sorted(p.name for p in (tmp_path / 'o').iterdir())
  assert made == ['errors.png'] + [
    f'timeline_{name}_{word}.png'
    for name in ('demo', 'hapt')
    for word in ('clicks', 'labels')
  ]
  for name in made:
    with Image.open(tmp_path / 'o' / name) as image:
      assert min(image.size) > 200
