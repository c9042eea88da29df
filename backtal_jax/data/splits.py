"""A split, opened, and its videos held against the annotations."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from backtal_jax import errors
from backtal_jax.data import annotations, clicks, sources, video_names

# Jaccard index of two classes' videos from which they come together.
_TOGETHER = 0.8
# Action clicks a class, each in another video, that settle the names
# (docs/recipe.md).
_ENOUGH = 5


class Supervision(NamedTuple):
  """What supervises training videos beside their labels."""

  labeller: sources.Labeller | None  # (video, epoch) -> [T]; None: the files'
  line: str  # whom the clicks reach
  reach: dict[str, int]  # the same: `videos`, `clicked` of them, `clicks`
  held: list[annotations.Click]  # that are never trained on


def open(
  kind: str, root: epath.Path, split: str, shape: tuple[int, int, int]
) -> sources.Source:
  """Open a split of a data root: of npz files, or as `prepare tfds` made it."""
  if kind == 'npz':
    return sources.NpzSource(root / split, shape)
  errors.need('tensorflow_datasets', 'train', "config.data.source = 'tfds'")
  from backtal_jax.data import builder  # takes seconds

  return builder.TfdsSource(root, split, shape)


def labelled(source: sources.Source, where: object) -> np.ndarray:
  """Return the indices of the videos with a label; say how many have none.

  Raises:
    errors.InputError: None has one; names `where`.
  """
  found = np.flatnonzero(source.labels().any(axis=1))
  if len(found) < len(source):
    print(f'{len(source) - len(found)} videos without a label are dropped')
  if not len(found):
    raise errors.InputError(f'{where}: no video has a label')
  return found


def check_labels(
  source: sources.Source, ground_truth: annotations.Annotations
) -> None:
  """Hold the labels of a source against the annotated ones, of as many classes.

  Raises:
    errors.InputError: Most videos that have both have others; one is shown.
  """
  names, videos = source.video_names(), ground_truth.videos
  known, _ = video_names.match(names, videos)
  compared, different = 0, []
  for name, row in zip(names, source.labels(), strict=True):
    labels = {ground_truth.classes[c] for c in np.flatnonzero(row)}
    video = videos.get(known.get(name, ''))
    annotated = {s.label for s in video.segments} if video else set()
    if labels and annotated:
      compared += 1
      if labels != annotated:
        different.append((name, sorted(labels), sorted(annotated)))
  if 2 * len(different) > compared:
    name, labels, annotated = different[0]
    raise errors.InputError(
      f'{len(different)} of {compared} videos have other labels than in '
      f'{ground_truth.path}, say {name!r}: cls_label says {", ".join(labels)}, '
      f'the segments {", ".join(annotated)}; are the classes in one '
      'order? `prepare check` lists all'
    )


def make_clicks(
  source: sources.Source,
  videos: np.ndarray,
  paths: Sequence[epath.Path],
  ground_truth: annotations.Annotations,
  *,
  annotator: str,
  seed: int,
  num_snippets: int,
  aside: float = 0.0,
  others: Sequence[epath.Path] = (),
) -> Supervision:
  """Return what labels snippets, whom the clicks reach, and which are held.

  Args:
    source: Source of the videos.
    videos: Indices of those to train on.
    paths: Click files; none stands for the labels in the source's own files.
    ground_truth: Annotations of the videos.
    annotator, seed, num_snippets: See clicks.labeller.
    aside: Share of each video's clicks that are held, see clicks.keep_aside.
    others: Click files of somebody else, all of which are held.

  Raises:
    errors.InputError: The clicks reach no training video, or those that are
      held are none, or the same as the others.
  """
  names = source.video_names()
  chosen = [names[i] for i in videos]
  if not paths:
    counts = np.array(source.num_clicks())[videos].tolist()
    line, reach = _of_files(counts, others)
    held = _held([], [], others, ground_truth, chosen, num_snippets)
    return Supervision(None, line, reach, held)
  found, _ = clicks.read(paths, ground_truth)
  grouped = clicks.by_video(found, annotator)
  found, kept = [click for own in grouped.values() for click in own], []
  if aside:
    found, kept = clicks.keep_aside(
      found, ground_truth, aside, seed=seed, num_snippets=num_snippets
    )
  if kept and not found:
    raise errors.InputError(
      f'config.data.clicks_aside is {aside}, which leaves none of the '
      f'{len(kept)} clicks to train on'
    )
  held = _held(found, kept, others, ground_truth, chosen, num_snippets)
  label = clicks.labeller(
    found, ground_truth, annotator, seed=seed, num_snippets=num_snippets
  )
  line, reach = clicks.coverage(found, chosen, annotator)
  line += _told(found, kept, held, others, chosen)
  return Supervision(label, line, reach, held)


def _of_files(counts, others):
  """Return clicks.summary of the clicks in the videos' own files."""
  clicked = sum(count > 0 for count in counts)
  if others and clicked:
    raise errors.InputError(
      f'config.data.agreement_clicks is {str(others[0])!r}, but '
      "config.data.clicks is '': expected the file of the clicks that are "
      'trained on, to hold no moment of those'
    )
  return clicks.summary(len(counts), clicked, sum(counts), 'in their files')


