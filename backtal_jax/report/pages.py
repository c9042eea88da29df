"""The report of a run: one HTML file that needs nothing else."""

import json
from html import escape

import numpy as np
from etils import epath

from backtal_jax import errors
from backtal_jax.metrics import average_precision, bootstrap, diagnosis, scores
from backtal_jax.report import figures, html, timelines
from backtal_jax.run import outputs

# A figure of classes shows no more than this; the table shows all.
_MAX_BARS = 40


def write(workdir, ground_truth='') -> epath.Path:
  """Write WORKDIR/report.html and return its path; see outputs.read."""
  run = outputs.read(workdir, ground_truth)
  result = diagnosis.diagnose(
    run.truth,
    run.predictions,
    run.metrics['tiou'],
    theta=timelines.THETA,
  )
  body = _head(run) + _learning(run) + _errors(run, result)
  body += _classes(run, result) + _timelines(run)
  config = escape(json.dumps(run.config, indent=1, ensure_ascii=False))
  body += (
    f'<details><summary>config</summary><pre tabindex="0">{config}</pre>'
    '</details>'
  )
  path = epath.Path(workdir) / 'report.html'
  return html.write(path, f'{run.name}: {_what(run)}', body)


def _what(run):
  return f'{run.config["data"]["name"]} {run.config["data"]["eval_split"]}'


def _head(run):
  """Say what was run, and the mAP beside the published one."""
  published = run.config.get('eval', {}).get('published') or ()
  head, rows = ['metric', 'this run'], scores.beside(run.metrics, published)
  if published:
    head += ['published', 'difference']
    rows = [(*row, d if d is None else html.signed(d)) for *row, d in rows]
  else:
    rows = [row[:2] for row in rows]
  truth = run.truth
  epoch = run.metrics.get('epoch', -1)
  text = (
    f'{_what(run)}: {len(truth.videos)} videos, {len(truth.labels)} classes, '
    f'{len(truth.segments.label)} segments, {len(run.predictions.label)} '
    f'predictions' + (f', epoch {epoch}' if epoch >= 0 else '') + '.'
  )
  return f'<h1>{escape(run.name)}</h1><p>{escape(text)}</p>' + html.table(
    head, rows, 'Mean average precision, %'
  )


def _learning(run):
  """Show losses, mAP along training, and precision over recall."""
  keys = dict.fromkeys(key for row in run.log for key in row)
  losses = sorted(
    (k for k in keys if k.startswith('loss/')), key=lambda k: k != 'loss/total'
  )
  maps = [k for k in ('average_mAP', *keys) if k in keys and 'mAP' in k]
  charts = []
  if maps:
    percent = [
      {k: v if k == 'step' else 100 * v for k, v in row.items()}
      for row in run.log
      if maps[0] in row
    ]
    drawn = figures.curves(percent, dict.fromkeys(maps), ylabel='%')
    charts.append(('mAP', 'On the evaluation split.', drawn))
  if losses:
    drawn = figures.curves(run.log, losses, log=True)
    charts.append(('Losses', 'Every term, and their weighted sum.', drawn))
  tiou = run.metrics['tiou']
  values = average_precision.precision_recall(run.truth, run.predictions, tiou)
  drawn = figures.precision_recall(tiou, values)
  charts.append(
    ('Precision and recall', 'The mean of the classes’ envelopes.', drawn)
  )
  return '<h2>Learning</h2>' + html.charts(charts)


def _errors(run, result):
  """Show where the errors come from."""
  total = max(sum(result['count'].values()), 1)
  share = 100 * result['count']['background'] / total
  segments = len(run.truth.segments.label)
  return (
    '<h2>Where the errors come from</h2><p>Of the best '
    f'{diagnosis.TOP}·G predictions of every class at tIoU '
    f'{timelines.THETA:g}, '
    f'<strong>{share:.1f} % are background errors</strong>; '
    f'{result["missed"]} of {segments} segments are missed.</p>'
    + html.charts([*_false(result), *_missed(result, segments)])
  )


def _false(result):
  """Return the charts of false positives."""
  places = [f'{i}th G' for i in range(1, diagnosis.TOP + 1)]
  places[:3] = '1st G', '2nd G', '3rd G'
  rows = dict(zip(places, result['profile'], strict=True))
  text = 'Predictions by score, in portions of the number of segments G.'
  yield 'Kinds of errors', text, figures.shares(rows)
  gain = {k: 100 * v for k, v in result['gain'].items()}
  colors = [kind.replace(' ', '-') for kind in gain]
  text = 'Average mAP gained if these errors were not there.'
  drawn = figures.bars(gain, xlabel='average mAP gained, points', colors=colors)
  yield 'What each kind costs', text, drawn


def _missed(result, segments):
  """Return the charts of false negatives."""
  groups = result['characteristics']
  text = (
    'Segments that no prediction was matched with, by fifths of the ground '
    'truth. Dashed: of all.'
  )
  drawn = figures.groups(
    groups, 'missed_share', ylabel='% missed',
    baseline=result['missed'] / segments,
  )  # fmt: skip
  yield 'Missed', text, drawn
  text = 'Normalised average mAP on the same fifths. Dashed: of all.'
  drawn = figures.groups(
    groups, 'normalised_mAP', ylabel='normalised mAP, %',
    baseline=result['normalised_mAP'],
  )  # fmt: skip
  yield 'Sensitivity', text, drawn
  text = (
    'Of the best predictions of each video, of any class, tIoU 0.5 to 0.95.'
  )
  yield 'Average recall', text, figures.recall(**result['recall'])


