"""Clicks: chosen by annotator, made snippet labels."""

import collections
import functools
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath

from backtal_jax import IGNORED, errors
from backtal_jax.data import annotations, marks, sources, video_names

ALL = 'all'  # Every annotator's clicks together.
RANDOM = 'random'  # One annotator sampled for each video and epoch.


def snippet_labels(
  clicks: Iterable[annotations.Click],
  duration: float | int | None,
  num_snippets: int,
  classes: Sequence[str],
) -> np.ndarray:
  """Label the T snippets of a video that were clicked (method.md section 8).

  The video's duration is seconds, or None if unknown; the C classes are in the
  order of their indices.

  Returns:
    [T] int32: C for background, the class index for an action, IGNORED
    elsewhere. Of several clicks in a snippet an action goes before
    background, and a later one before an earlier.

  Raises:
    errors.InputError: No duration, a click marks.BEYOND it, an unknown class.
  """
  labels = np.full(num_snippets, IGNORED, np.int32)
  index = {name: i for i, name in enumerate(classes)}
  index[annotations.BACKGROUND] = background = len(classes)
  for click in clicks:
    if not duration or not 0 <= click.time <= duration + marks.BEYOND:
      raise errors.InputError(
        f'a click of video {click.video!r} is at {click.time:g} s, its '
        f'duration is {duration} s'
      )
    if click.label not in index:
      raise errors.InputError(
        f'a click of video {click.video!r} has class {click.label!r}, expected '
        f'{annotations.BACKGROUND!r} or one of the {len(classes)} classes'
      )
  # The last one written stays.
  order = lambda c: (index[c.label] != background, c.time, index[c.label])
  for click in sorted(clicks, key=order):
    place = _snippet(click.time, duration or 1, num_snippets)
    labels[place] = index[click.label]
  return labels


def by_video(
  clicks: Iterable[annotations.Click], annotator: str = ALL
) -> dict[str, list[annotations.Click]]:
  """Group clicks by video; of an annotator's name, only that one's.

  ALL and RANDOM keep everyone's clicks.

  Raises:
    errors.InputError: Nobody of that name clicked.
  """
  names = sorted({click.annotator for click in clicks})
  everyone = annotator in (ALL, RANDOM)
  if not everyone and annotator not in names:
    raise errors.InputError(
      f'annotator {annotator!r} has no clicks, expected {ALL}, {RANDOM} or '
      f'one of {", ".join(names)}'
    )
  grouped = collections.defaultdict(list)
  for click in clicks:
    if everyone or click.annotator == annotator:
      grouped[click.video].append(click)
  return dict(grouped)


def sample(
  clicks: Sequence[annotations.Click], *, seed: int, epoch: int
) -> list[annotations.Click]:
  """Sample one annotator of a video and return the clicks of that one.

  A pure function of the seed, the epoch, the name of the video and who
  clicked there: the same on every host and after resuming.
  """
  names = sorted({click.annotator for click in clicks})
  if len(names) < 2:
    return list(clicks)
  key = zlib.crc32(clicks[0].video.encode())
  (bits,) = np.random.SeedSequence([seed, epoch, key]).generate_state(1)
  return [c for c in clicks if c.annotator == names[int(bits) % len(names)]]


def keep_aside(
  clicks: Iterable[annotations.Click],
  ground_truth: annotations.Annotations,
  share: float,
  *,
  seed: int,
  num_snippets: int,
) -> tuple[list[annotations.Click], list[annotations.Click]]:
  """Split clicks into those to train on and a share of each video's aside.

  Clicks in one snippet go together, so that none aside lies where the network
  is trained. Of a video's n such snippets, share · n are kept aside, rounded
  at random to the number above or below: a pure function of the seed and the
  name of the video.

  Raises:
    errors.InputError: A clicked video has no duration.
  """
  trained, aside = [], []
  for video, own in by_video(clicks).items():
    snippet = snippets(own, ground_truth, num_snippets)
    places = sorted({*snippet})
    rng = np.random.default_rng([seed, zlib.crc32(video.encode())])
    count = int(share * len(places) + rng.uniform())
    kept = {places[i] for i in rng.permutation(len(places))[:count]}
    for click, place in zip(own, snippet, strict=True):
      (aside if place in kept else trained).append(click)
  return trained, aside


