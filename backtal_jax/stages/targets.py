"""Labels of snippets, made of named segments, for training again."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backtal_jax import IGNORED
from backtal_jax.stages import proposals

# A snippet with less foreground than this is background.
_BACKGROUND = 0.1


class Targets(NamedTuple):
  """Labels of the snippets of N videos."""

  label: np.ndarray  # [N, T] int32: a class, background C, IGNORED for none
  weight: np.ndarray  # [N, T] float32


def make(
  videos: Sequence[proposals.Observed],
  segments: proposals.Segments,
  names: np.ndarray,
) -> Targets:
  """Label the snippets of training videos by their named segments.

  Of each video all segments weigh 1 together, each the same, and so does all
  background: snippets with hardly any foreground, segments named so and
  believed clicks. What touches a segment is neither, unless it is clicked.

  There are N videos of T snippets; the names are [S] int, background C.
  """
  shape = len(videos), len(videos[0].click)
  label = np.full(shape, IGNORED, np.int32)
  weight = np.zeros(shape, np.float32)
  for i, video in enumerate(videos):
    if not video.label.any():
      continue
    background = len(video.label)
    own = segments.video == i
    kept = own & (names != background)
    share = proposals.probabilities(video)[:, background]
    clicked = proposals.believed(video)
    empty = (1 - share < _BACKGROUND) | clicked
    for start, end in segments.run[own & ~kept]:
      empty[start:end] = True
    for start, end in segments.run[kept]:
      near = slice(max(0, start - 1), end + 1)
      empty[near] &= clicked[near]
    label[i, empty] = background
    weight[i, empty] = 1 / max(1, empty.sum())
    for (start, end), name in zip(segments.run[kept], names[kept], strict=True):
      label[i, start:end] = name
      weight[i, start:end] = 1 / kept.sum() / (end - start)
  return Targets(label, weight)
