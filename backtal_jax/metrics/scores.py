"""The numbers of a run by name: in tables, logs, ranking and comparison."""

from collections.abc import Iterable
from typing import NotRequired, TypedDict

from backtal_jax import errors


class Metrics(TypedDict):
  """What metrics.json holds, in fractions of 1."""

  tiou: list[float]
  mAP: list[float]
  average_mAP: float
  ap_per_class: dict[str, list[float]]  # at each tIoU
  accuracy: NotRequired[float]  # of videos, whose labels are all right
  epoch: NotRequired[int]
  training: NotRequired[dict[str, float]]  # see watch.watch


# Pairs of a name and percent, as in config.eval.
Published = Iterable[tuple[str, float]]
# Name, percent, published percent, difference; the last two may be unknown.
Beside = tuple[str, float, float | None, float | None]


def named(metrics: Metrics) -> dict[str, float]:
  """Return {'mAP@0.5': …, 'average_mAP': …} as fractions of 1."""
  pairs = zip(metrics['tiou'], metrics['mAP'], strict=True)
  values = {f'mAP@{tiou:g}': value for tiou, value in pairs}
  return values | {'average_mAP': metrics['average_mAP']}


def scalars(metrics: Metrics) -> dict[str, float]:
  """Return what TensorBoard and metrics.jsonl get of an evaluation."""
  training = metrics.get('training', {})
  return (
    named(metrics)
    | {key: metrics[key] for key in ('accuracy', 'epoch')}
    | {f'training/{name}': value for name, value in training.items()}
  )


def ranking_value(metrics: Metrics, best_metric: str) -> float:
  """Return what epochs are ranked by, see config.eval.best_metric."""
  if best_metric == 'last':
    return float(metrics['epoch'])
  return named(metrics)[best_metric]


def beside(metrics: Metrics, published: Published = ()) -> list[Beside]:
  """Return every number, beside the published one where there is one."""
  published, rows = dict(published), []
  for name, value in named(metrics).items():
    ours, theirs = 100 * value, published.get(name)
    rows.append((name, ours, theirs, None if theirs is None else ours - theirs))
  return rows


def largest_difference(metrics: Metrics, published: Published) -> float:
  """Return how far the run is off the published numbers, in percent.

  Raises:
    errors.InputError: a published number is not among the run's.
  """
  rows = {
    name: difference for name, _, _, difference in beside(metrics, published)
  }
  for name, _ in published:
    if name not in rows:
      raise errors.InputError(
        f'config.eval.published has {name}, the run has {", ".join(rows)}'
      )
  return max((abs(d) for d in rows.values() if d is not None), default=0.0)


def table(metrics: Metrics, published: Published = ()) -> str:
  """Lay out mAP by tIoU in percent, beside published numbers if there are."""
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