def _held(trained, kept, others, ground_truth, chosen, num_snippets):
  """Return the clicks on training videos that are never trained on.

  Those of others that lie in a snippet which is trained on are left out.
  """
  told, _ = clicks.read(others, ground_truth)
  place = lambda click: (click.video, click.time, click.label)
  if told and {*map(place, told)} == {*map(place, [*trained, *kept])}:
    raise errors.InputError(
      f'config.data.agreement_clicks: {others[0]} holds the very clicks that '
      'are trained on, expected those of somebody else'
    )
  where = lambda found: [
    (click.video, snippet)
    for click, snippet in zip(
      found, clicks.snippets(found, ground_truth, num_snippets), strict=True
    )
  ]
  busy = {*where(trained)} if told else set()
  told = [c for c, at in zip(told, where(told), strict=True) if at not in busy]
  names, _ = video_names.match(chosen, ground_truth.videos)
  known = {*names.values()}
  held = [click for click in [*kept, *told] if click.video in known]
  if (others or kept) and not any(click.is_background for click in held):
    raise errors.InputError(
      'config.data.clicks_aside and agreement_clicks: of the clicks that are '
      'kept aside, none is of background, on a training video and off the '
      'snippets that are trained on; expected one or more'
    )
  return held


def _told(trained, kept, held, others, chosen):
  """Return a line's end on the clicks that are held."""
  if not kept and not others:
    return ''
  videos = {click.video for click in held}
  line = f'; {len(held)} are kept aside, on {len(videos)}'
  left = {c.video for c in kept} - {c.video for c in trained}
  reached, _ = video_names.match(chosen, left)
  if reached:
    line += f', {len(reached)} of which are left without a click to train on'
  return line


def inseparable(labels: np.ndarray, classes: Sequence[str]) -> str:
  """Return a line on the classes that nearly always come together, if any.

  Neither labels [N, C] of videos nor background clicks tell such a pair apart;
  which is which hangs on the few videos that have one alone.
  """
  present = (labels == 1).astype(int)
  both, each = present.T @ present, present.sum(axis=0)
  pairs = []
  # That these are as many as the classes is checked where they are evaluated.
  count = min(len(each), len(classes))
  for a, b in itertools.combinations(range(count), 2):
    either = each[a] + each[b] - both[a, b]
    if both[a, b] > 1 and both[a, b] >= _TOGETHER * either:
      pairs.append(
        f'{classes[a]} and {classes[b]} ({both[a, b]} of the {either} training '
        'videos with either have both)'
      )
  if not pairs:
    return ''
  return (
    f'classes that nearly always come together: {errors.few(pairs)}; '
    f'{_ENOUGH} action clicks on each, in videos that have both, tell which is '
    'which'
  )