def snippets(
  clicks: Sequence[annotations.Click],
  ground_truth: annotations.Annotations,
  num_snippets: int,
) -> list[int]:
  """Return in which of its video's T snippets each click lies.

  Raises:
    errors.InputError: A clicked video has no duration.
  """
  found = []
  for click in clicks:
    duration = ground_truth.videos[click.video].duration
    if not duration:
      raise errors.InputError(
        f'{ground_truth.path}: video {click.video!r} has no duration, expected '
        'one to keep clicks aside'
      )
    found.append(_snippet(click.time, duration, num_snippets))
  return found


def _snippet(time: float, duration: float, num_snippets: int) -> int:
  return min(num_snippets - 1, int(time / duration * num_snippets))


def read(
  paths: Iterable[epath.Path],
  ground_truth: annotations.Annotations | None,
  **options: Any,
) -> tuple[list[annotations.Click], list[str]]:
  """Read several click files as annotations.read_clicks reads one."""
  found, complaints, paths = [], [], list(paths)
  for path in paths:
    if paths.count(path) > 1:
      raise errors.InputError(f'{path}: named twice, expected once')
    more, wrong = annotations.read_clicks(path, ground_truth, **options)
    found += more
    complaints += wrong
  return found, complaints


def coverage(
  found: Iterable[annotations.Click],
  videos: Sequence[str],
  annotator: str = ALL,
) -> tuple[str, dict[str, int]]:
  """Return how many clicks of whom reach the training videos, see `summary`.

  Raises:
    errors.InputError: The clicks reach nobody.
  """
  grouped = by_video(found, annotator)
  reached, _ = video_names.match(videos, grouped)
  used = [click for name in {*reached.values()} for click in grouped[name]]
  others = sum(map(len, grouped.values())) - len(used)
  if not used:
    raise errors.InputError(
      f'none of the {others} clicks is on one of the {len(videos)} training '
      'videos; expected some, or no click file at all'
    )
  who = sorted({click.annotator for click in used})
  line, reach = summary(
    len(videos), len(reached), len(used), f'annotators {errors.few(who)}'
  )
  return line + f'; {others} more are on other videos' * bool(others), reach


def summary(
  videos: int, clicked: int, clicks: int, what: str
) -> tuple[str, dict[str, int]]:
  """Return a line, a warning where most have no click, and the counts."""
  line = f'{clicks} clicks on {clicked} of {videos} training videos ({what})'
  warning = 'warning: only ' * (2 * clicked < videos)
  reach = {'videos': videos, 'clicked': clicked, 'clicks': clicks}
  return warning + line, reach


def labeller(
  clicks: Iterable[annotations.Click],
  ground_truth: annotations.Annotations,
  annotator: str,
  *,
  seed: int,
  num_snippets: int,
) -> sources.Labeller:
  """Return `(video, epoch) -> [T] labels` for the input pipeline.

  The classes are those of the ground truth, and so are the durations; where it
  does not say, the video's own `duration` (seconds) stands in. The annotator is
  ALL, RANDOM, which depends on the seed, or a name.

  Raises:
    errors.InputError: Nobody of that name clicked.
  """
  grouped = by_video(clicks, annotator)
  match = functools.cache(lambda n: video_names.match_one(n, grouped))

  def labels(video, epoch):
    name = match(video.name)
    chosen = grouped.get(name, [])
    if annotator == RANDOM:
      chosen = sample(chosen, seed=seed, epoch=epoch)
    known = ground_truth.videos.get(name)
    duration = (known and known.duration) or video.duration
    return snippet_labels(chosen, duration, num_snippets, ground_truth.classes)

  return labels
