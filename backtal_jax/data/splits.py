"""A split of a data root: opened, and held against the annotations."""

import itertools
from collections.abc import Sequence

import numpy as np
from etils import epath

from backtal_jax import errors
from backtal_jax.data import annotations, clicks, demo, sources

# Jaccard index of two classes' videos from which they come together.
_TOGETHER = 0.8
# Action clicks a class, each in another video, that settle the names
# (docs/recipe.md).
_ENOUGH = 5


def open(
  root: epath.Path,
  split: str,
  *,
  source: str,
  num_snippets: int,
  feature_dim: int,
  num_classes: int,
  generate: bool = False,
) -> sources.Source:
  """Open a split of a data root; `source` is that of config.data.

  With `generate` the root is the embedded set's, which is made where it is
  missing.
  """
  if generate and not (root / 'ground_truth.json').exists():
    demo.prepare(root)
  shape = (num_snippets, feature_dim, num_classes)
  if source == 'npz':
    return sources.NpzSource(root / split, shape)
  from backtal_jax.data import builder  # TFDS takes seconds to import

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
  known, _ = annotations.match_names(names, videos)
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
) -> tuple[sources.Labeller | None, str]:
  """Return what labels snippets, and a line on whom the clicks reach.

  Args:
    source: Source of the videos.
    videos: Indices of those to train on.
    paths: Click files; none stands for the labels in the source's own files.
    ground_truth: Annotations of the videos.
    annotator, seed, num_snippets: See clicks.labeller.

  Returns:
    (video, epoch) -> [T] labels, None without click files; and the line.

  Raises:
    errors.InputError: The clicks reach no training video.
  """
  if not paths:
    counts = np.array(source.num_clicks())[videos].tolist()
    reached = sum(count > 0 for count in counts)
    line = clicks.summary(sum(counts), reached, len(counts), 'in their files')
    return None, line
  names = source.video_names()
  found, _ = clicks.read(paths, ground_truth)
  line = clicks.coverage(found, [names[i] for i in videos], annotator)
  label = clicks.labeller(
    found, ground_truth, annotator, seed=seed, num_snippets=num_snippets
  )
  return label, line


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