def _classes(run, result):
  """Show the AP of every class, sorted, and what its errors are."""
  classes = sorted(result['classes'].items(), key=lambda x: (-x[1]['ap'], x[0]))
  ap = {name: 100 * row['ap'] for name, row in classes}
  text = f'At tIoU {timelines.THETA:g}.'
  if len(ap) > _MAX_BARS:
    names, half = list(ap), _MAX_BARS // 2
    ap = {name: ap[name] for name in names[:half] + names[-half:]}
    text += f' The {half} best and the {half} worst of {len(names)}.'
  chart = ('Average precision', text, figures.bars(ap, xlabel='AP, %'))
  rows = [
    [name, 100 * row['ap'], 100 * row['average_ap'], row['segments']]
    + [row[kind] for kind in diagnosis.KINDS]
    for name, row in classes
  ]
  head = ['class', f'AP@{timelines.THETA:g}', 'average AP', 'segments']
  caption = f'AP in %, and the kinds of the best {diagnosis.TOP}·G predictions'
  return (
    '<h2>Classes</h2>'
    + html.charts([chart])
    + html.table([*head, *diagnosis.KINDS], rows, caption)
  )


def _timelines(run):
  """Show the best, median and worst videos."""
  drawn = timelines.select(run.truth, run.predictions, run.curves, count=2)
  return (
    '<h2>Videos</h2><p>The best, median and worst videos by the AP of all '
    'their predictions: ground truth, class activation sequences (CAS), '
    'foreground weight and feature magnitude, predictions with their scores '
    'and kinds.</p>' + html.wide(drawn)
  )


def compare(before, after, output='', ground_truth='') -> epath.Path:
  """Write a page of two runs side by side, and return its path.

  Args:
    before: workdir of a run.
    after: workdir of another run, on the same ground truth.
    output: path of the page, by default AFTER/compare.html.
    ground_truth: path, by default what the config of `before` says.

  Raises:
    errors.InputError: their ground truth differs, or see outputs.read.
  """
  a, b = (
    outputs.read(before, ground_truth),
    outputs.read(after, ground_truth),
  )
  same = zip(a.truth.segments, b.truth.segments, strict=True)
  if a.truth[:2] != b.truth[:2] or not all(np.array_equal(*x) for x in same):
    raise errors.InputError(
      f'{after}: its ground truth is not that of {before}'
    )
  result = bootstrap.compare(
    a.truth, a.predictions, b.predictions, a.metrics['tiou'],
    theta=timelines.THETA,
  )  # fmt: skip
  names = [f'A: {a.name}', f'B: {b.name}']
  values = {k: v for k, v in result.items() if 'mAP' in k}
  body = (
    f'<h1>{escape(f"{a.name} and {b.name}")}</h1>'
    f'<p>A is {escape(str(before))}, B is {escape(str(after))}, on '
    f'{escape(_what(a))}. Intervals hold 95 % of 1000 draws of the '
    f'{len(a.truth.videos)} videos with replacement.</p>'
    + _differences('metric', names, values, 'Mean average precision, %')
    + _compare_kinds(names, result['kinds'])
    + _compare_classes(names, result['classes'])
  )
  path = epath.Path(output) if output else epath.Path(after) / 'compare.html'
  return html.write(path, f'{a.name} and {b.name}', body)


def _compare_kinds(names, kinds):
  """Show how the kinds of errors differ."""
  shares = {
    name: {kind: row[side] for kind, row in kinds.items()}
    for name, side in zip(names, ('before', 'after'), strict=True)
  }
  text = (
    f'Of the best {diagnosis.TOP}·G predictions at tIoU {timelines.THETA:g}.'
  )
  change = _difference_chart('Change', kinds, 'share, B − A, points')
  charts = html.charts([('Shares', text, figures.shares(shares)), change])
  table = _differences('kind', names, kinds, 'Shares, %')
  return '<h2>Kinds of errors</h2>' + charts + table


def _compare_classes(names, classes):
  """Show which classes got better and which worse."""
  order = sorted(classes, key=lambda name: -classes[name]['difference'])
  half = _MAX_BARS // 2
  ends = {name: classes[name] for name in order[:half] + order[-half:]}
  title = 'What got better and worse'
  chart = _difference_chart(title, ends, 'AP, B − A, points')
  classes = {name: classes[name] for name in order}
  caption = f'AP at tIoU {timelines.THETA:g}, %'
  table = _differences('class', names, classes, caption)
  return '<h2>Classes</h2>' + html.charts([chart]) + table


def _difference_chart(title, rows, xlabel):
  points = {
    name: [100 * row[key] for key in ('difference', 'low', 'high')]
    for name, row in rows.items()
  }
  drawn = figures.differences(points, xlabel=xlabel)
  return title, 'With 95 % intervals; grey ones hold zero.', drawn


def _differences(what, names, rows, caption):
  cells = [
    [name, 100 * row['before'], 100 * row['after']]
    + [html.signed(100 * row[key]) for key in ('difference', 'low', 'high')]
    for name, row in rows.items()
  ]
  head = [what, *names, 'B − A', '2.5 %', '97.5 %']
  return html.table(head, cells, caption)
