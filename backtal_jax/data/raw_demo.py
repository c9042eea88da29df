"""A made set as extractors give it: raw features, annotations and clicks.

Features have the statistics of I3D's (see `_sample`): they are not negative,
and most of each is common to all snippets. Windows overlap, so that a snippet
clicked near an action sees some of it. Every class has an action and, around
most of its actions, a context that comes with the label, too.
"""

from typing import NamedTuple

import numpy as np
from etils import epath

from backtal_jax import files
from backtal_jax.data import annotations

FPS = 25.0
WINDOW, STRIDE = 16, 4  # frames
_TEST_SHARE = 0.25
_COMPONENTS = 60


class Shape(NamedTuple):
  """What a made set looks like."""

  classes: int
  channels: int
  videos: int  # in both subsets
  seconds: tuple[float, float]  # of the shortest and of the longest video


def prepare(output: epath.Path, shape: Shape, seed: int = 0) -> None:
  """Write features/VIDEO.npy [T', D], clicks.csv and annotations.json."""
  rng = np.random.default_rng(seed)
  labels = [f'class_{i:02}' for i in range(shape.classes)]
  size = 2 * shape.classes, shape.channels
  looks = rng.normal(size=size)  # of every class's action, then context
  scale = _sample_scale(rng, shape.channels)
  videos, clicks = {}, []
  num_test = round(_TEST_SHARE * shape.videos)
  for i in range(shape.videos):
    name, label = f'video_{i:04}', i % shape.classes
    subset = 'validation' if i < num_test else 'training'
    duration = float(np.exp(rng.uniform(*np.log(shape.seconds))))
    # Whole frames, and a window at least.
    duration = max(round(duration * FPS), WINDOW + STRIDE) / FPS
    action = _sample_actions(rng, duration)
    context = [(a - _near(rng, a, b), b + _near(rng, a, b)) for a, b in action]
    seen = _shares(duration, action), _shares(duration, context)
    feature = _sample(rng, scale, looks[[label, shape.classes + label]], seen)
    with files.atomic(output / 'features' / f'{name}.npy') as f:
      np.save(f, feature)
    segments = tuple(
      annotations.Segment(a, b, labels[label]) for a, b in action
    )
    videos[name] = annotations.AnnotatedVideo(
      name, subset, duration, FPS, segments
    )
    if subset == 'training':
      ends = [0.0, *np.ravel(action), duration]
      clicks += [
        annotations.Click(
          name, float(rng.uniform(a, b)), annotations.BACKGROUND, 'made'
        )
        for a, b in zip(ends[::2], ends[1::2], strict=True)
        if b - a > 0.2
      ]
  annotations.write_clicks(output / 'clicks.csv', clicks)
  truth = annotations.Annotations(videos, tuple(labels))
  files.write_json(output / 'annotations.json', truth.as_json())


def _sample_actions(rng, duration):
  """Sample [(start, end)]: about 40 % of the video, more in a longer one."""
  length = min(0.4 * duration, 1.2 * (duration / 3) ** 0.4)
  count = max(1, round(0.4 * duration / length))
  part = duration / count
  lengths = length * rng.uniform(0.75, 1.25, count)
  lengths = np.minimum(lengths, 0.8 * part)
  starts = part * np.arange(count) + rng.uniform(0, part - lengths)
  return [*zip(starts.tolist(), (starts + lengths).tolist(), strict=True)]


def _near(rng, start, end):
  """Sample how far beyond an action its context goes, in seconds."""
  return rng.uniform(0.3, 1.0) * (end - start)


def _shares(duration, segments):
  """Return which share of each window [T'] segments fill, at most 1."""
  count = int((duration * FPS - WINDOW) / STRIDE) + 1
  start = np.arange(count)[:, None] * STRIDE / FPS
  a, b = np.array(segments).T
  inside = np.minimum(start + WINDOW / FPS, b) - np.maximum(start, a)
  return np.minimum(inside.clip(0).sum(axis=1) * FPS / WINDOW, 1)


def _sample_scale(rng, channels):
  """Sample channels: means [D], spreads next to 1 [D], scenery [60, D].

  Held against RGB features that `prepare video` made of 65 clips: mean 0.29,
  0.05 to 0.73 in nine of ten channels, spread 0.2 to 1.2 of the mean, largest
  3.7, 2 % zeros; what all snippets have in common is 0.9 of their length, and
  of the rest, each channel divided by its deviation, the first component holds
  26 %, eight 63 %, 32 87 %.
  """
  mean = np.minimum(0.24 * np.exp(0.75 * rng.normal(size=channels)), 0.9)
  spread = np.minimum(0.45 * np.exp(0.4 * rng.normal(size=channels)), 1)
  # Channels change together: the i-th component has 1 / i of the variance.
  strength = 1 / np.arange(1, _COMPONENTS + 1)
  strength = 0.9 * np.sqrt(strength / strength.sum())
  scenery = strength[:, None] * rng.normal(size=(_COMPONENTS, channels))
  return mean, spread, scenery


def _sample(rng, scale, looks, seen):
  """Sample the features of a video, float32 [T', D].

  A channel is the part that all snippets have in common and what differs: the
  scene, noise that overlapping windows share, and the looks [2, D] of action
  and context, where these are seen. Below 0 nothing is left.
  """
  mean, spread, scenery = scale
  action, context = seen
  context = np.maximum(context - action, 0)
  overlap = WINDOW // STRIDE
  noise = rng.normal(size=(len(action) + overlap - 1, len(mean)))
  noise = sum(noise[i : i + len(action)] for i in range(overlap)) / overlap
  strength, around = rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.5)
  x = rng.normal(size=len(scenery)) @ scenery + 0.4 * noise
  x += 0.3 * strength * action[:, None] * looks[0]
  x += 0.3 * around * context[:, None] * looks[1]
  return np.maximum(mean * (1 + spread * x), 0).astype(np.float32)
