"""What a staged training does at the end of a part of it (config.stages).

A training has up to three parts. The first is the ordinary one. Where it has
lost its labels, a second does it again without clicks. The last goes on from
there with labels of snippets. What follows from a part is written to
WORKDIR/stages before the part's last checkpoint, so that a run that died goes
on from either: clicks.json, names.npz and quality.npz.

Every process looks at its share of the videos; process 0 decides, for all.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from etils import epath

from backtal_jax import IGNORED, errors, files, localization, models, predict
from backtal_jax.data import pipeline, sources
from backtal_jax.run import hosts, sharding
from backtal_jax.stages import naming, proposals, quality, targets

# How many training videos are looked at while a training goes on.
_WATCHED = 100
# Of snippets that a weight calls nearly all background, or all action.
_NEARLY_ALL = 0.99
# Of training videos that are found: fewer is worth a warning.
_FEW = 0.5
_T = TypeVar('_T')
_Row = TypeVar('_Row', bound=tuple[Any, ...])


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


class Named(NamedTuple):
  """Segments of the training videos with their names."""

  video: np.ndarray  # [S] int, index in the split
  run: np.ndarray  # [S, 2] int, snippets
  label: np.ndarray  # [S] int, background C
  believed: np.ndarray  # [K, 2] int, video and snippet of believed clicks
  snippet_label: np.ndarray  # [N, T] int32, of all videos, see targets.Targets
  snippet_weight: np.ndarray  # [N, T] float32


def look(
  trained: Trained, params: models.Params, videos: np.ndarray, clicks: bool
) -> Iterator[Look]:
  """Yield this process's share of some training videos.

  Args:
    trained: What was trained.
    params: Parameters.
    videos: Indices, of all processes.
    clicks: Whether their clicks count.
  """
  mesh = trained.mesh
  size = sharding.batch_size(trained.batch_size, mesh)
  plan = pipeline.eval_plan(len(videos), size)
  rows = plan[..., 1]
  rows[rows >= 0] = videos[rows[rows >= 0]]
  names = np.array(trained.source.names, object)
  batches = (
    batch | {'name': names[batch['video_index']]}
    for batch in pipeline.batches(
      trained.source, sharding.local_columns(plan), trained.labeller
    )
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


def _gather(rows: Sequence[_Row]) -> list[_Row]:
  """Return the rows of all processes, in the order of their first column."""
  shares = hosts.gather_objects(list(rows))
  return sorted((r for share in shares for r in share), key=lambda r: r[0])


def _by_one(compute: Callable[[], _T]) -> _T:
  """Return what process 0 computes."""
  value = [compute()] if hosts.is_main_process() else []
  return hosts.gather_objects(value)[0][0]


def _measure(video: proposals.Observed):
  """Count what `Stages.watch` averages."""
  background = len(video.label)
  clicked = video.click == background
  right = video.cas[clicked].argmax(axis=1) == background
  weight = video.foreground
  return (
    _is_found(video), (weight < 0.1).mean(), (weight > 0.9).mean(),
    right.sum(), clicked.sum(),
  )  # fmt: skip


def _is_found(video):
  """Check that a video's best class, background too, is one of its own."""
  return bool(np.append(video.label, 0)[video.score.argmax()] == 1)


def warning(measured: dict[str, float]) -> str:
  """Say in a line what is wrong with what `Stages.watch` measured, if it is."""
  found = measured['labels_found']
  low, high = (measured[f'foreground_{k}'] for k in ('below_0.1', 'above_0.9'))
  if found < _FEW:
    return (
      f'warning: without dropout only {100 * found:.0f} % of the training '
      'videos are found to be of one of their classes; too many clicks may be '
      'wrong, or the learning rate too large'
    )
  if max(low, high) > _NEARLY_ALL:
    side = 'below 0.1' if low > high else 'above 0.9'
    return (
      f'warning: the foreground weight is {side} at nearly every snippet and '
      'tells nothing; a smaller learning rate may help, or more clicks'
    )
  return ''


