"""The numbers of a run by name: in tables, logs, ranking and comparison."""

from collections.abc import Iterable
from typing import NotRequired, TypedDict

from backtal_jax import errors
from backtal_jax.metrics import agreement


class Metrics(TypedDict):
  """What metrics.json holds, in fractions of 1.

  Without an evaluation split there is no mAP, nor what goes with it.
  """

  tiou: NotRequired[list[float]]
  mAP: NotRequired[list[float]]
  average_mAP: NotRequired[float]
  ap_per_class: NotRequired[dict[str, list[float]]]  # at each tIoU
  accuracy: NotRequired[float]  # of videos, whose labels are all right
  epoch: NotRequired[int]
  training: NotRequired[dict[str, float]]  # see watch.watch
  # Of training videos, where clicks of theirs were kept aside.
  click_agreement: NotRequired[agreement.Agreement]
  # Without an evaluation split: training videos, clicked ones, clicks.
  reach: NotRequired[dict[str, int]]


NO_MAP = (
  "no mAP: config.data.eval_split is '', so there are no annotated videos to "
  'measure it on'
)
# Pairs of a name and percent, as in config.eval.
Published = Iterable[tuple[str, float]]
# Name, percent, published percent, difference; the last two may be unknown.
Beside = tuple[str, float, float | None, float | None]


def named(metrics: Metrics) -> dict[str, float]:
  """Return {'mAP@0.5': …, 'average_mAP': …}, if any, as fractions of 1."""
  if 'average_mAP' not in metrics:
    return {}
  pairs = zip(metrics['tiou'], metrics['mAP'], strict=True)
  values = {f'mAP@{tiou:g}': value for tiou, value in pairs}
  return values | {'average_mAP': metrics['average_mAP']}


def scalars(metrics: Metrics) -> dict[str, float]:
  """Return what TensorBoard and metrics.jsonl get of an evaluation."""
  training, agreed = metrics.get('training', {}), {}
  if found := metrics.get('click_agreement'):
    parts = {'background': found['background'], 'action': found['action']}
    agreed = {
      f'click_agreement/{k}': x for k, x in parts.items() if x is not None
    }
    agreed |= {'click_agreement': found['value']}
  return (
    named(metrics)
    | {k: metrics[k] for k in ('accuracy', 'epoch') if k in metrics}
    | agreed
    | {f'training/{name}': value for name, value in training.items()}
  )


def ranking_value(metrics: Metrics, best_metric: str) -> float:
  """Return what epochs are ranked by, see config.eval.best_metric."""
  if best_metric == 'last':
    return float(metrics['epoch'])
  if best_metric == 'click_agreement':
    return metrics['click_agreement']['value']
  return named(metrics)[best_metric]


def beside(metrics: Metrics, published: Published) -> list[Beside]:
  """Return every number, beside the published one where there is one."""
  published, rows = dict(published), []
  for name, value in named(metrics).items():
    ours, theirs = 100 * value, published.get(name)
    rows.append((name, ours, theirs, None if theirs is None else ours - theirs))
  return rows


def largest_difference(metrics: Metrics, published: Published) -> float:
  """Return how far the run is off the published numbers, in percent.

  For launch/reproduce.sh.

  Raises:
    errors.InputError: a published number is not among the run's.
  """
  ours = named(metrics)
  for name, _ in published:
    if name not in ours:
      raise errors.InputError(
        f'config.eval.published has {name}, the run has {", ".join(ours)}'
      )
  return max((abs(100 * ours[k] - x) for k, x in published), default=0.0)


def table(metrics: Metrics, published: Published = ()) -> str:
  """Lay out mAP by tIoU in percent, beside published numbers if there are.

  Below stands the click agreement, if there is one; that may be all.
  """
  lines = [_map_table(metrics, published)] if named(metrics) else [NO_MAP]
  if 'click_agreement' in metrics:
    lines.append(agreement_line(metrics['click_agreement']))
  return '\n'.join(lines)


def agreement_line(found: agreement.Agreement) -> str:
  """Say the click agreement, of what it is, and its interval, in percent."""
  line = (
    f'click agreement: {100 * found["value"]:.1f} % '
    f'({100 * found["low"]:.1f} to {100 * found["high"]:.1f}) by '
    f'{found["clicks"]} background clicks that were not trained on, on '
    f'{found["videos"]} training videos'
  )
  if found['background'] is not None and found['action'] is not None:
    line += (
      f'; random moments outrank them by {100 * found["background"]:.1f} %, '
      f'action clicks by {100 * found["action"]:.1f} % ({found["pairs"]} pairs)'
    )
  return line


def _map_table(metrics, published):
  names, ours, theirs, differences = zip(
    *beside(metrics, published), strict=True
  )
  heads = [name.removeprefix('mAP@') for name in names]
  heads[-1] = 'average'
  lines = {'tIoU': heads, 'mAP %': [f'{value:.1f}' for value in ours]}
  if any(value is not None for value in theirs):
    show = lambda values, form: ['' if v is None else form(v) for v in values]
    lines['published'] = show(theirs, '{:.1f}'.format)
    lines['difference'] = show(differences, '{:+.2f}'.format)
  width = max(map(len, lines)) + 1
  rows = (
    f'{head:{width}}' + ''.join(f'{cell:>8}' for cell in cells)
    for head, cells in lines.items()
  )
  accuracy = 100 * metrics['accuracy']
  return '\n'.join([*rows, f'videos with all labels right: {accuracy:.1f} %'])
