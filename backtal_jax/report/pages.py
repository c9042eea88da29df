"""The report of a run: one HTML file that needs nothing else.

A page is a list of sections that `page.html` beside this file lays out.
"""

import functools
import json
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jinja2
import markupsafe
from etils import epath
from matplotlib import figure as mpl_figure

from backtal_jax import files
from backtal_jax.metrics import average_precision, diagnosis, scores
from backtal_jax.report import figures, style, timelines
from backtal_jax.run import outputs

_T = TypeVar('_T')
# A figure of classes shows no more than twice this; the table shows all.
_HALF = 20
AT = f'tIoU {timelines.THETA:g}'
BEST = f'the best {diagnosis.TOP}·G predictions'
_VIDEOS = (
  'The best, median and worst videos by the AP of all their predictions: '
  'ground truth, class activation sequences (CAS), foreground weight and '
  'feature magnitude, predictions with their scores and kinds.'
)
_TRAINING_VIDEOS = (
  'Training videos, which nobody annotated, by agreement with the clicks kept '
  'aside if there are any: the clicks that were trained on, class activation '
  'sequences (CAS), foreground weight and feature magnitude, found segments '
  'with their scores.'
)
_WATCHED = (
  'Without dropout: videos found to be of one of their classes, snippets by '
  'their foreground weight, clicked background called so.'
)
_AGREED = (
  'Of training videos: how often a random moment outranks a background click '
  'that was not trained on, or an action click does.'
)


class Chart(NamedTuple):
  """A figure of a page."""

  title: str
  caption: str
  figure: mpl_figure.Figure


class Table(NamedTuple):
  """A table of a page; its columns sort, floats get one decimal."""

  caption: str
  head: Sequence[str]
  rows: Sequence[Sequence[str | float | None]]


class Section(NamedTuple):
  """A part of a page; what is empty is left out."""

  title: str = ''
  text: str = ''
  charts: Sequence[Chart] = ()  # side by side
  table: Table | None = None
  videos: Sequence[tuple[str, mpl_figure.Figure]] = ()  # below each other


def write(
  workdir: epath.Path,
  output: epath.Path | None = None,
  ground_truth: epath.PathLike = '',
) -> epath.Path:
  """Write the page of a run, and return its path.

  That is `output`, by default WORKDIR/report.html.

  Raises:
    errors.InputError: See outputs.read.
  """
  run = outputs.read(workdir, ground_truth)
  columns = run.truth, run.predictions
  sections = [_head(run), Section('Learning', charts=list(_learning(run)))]
  if scores.named(run.metrics):
    tiou = run.metrics['tiou']
    result = diagnosis.diagnose(*columns, tiou, theta=timelines.THETA)
    videos = timelines.select(*columns, run.curves, count=2)
    sections += [_errors(result, len(run.truth.segments.label)),
                 _classes(result)]  # fmt: skip
    text = _VIDEOS
  else:
    videos = timelines.select_clicked(
      *columns, run.curves, run.agreement, count=6
    )
    text = _TRAINING_VIDEOS
  return render(
    output or workdir / 'report.html',
    f'{run.name}: {what(run)}',
    run.name,
    [*sections, Section('Videos', text, videos=list(videos.items()))],
    json.dumps(run.config, indent=1, ensure_ascii=False),
  )


def render(
  path: epath.Path,
  title: str,
  heading: str,
  sections: Sequence[Section],
  config: str = '',
) -> epath.Path:
  """Write a page atomically, and return its path."""
  environment = jinja2.Environment(
    autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
  )
  environment.filters |= {
    'svg': style.svg, 'variable': style.variable, 'cell': _cell
  }  # fmt: skip
  template = epath.resource_path('backtal_jax.report') / 'page.html'
  text = environment.from_string(template.read_text()).render(
    palette=style.PALETTE, title=title, heading=heading, sections=sections,
    config=config,
  )  # fmt: skip
  files.require_ending(path, '.html')
  files.write_text(path, text)
  return path


def _cell(value):
  if value is None:
    return '–'
  return f'{value:.1f}' if isinstance(value, float) else value


def signed(value: float) -> str:
  """Format a difference with its sign."""
  return f'{round(value, 1) + 0.0:+.1f}'.replace('-', '−')


def what(run: outputs.Run) -> str:
  """Name the videos that a page is about."""
  data = run.config['data']
  return f'{data["name"]} {data["eval_split"] or data["train_split"]}'


def _head(run):
  """Say what was run, and the mAP beside the published one, if there is one."""
  truth, metrics, table = run.truth, run.metrics, None
  number, epoch = len(run.predictions.label), metrics.get('epoch', -1)
  trained = f', epoch {epoch}.' if epoch >= 0 else '.'
  if scores.named(metrics):
    text = (
      f'{len(truth.videos)} videos, {len(truth.labels)} classes, '
      f'{len(truth.segments.label)} segments, {number} predictions{trained}'
    )
    table = _map_table(metrics, run.config.get('eval', {}).get('published'))
  else:
    text = (
      f'{len(truth.videos)} training videos, {len(truth.labels)} classes, '
      f'{number} segments found in them{trained} N{scores.NO_MAP[1:]}.'
    )
    if reach := metrics.get('reach'):
      text += (
        f' {reach["clicks"]} clicks reach {reach["clicked"]} of the '
        f'{reach["videos"]} training videos with a label.'
      )
  if found := metrics.get('click_agreement'):
    text += (
      f' C{scores.agreement_line(found)[1:]}; 50 % is what segments get that '
      'have nothing to do with them.'
    )
  return Section(text=f'{what(run)}: {text}', table=table)


