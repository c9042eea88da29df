"""A split of a data root: opened, and held against the annotations."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotations, clicks, demo, sources


def open(
  root: epath.PathLike,
  split: str,
  *,
  source: str,
  num_snippets: int,
  feature_dim: int,
  num_classes: int,
  generate: bool = False,
) -> Sequence[sources.Example]:
  """Open a split of a data root; `source` is that of config.data.

  With `generate` the root is the embedded set's, which is made where it is
  missing.

  Returns:
    A source of examples, see `sources`.
  """
  root = files.path(root)
  if generate and not (root / 'ground_truth.json').exists():
    demo.prepare(root)
  shape = (num_snippets, feature_dim, num_classes)
  if source == 'npz':
    return sources.NpzSource(root / split, shape)
  from backtal_jax.data import builder  # TFDS takes seconds to import

  return builder.TfdsSource(root, split, shape)


def check_labels(source: Any, ground_truth: annotations.Annotations) -> None:
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
  source: Any,
  paths: str,
  ground_truth: annotations.Annotations,
  root: epath.PathLike,
  *,
  annotator: str,
  seed: int,
  num_snippets: int,
) -> tuple[Callable[..., np.ndarray] | None, str]:
  """Return what labels snippets, and a line on whom the clicks reach.

  Args:
    source: Source of the training videos.
    paths: Click files, a comma between them; '' stands for the labels in the
      source's own files.
    ground_truth: Annotations of the videos.
    root: Where files are looked up that are not in the current folder.
    annotator, seed, num_snippets: See clicks.labeller.

  Returns:
    (video, epoch) -> [T] labels, None without click files; and the line.

  Raises:
    errors.InputError: The clicks reach no training video.
  """
  labelled = np.flatnonzero(source.labels().any(axis=1))
  if not paths:
    counts = np.array(source.num_clicks())[labelled].tolist()
    reached = sum(count > 0 for count in counts)
    line = clicks.summary(sum(counts), reached, len(counts), 'in their files')
    return None, line
  names = source.video_names()
  found, _ = clicks.read(clicks.find(paths, root), ground_truth)
  line = clicks.coverage(found, [names[i] for i in labelled], annotator)
  label = clicks.labeller(
    found, ground_truth, annotator, seed=seed, num_snippets=num_snippets
  )
  return label, line
