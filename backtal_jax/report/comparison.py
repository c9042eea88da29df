"""The report of two runs side by side."""

import functools

import numpy as np
from etils import epath

from backtal_jax import errors
from backtal_jax.metrics import agreement, bootstrap, scores
from backtal_jax.report import figures, pages, timelines
from backtal_jax.run import outputs


def compare(
  before: epath.Path,
  after: epath.Path,
  output: epath.Path | None = None,
  ground_truth: epath.PathLike = '',
) -> epath.Path:
  """Write a page of two runs side by side, and return its path.

  That is `output`, by default AFTER/compare.html.

  Raises:
    errors.InputError: Their ground truth differs, or see outputs.read.
  """
  a, b = (outputs.read(path, ground_truth) for path in (before, after))
  names, title = (f'A: {a.name}', f'B: {b.name}'), f'{a.name} and {b.name}'
  text = f'A is {before}, B is {after}'
  if scores.named(a.metrics) or scores.named(b.metrics):
    same = zip(a.truth.segments, b.truth.segments, strict=True)
    if a.truth[:2] != b.truth[:2] or not all(np.array_equal(*x) for x in same):
      raise errors.InputError(
        f'{after}: its ground truth is not that of {before}'
      )
    sections = _compare_found(a, b, names, text)
  else:
    told = pages.Section('', f'{text}. N{scores.NO_MAP[1:]}.')
    sections = [told, *_compare_agreement(a, b, names)]
  return pages.render(output or after / 'compare.html', title, title, sections)


def _compare_found(a, b, names, text):
  """Hold what was found on the same evaluation split side by side."""
  result = bootstrap.compare(
    a.truth, a.predictions, b.predictions, a.metrics['tiou'],
    theta=timelines.THETA,
  )  # fmt: skip
  kinds = result.kinds
  classes = sorted(result.classes.items(), key=lambda x: -x[1]['difference'])
  shares = {
    names[0]: {kind: row['before'] for kind, row in kinds.items()},
    names[1]: {kind: row['after'] for kind, row in kinds.items()},
  }
  text += (
    f', on {pages.what(a)}. Intervals hold 95 % of 1000 draws of the '
    f'{len(a.truth.videos)} videos with replacement.'
  )
  table = functools.partial(_differences, names)
  charts = [
    pages.Chart(
      'Shares', f'Of {pages.BEST} at {pages.AT}.', figures.shares(shares)
    ),
    _difference_chart('Change', kinds, 'share, B − A, points'),
  ]
  best = _difference_chart(
    'What got better and worse', pages.ends(dict(classes)), 'AP, B − A, points'
  )
  maps = table('Mean average precision, %', 'metric', result.metrics)
  per_class = table(f'AP at {pages.AT}, %', 'class', dict(classes))
  return [
    pages.Section('', text, table=maps),
    *_compare_agreement(a, b, names),
    pages.Section(
      'Kinds of errors', '', charts, table('Shares, %', 'kind', kinds)
    ),
    pages.Section('Classes', '', [best], per_class),
  ]


def _compare_agreement(a, b, names):
  """Show both runs' agreement with clicks, where those are the same."""
  if not a.agreement and not b.agreement:
    return []
  counts = lambda run: {
    name: [count for _, count in parts] for name, parts in run.agreement.items()
  }
  if counts(a) != counts(b):
    text = 'Not compared: the two runs kept other clicks aside.'
    return [pages.Section('Click agreement', text)]
  values = (agreement.sampled(run.agreement) for run in (a, b))
  rows = {'click agreement': bootstrap.interval(*values)}
  text = (
    'By the clicks that neither was trained on. Intervals hold 95 % of 1000 '
    f'draws of the {len(a.agreement)} videos that have some.'
  )
  table = _differences(names, 'Click agreement, %', 'measure', rows)
  return [pages.Section('Click agreement', text, table=table)]


def _difference_chart(title, rows, xlabel):
  points = {
    name: [100 * row[key] for key in ('difference', 'low', 'high')]
    for name, row in rows.items()
  }
  drawn = figures.differences(points, xlabel=xlabel)
  return pages.Chart(title, 'With 95 % intervals; grey ones hold zero.', drawn)


def _differences(names, caption, what, rows):
  cells = [
    [name, 100 * row['before'], 100 * row['after']]
    + [pages.signed(100 * row[key]) for key in ('difference', 'low', 'high')]
    for name, row in rows.items()
  ]
  return pages.Table(caption, [what, *names, 'B − A', '2.5 %', '97.5 %'], cells)