def _map_table(metrics, published):
  """Lay out the mAP, beside the published one if there is one."""
  head, rows = ['metric', 'this run'], scores.beside(metrics, published or ())
  if published:
    head += ['published', 'difference']
    rows = [(*row, d if d is None else signed(d)) for *row, d in rows]
  else:
    rows = [row[:2] for row in rows]
  return Table('Mean average precision, %', head, rows)


def _learning(run):
  """Yield the charts of losses, mAP along training, and precision."""
  keys = dict.fromkeys(key for row in run.log for key in row)
  # The first one of each is drawn bold.
  keys = sorted(keys, key=lambda k: k not in ('average_mAP', 'loss/total'))
  having = lambda part: [key for key in keys if part in key]
  for title, caption, part in (
    ('mAP', 'On the evaluation split.', 'mAP'),
    ('Training videos', _WATCHED, 'training/'),
    ('Click agreement', _AGREED, 'click_agreement'),
  ):
    if seen := having(part):
      drawn = figures.curves(_percent(run.log, seen), seen, ylabel='%')
      yield Chart(title, caption, drawn)
  if losses := having('loss/'):
    drawn = figures.curves(run.log, losses, log=True)
    yield Chart('Losses', 'Every term, and their weighted sum.', drawn)
  if not scores.named(run.metrics):
    return
  tiou = run.metrics['tiou']
  values = average_precision.precision_recall(run.truth, run.predictions, tiou)
  drawn = figures.precision_recall(tiou, values)
  yield Chart(
    'Precision and recall', 'The mean of the classes’ envelopes.', drawn
  )


def _percent(log, keys):
  """Return the lines of the log that have one of some keys, in percent."""
  return [
    {k: v if k == 'step' else 100 * v for k, v in row.items()}
    for row in log
    if any(key in row for key in keys)
  ]


def _errors(result, segments):
  """Show where the errors come from."""
  share = 100 * result['count']['background']
  share /= max(sum(result['count'].values()), 1)
  text = markupsafe.Markup(
    f'Of {BEST} of every class at {AT}, <strong>{share:.1f} % are background '
    f'errors</strong>; {result["missed"]} of {segments} segments are missed.'
  )
  places = ['1st G', '2nd G', '3rd G']
  places += [f'{i}th G' for i in range(4, diagnosis.TOP + 1)]
  gain = {k: 100 * v for k, v in result['gain'].items()}
  groups = functools.partial(figures.groups, result['characteristics'])
  charts = [
    Chart(
      'Kinds of errors',
      'Predictions by score, in portions of the number of segments G.',
      figures.shares(dict(zip(places, result['profile'], strict=True))),
    ),
    Chart(
      'What each kind costs',
      'Average mAP gained if these errors were not there.',
      figures.bars(gain, xlabel='average mAP gained, points', colors=gain),
    ),
    Chart(
      'Missed',
      'Segments that no prediction was matched with, by fifths of the ground '
      'truth. Dashed: of all.',
      groups('missed_share', '% missed', result['missed'] / segments),
    ),
    Chart(
      'Sensitivity',
      'Normalised average mAP on the same fifths. Dashed: of all.',
      groups('normalised_mAP', 'normalised mAP, %', result['normalised_mAP']),
    ),
    Chart(
      'Average recall',
      'Of the best predictions of each video, of any class, tIoU 0.5 to 0.95.',
      figures.recall(**result['recall']),
    ),
  ]
  return Section('Where the errors come from', text, charts)


def _classes(result):
  """Show the AP of every class, sorted, and what its errors are."""
  classes = sorted(result['classes'].items(), key=lambda x: (-x[1]['ap'], x[0]))
  ap, text = {name: 100 * row['ap'] for name, row in classes}, f'At {AT}.'
  if len(ap) > 2 * _HALF:
    text += f' The {_HALF} best and the {_HALF} worst of {len(ap)}.'
  drawn = figures.bars(ends(ap), xlabel='AP, %')
  rows = [
    [name, 100 * row['ap'], 100 * row['average_ap'], row['segments']]
    + [row[kind] for kind in diagnosis.KINDS]
    for name, row in classes
  ]
  head = ['class', f'AP@{timelines.THETA:g}', 'average AP', 'segments']
  caption = f'AP in %, and the kinds of {BEST}'
  return Section(
    'Classes',
    charts=[Chart('Average precision', text, drawn)],
    table=Table(caption, [*head, *diagnosis.KINDS], rows),
  )


def ends(rows: dict[str, _T]) -> dict[str, _T]:
  """Keep of {name: value} the first and the last, if there are too many."""
  names = list(rows)
  return {name: rows[name] for name in names[:_HALF] + names[-_HALF:]}
