"""What follows from each part of a staged training (config.stages).

A training has up to three parts. The first is the ordinary one. Where it has
lost its labels, a second does it again without clicks. The last goes on from
there with labels of snippets. What follows from a part is written to
WORKDIR/stages before the part's last checkpoint, so that a run that died goes
on from either: clicks.json, names.npz and quality.npz. So are, to parts.json,
the epochs after which a part ended that another follows: a run that is given
more epochs lengthens the part that it has come to.

Every process looks at its share of the videos; process 0 decides, for all.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from backtal_jax import (
  IGNORED,
  errors,
  files,
  localization,
  models,
  predict,
  watch,
)
from backtal_jax.data import npz
from backtal_jax.run import hosts
from backtal_jax.stages import naming, proposals, quality, regression, targets

# From this share of segments that are named otherwise than the network would,
# it learns the names: elsewhere it knows them, and what it would learn anew
# are its own ends of segments (docs/recipe.md).
_RENAMED = 0.03


class Options(NamedTuple):
  """What config.stages says, in epochs."""

  num_epochs: int  # of the first part
  clicks: bool  # whether any loss is of clicks; else no stage uses them
  without_clicks_below: float  # see config.stages
  names: str  # see config.stages
  every_instance: bool  # see config.stages
  retrain_epochs: int  # of the part with labels of snippets, 0 for none
  quality: bool  # whether a head is learned


class Part(NamedTuple):
  """A part of a training."""

  number: int  # from 0; later ones are better
  first: int  # epoch after which it begins
  last: int  # its last epoch
  clicks: bool  # whether they count
  # Labels and weights [N, T] of the snippets of all videos, where learned.
  targets: tuple[np.ndarray, np.ndarray] | None


class Named(NamedTuple):
  """Segments of the training videos with their names."""

  video: np.ndarray  # [S] int, index in the split
  run: np.ndarray  # [S, 2] int, snippets
  label: np.ndarray  # [S] int, background C
  renamed: float  # share of the named ones that the network calls otherwise
  believed: np.ndarray  # [K, 2] int, video and snippet of believed clicks
  snippet_label: np.ndarray  # [N, T] int32, of all videos, see targets.Targets
  snippet_weight: np.ndarray  # [N, T] float32


class Stages:
  """What follows from each part of a training.

  The workdir and the seed are the run's; `localize` are the options of
  localization.localize.
  """

  def __init__(
    self,
    trained: watch.Trained,
    workdir: epath.Path,
    options: Options,
    localize: dict[str, Any],
    seed: int,
  ) -> None:
    self._trained, self._folder = trained, workdir / 'stages'
    self._options, self._localize = options, localize
    self._seed = seed

  def parts(self) -> Iterator[Part]:
    """Yield the parts; each is asked for when the one before has ended."""
    options, number, path = self._options, 0, self._folder / 'parts.json'
    ended = hosts.by_one(lambda: files.read_json(path) if path.exists() else [])
    last = ended[0] if ended else options.num_epochs
    yield Part(0, 0, last, options.clicks, None)
    if options.without_clicks_below and self.is_lost(self.found()):
      number, first = 1, last
      last = ended[1] if ended[1:] else first + options.num_epochs
      yield Part(1, first, last, False, None)
    if options.retrain_epochs and (named := self.named()).renamed >= _RENAMED:
      labels = named.snippet_label, named.snippet_weight
      clicks = options.clicks and not number
      yield Part(2, last, last + options.retrain_epochs, clicks, labels)

  def finish(
    self, part: Part, params: models.Params, say: Callable[[str], None]
  ) -> tuple[bool, quality.Head | None]:
    """Write what follows from a part that ends with some parameters.

    Returns:
      Whether no part follows, and the head, if one is learned then.
    """
    options, lost, retrains = self._options, False, False
    named = None
    if part.number == 0 and options.without_clicks_below:
      found = self.judge_clicks(params)
      say(self.verdict(found))
      lost = self.is_lost(found)
    if part.targets is not None:
      named = self.named()
    elif not lost and (options.retrain_epochs or options.quality):
      named = self.name(params, part.clicks)
      if options.retrain_epochs:
        retrains = named.renamed >= _RENAMED
        say(_told(named.renamed, retrains))
    final = not (lost or retrains)
    if not final and hosts.is_main_process():
      ended = [epoch for epoch in (part.first, part.last) if epoch]
      files.write_json(self._folder / 'parts.json', ended)
    if named is None or not (final and options.quality):
      return final, None
    head = self.learn_quality(params, named)
    if head is None:
      say('no proposal in any training video: proposals are not judged')
    return final, head

  def judge_clicks(self, params: models.Params) -> float:
    """Write the share of the training videos that are found of their classes.

    See clicks.json and `found`.
    """
    is_found = lambda look: watch.is_found(look.seen)
    share = float(np.mean(self._of_each(is_found, params, True)))
    if hosts.is_main_process():
      files.write_json(self._folder / 'clicks.json', {'labels_found': share})
    return share

  def found(self) -> float:
    """Return what `judge_clicks` wrote."""
    read = lambda: files.read_json(self._need('clicks.json'))['labels_found']
    return hosts.by_one(read)

  def is_lost(self, found: float) -> bool:
    """Return whether so few videos found call for training without clicks."""
    return found < self._options.without_clicks_below

  def verdict(self, found: float) -> str:
    """Say in a line what follows from a share of videos that are found."""
    line = (
      f'without dropout {100 * found:.0f} % of the training videos are found '
      'to be of one of their classes'
    )
    if self.is_lost(found):
      line += (
        f', fewer than {100 * self._options.without_clicks_below:.0f} % '
        '(config.stages.without_clicks_below): trained anew without clicks'
      )
    return line

  def name(self, params: models.Params, clicks: bool) -> Named:
    """Find and name the segments of the training videos; see names.npz.

    `clicks` says whether their clicks count.
    """
    describe = lambda look: _describe(look, self._options.every_instance)
    rows = self._of_each(describe, params, clicks)
    named = hosts.by_one(functools.partial(self._name, rows))
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
    if self._options.names == 'em' and len(segments.video):
      description = regression.describe(
        np.concatenate(looks),
        np.concatenate(negatives),
        np.repeat(np.arange(len(rows)), list(map(len, negatives))),
      )
      label = naming.name(segments, description, labels, seed=self._seed).label
    else:
      label = naming.by_probability(segments)
    kept = label != labels.shape[1]
    other = label != naming.likeliest(segments)
    renamed = np.mean(other[kept]) if kept.any() else 0.0
    made = targets.make(seen, segments, label)
    shape = len(trained.source), made.label.shape[1]
    everywhere = targets.Targets(
      np.full(shape, IGNORED, np.int32), np.zeros(shape, np.float32)
    )
    index = np.array(index)
    for whole, part in zip(everywhere, made, strict=True):
      whole[index] = part
    video, at = np.nonzero([proposals.believed(video) for video in seen])
    return Named(
      index[segments.video], segments.run, label, float(renamed),
      np.stack([index[video], at], axis=1), *everywhere,
    )  # fmt: skip

  def named(self) -> Named:
    """Return what `name` wrote."""
    return hosts.by_one(lambda: read_named(self._need('names.npz')))

  def learn_quality(
    self, params: models.Params, named: Named
  ) -> quality.Head | None:
    """Fit the quality head to named segments; see quality.npz.

    None where the network proposes nothing at all.
    """
    trained = self._trained
    num_inputs = quality.num_inputs(*trained.source.shape[1:])
    most = quality.most_of_a_video(len(trained.videos), num_inputs)
    learn_from = lambda look: self._examples(look, named, most)
    rows = self._of_each(learn_from, params, False)

    def fit():
      columns = map(np.concatenate, zip(*rows, strict=True))
      examples = quality.Examples(*columns)
      return quality.fit(examples, self._seed) if len(examples.tiou) else None

    head = hosts.by_one(fit)
    if head is not None and hosts.is_main_process():
      quality.write(self._folder / 'quality.npz', head)
    return head

  def _examples(self, seen, named, most):
    """Return what the head learns from of a video."""
    video, own = seen.seen, named.video == seen.video
    name = self._trained.source.names[seen.video]
    predict.require_length(name, seen.frame_num, video.duration)
    own &= named.label != len(video.label)
    options = quality.widen(self._localize)
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

  def _of_each(self, function, params, clicks):
    """Return what a function gives of each video, see watch.of_each."""
    trained = self._trained
    return watch.of_each(function, trained, params, trained.videos, clicks)

  def _need(self, name):
    """Return the path of what an earlier part wrote."""
    path = self._folder / name
    if not path.exists():
      raise errors.InputError(
        f'{path}: missing, though the run is past the part that writes it; '
        'choose another --workdir to start anew'
      )
    return path


def _told(renamed, retrains):
  """Say in a line whether the names of segments are learned."""
  again = 'again with the names' if retrains else 'no more'
  return (
    f'{100 * renamed:.0f} % of the segments found in training videos are named '
    f'otherwise than by the network: it is trained {again}'
  )


def _describe(seen, every_instance):
  """Return what names are made of, of a video."""
  video = seen.seen
  if every_instance:
    video = proposals.separate(video)
  found = proposals.find([video], every_instance)
  return (
    seen.video, video, found, regression.pool(seen.feature, found.run),
    regression.pool_negatives(seen.feature, video),
  )  # fmt: skip


def read_named(path: epath.Path) -> Named:
  """Read names.npz; another file is an errors.InputError."""
  named = npz.read_as(path, Named, 'named segments')
  return named._replace(renamed=float(named.renamed))
