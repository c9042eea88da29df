"""Training videos as the network sees them without dropout.

The losses do not tell what evaluation sees: under dropout the top-k snippets
are those that the noise favours.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from backtal_jax import IGNORED, models, predict
from backtal_jax.data import pipeline, sources
from backtal_jax.run import feeding, hosts, sharding
from backtal_jax.stages import proposals

# How many training videos are looked at while a training goes on.
_WATCHED = 100
# Of snippets that a weight calls nearly all background, or all action.
_NEARLY_ALL = 0.99
# Of training videos that are found: fewer is worth a warning.
_FEW = 0.5
_T = TypeVar('_T')


class Look(NamedTuple):
  """A training video as the network sees it without dropout."""

  video: int  # index in the split
  feature: np.ndarray  # [T, D]
  seen: proposals.Observed
  magnitude: np.ndarray  # [T]
  frame_num: int


class Trained(NamedTuple):
  """The videos that were trained on, and with what they are read."""

  model: models.BackTAL
  source: sources.Source
  videos: np.ndarray  # indices in the source
  labeller: sources.Labeller | None
  mesh: jax.sharding.Mesh
  batch_size: int


def look(
  trained: Trained, params: models.Params, videos: np.ndarray, clicks: bool
) -> Iterator[Look]:
  """Yield this process's share of some training videos.

  The `videos` are indices, of all processes; `clicks` says whether their clicks
  count.
  """
  mesh = trained.mesh
  size = sharding.batch_size(trained.batch_size, mesh)
  plan = pipeline.eval_plan(len(videos), size)
  rows = plan[..., 1]
  rows[rows >= 0] = videos[rows[rows >= 0]]
  batches = feeding.named(
    trained.source, trained.source.names, trained.labeller, plan
  )
  params = sharding.replicate(params, mesh)
  for batch, row, curves in predict.run(trained.model, params, batches, mesh):
    click = batch['click'][row]
    yield Look(
      video=int(batch['video_index'][row]),
      feature=batch['feature'][row],
      seen=proposals.Observed(
        label=batch['label'][row],
        click=click if clicks else np.full_like(click, IGNORED),
        cas=curves['cas'],
        score=curves['score'],
        foreground=curves['foreground'],
        duration=float(batch['duration'][row]),
      ),
      magnitude=curves['magnitude'],
      frame_num=int(batch['frame_num'][row]),
    )


def of_each(
  function: Callable[[Look], _T],
  trained: Trained, params: models.Params, videos: np.ndarray, clicks: bool,
) -> list[_T]:  # fmt: skip
  """Return what a function gives of each video, in their order, to all hosts.

  The other arguments are those of `look`.
  """
  rows = [(x.video, function(x)) for x in look(trained, params, videos, clicks)]
  rows = [row for share in hosts.gather_objects(rows) for row in share]
  return [found for _, found in sorted(rows, key=lambda row: row[0])]


def watch(trained: Trained, params: models.Params) -> dict[str, float]:
  """Measure how up to 100 training videos look without dropout.

  Returns:
    The share of the videos whose best class, the background among them, is
    one of their labels; of the snippets with a foreground weight below 0.1
    and above 0.9; and of the snippets clicked as background that the network
    calls so, where there are any.
  """
  videos = trained.videos
  some = np.linspace(0, len(videos) - 1, min(_WATCHED, len(videos)))
  some = videos[some.astype(int)]
  measure = lambda look: _measure(look.seen)
  rows = of_each(measure, trained, params, some, True)
  found, low, high, right, clicked = np.array(rows, float).T
  measured = {
    'labels_found': found.mean(),
    'foreground_below_0.1': low.mean(),
    'foreground_above_0.9': high.mean(),
  }
  if clicked.any():
    measured['clicks_background'] = right.sum() / clicked.sum()
  return {name: float(value) for name, value in measured.items()}


def _measure(video: proposals.Observed) -> tuple[float, ...]:
  """Count what `watch` averages."""
  background = len(video.label)
  clicked = video.click == background
  right = video.cas[clicked].argmax(axis=1) == background
  weight = video.foreground
  return (
    is_found(video), (weight < 0.1).mean(), (weight > 0.9).mean(),
    right.sum(), clicked.sum(),
  )  # fmt: skip


def is_found(video: proposals.Observed) -> bool:
  """Check that a video's best class, background too, is one of its own."""
  return bool(np.append(video.label, 0)[np.argmax(video.score)] == 1)


def told(measured: dict[str, float]) -> str:
  """Lay out in a line what `watch` measured."""
  shares = ', '.join(
    f'{name.replace("_", " ")} {100 * value:.0f} %'
    for name, value in measured.items()
  )
  return f'training videos without dropout: {shares}'


def warning(measured: dict[str, float]) -> str:
  """Say in a line what is wrong with what `watch` measured, if it is."""
  found = measured['labels_found']
  low, high = (measured[f'foreground_{k}'] for k in ('below_0.1', 'above_0.9'))
  if found < _FEW:
    return (
      f'warning: without dropout only {100 * found:.0f} % of the training '
      'videos are found to be of one of their classes; features as extractors '
      'give them need config.model.standardize, many classes '
      'config.loss.topk_clean_from 0.5; then a smaller learning rate or '
      'config.train.rate_warmup 0.2 may help; or many clicks are wrong'
    )
  if max(low, high) > _NEARLY_ALL:
    side = 'below 0.1' if low > high else 'above 0.9'
    return (
      f'warning: the foreground weight is {side} at nearly every snippet and '
      'tells nothing; config.model.standardize, config.train.rate_warmup=0.2 '
      'or a smaller learning rate may help'
    )
  return ''