class Stages:
  """What follows from each part of a training.

  Args:
    trained: What is trained.
    workdir: Workdir of the run.
    names: Who names segments, see config.stages.
    without_clicks_below: Likewise.
    options: Of localization.localize.
    seed: Seed of the run.
  """

  def __init__(
    self,
    trained: Trained,
    workdir: epath.Path,
    *,
    names: str,
    without_clicks_below: float,
    options: dict[str, Any],
    seed: int,
  ) -> None:
    self._trained, self._folder = trained, workdir / 'stages'
    self._names, self._least = names, without_clicks_below
    self._options, self._seed = options, seed

  def watch(self, params: models.Params) -> dict[str, float]:
    """Measure how up to 100 training videos look without dropout.

    Returns:
      The share of the videos whose best class, the background among them, is
      one of their labels; of the snippets with a foreground weight below 0.1
      and above 0.9; and of the snippets clicked as background that the network
      calls so, where there are any.
    """
    videos = self._trained.videos
    some = np.linspace(0, len(videos) - 1, min(_WATCHED, len(videos)))
    some = videos[some.astype(int)]
    rows = _gather(
      [
        (seen.video, *_measure(seen.seen))
        for seen in look(self._trained, params, some, True)
      ]
    )
    _, found, low, high, right, clicked = (
      np.array(column, float) for column in zip(*rows, strict=True)
    )
    measured = {
      'labels_found': found.mean(),
      'foreground_below_0.1': low.mean(),
      'foreground_above_0.9': high.mean(),
    }
    if clicked.any():
      measured['clicks_background'] = right.sum() / clicked.sum()
    return {name: float(value) for name, value in measured.items()}

  def judge_clicks(self, params: models.Params) -> float:
    """Write the share of the training videos that are found of their classes.

    See clicks.json and `found`.
    """
    trained = self._trained
    rows = _gather(
      [
        (seen.video, _is_found(seen.seen))
        for seen in look(trained, params, trained.videos, True)
      ]
    )
    share = float(np.mean([found for _, found in rows]))
    if hosts.is_main_process():
      files.write_json(self._folder / 'clicks.json', {'labels_found': share})
    return share

  def found(self) -> float:
    """Return what `judge_clicks` wrote."""
    read = lambda: files.read_json(self._need('clicks.json'))['labels_found']
    return _by_one(read)

  def is_lost(self, found: float) -> bool:
    """Return whether so few videos found call for training without clicks."""
    return found < self._least

  def verdict(self, found: float) -> str:
    """Say in a line what follows from a share of videos that are found."""
    line = (
      f'without dropout {100 * found:.0f} % of the training videos are found '
      'to be of one of their classes'
    )
    if self.is_lost(found):
      line += (
        f', fewer than {100 * self._least:.0f} % '
        '(config.stages.without_clicks_below): trained anew without clicks'
      )
    return line

  def name(self, params: models.Params, clicks: bool) -> Named:
    """Find and name the segments of the training videos; see names.npz.

    `clicks` says whether their clicks count.
    """
    trained = self._trained
    rows = _gather(
      [*map(_describe, look(trained, params, trained.videos, clicks))]
    )
    named = _by_one(functools.partial(self._name, rows))
    if hosts.is_main_process():
      with files.atomic(self._folder / 'names.npz') as f:
        np.savez_compressed(f, allow_pickle=False, **named._asdict())
    return named

  def _name(self, rows):
    """Name the segments of `_describe`'s rows, of all processes."""
    trained = self._trained
    index, seen, found, looks, negatives = zip(*rows, strict=True)
    counts = [len(part.video) for part in found]
    segments = proposals.Segments(
      np.repeat(np.arange(len(rows)), counts),
      *(np.concatenate(part) for part in list(zip(*found, strict=True))[1:]),
    )
    labels = np.stack([video.label for video in seen])
    if self._names == 'em':
      description = naming.describe(
        np.concatenate(looks),
        np.concatenate(negatives),
        np.repeat(np.arange(len(rows)), list(map(len, negatives))),
      )
      label = naming.name(segments, description, labels, seed=self._seed).label
    else:
      label = naming.by_probability(segments)
    made = targets.make(seen, segments, label)
    shape = len(trained.source), made.label.shape[1]
    everywhere = targets.Targets(
      np.full(shape, IGNORED, np.int32), np.zeros(shape, np.float32)
    )
    index = np.array(index)
    for whole, part in zip(everywhere, made, strict=True):
      whole[index] = part
    believed = [
      (i, t)
      for i, video in zip(index, seen, strict=True)
      for t in np.flatnonzero(
        proposals.believed(video.click, video.foreground, len(video.label))
      )
    ]
    return Named(
      index[segments.video], segments.run, label,
      np.array(believed, int).reshape(-1, 2), *everywhere,
    )  # fmt: skip

  def named(self) -> Named:
    """Return what `name` wrote."""
    return _by_one(lambda: _read_named(self._need('names.npz')))

  def learn_quality(self, params: models.Params, named: Named) -> quality.Head:
    """Fit the quality head to named segments; see quality.npz."""
    trained = self._trained
    num_inputs = quality.num_inputs(*trained.source.shape[1:])
    most = quality.most_of_a_video(len(trained.videos), num_inputs)
    rows = _gather(
      [
        (seen.video, self._examples(seen, named, most))
        for seen in look(trained, params, trained.videos, False)
      ]
    )

    def fit():
      columns = zip(*(examples for _, examples in rows), strict=True)
      examples = quality.Examples(*map(np.concatenate, columns))
      if not len(examples.tiou):
        raise errors.InputError(
          'config.stages.quality: no proposal in any training video; expected '
          'a network that finds some'
        )
      return quality.fit(examples, self._seed)

    head = _by_one(fit)
    if hosts.is_main_process():
      quality.write(self._folder / 'quality.npz', head)
    return head

  def _examples(self, seen, named, most):
    """Return what the head learns from of a video."""
    video, own = seen.seen, named.video == seen.video
    if not (seen.frame_num > 0 and 0 < video.duration < np.inf):
      raise errors.InputError(
        f'{self._trained.source.names[seen.video]}: frame_num '
        f'{seen.frame_num} and duration {video.duration}, expected both to be '
        'positive, as config.stages.quality needs them'
      )
    own &= named.label != len(video.label)
    options = quality.widen(self._options)
    labels, segments = localization.propose(
      video.cas, video.score, seen.magnitude,
      frame_num=seen.frame_num, duration=video.duration, **options,
    )  # fmt: skip
    if len(labels) > most:
      rng = np.random.default_rng([self._seed, seen.video])
      some = np.sort(rng.permutation(len(labels))[:most])
      labels, segments = labels[some], segments[some]
    seconds = video.duration / len(video.click)
    clicks = named.believed[named.believed[:, 0] == seen.video, 1]
    tiou, offset = quality.learnable(
      labels, segments, named.label[own], named.run[own] * seconds,
      (clicks + 0.5) * seconds,
    )  # fmt: skip
    x = quality.inputs(
      seen.feature, labels, segments, video.duration, len(video.label)
    )
    return quality.Examples(x, tiou, offset)

  def _need(self, name):
    """Return the path of what an earlier part wrote."""
    path = self._folder / name
    if not path.exists():
      raise errors.InputError(
        f'{path}: missing, though the run is past the part that writes it; '
        'choose another --workdir to start anew'
      )
    return path


def _describe(seen):
  """Return what names are made of, of a video."""
  video = seen.seen
  found = proposals.find([video])
  return (
    seen.video, video, found, naming.pool(seen.feature, found.run),
    naming.pool_negatives(seen.feature, video),
  )  # fmt: skip


def _read_named(path):
  try:
    with path.open('rb') as f, np.load(f) as loaded:
      return Named(**{key: loaded[key] for key in Named._fields})
  except (KeyError, ValueError, EOFError, OSError, TypeError) as e:
    raise errors.InputError(f'{path}: no named segments in it: {e!r}') from e
