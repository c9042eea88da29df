"""The embedded data set: small videos that show what clicks are for.

Every class has an action and a *context*: a look of its own that fills much of
the class's videos outside the action (the pool around the dive). The context
comes with the video label as reliably as the action does, so video labels
alone cannot tell the two apart; a click on a background moment can.
"""

import numpy as np
from etils import epath

from backtal_jax import IGNORED, files
from backtal_jax.data import annotations, arrays, sources

CLASSES = ('dive', 'jump', 'throw', 'swing', 'serve')
NUM_SNIPPETS = 100
STREAM_DIM = 16
FPS = 10.0
_DURATION = 100.0  # seconds: a snippet a second
_SPLITS = {'train': 160, 'test': 60}


def prepare(output: epath.Path, seed: int = 0) -> None:
  """Write OUTPUT/{train,test}/*.npz and, last, OUTPUT/ground_truth.json."""
  rng = np.random.default_rng(seed)
  size = (3 * len(CLASSES), 2 * STREAM_DIM)
  # Unit looks of every class's action and context, and of plain scenery.
  looks = rng.normal(size=size) / np.sqrt(STREAM_DIM)
  videos = {}
  for split, count in _SPLITS.items():
    for i in range(count):
      name = f'{split}_{i:03d}'
      label = i % len(CLASSES)
      action, context = _sample_times(rng)
      _write(output / split / f'{name}.npz', name, rng, looks, label, action,
             context, clicks=split == 'train')  # fmt: skip
      segments = tuple(
        annotations.Segment(float(start), float(end), CLASSES[label])
        for start, end in arrays.runs(action)
      )
      videos[name] = annotations.AnnotatedVideo(
        name, split, _DURATION, FPS, segments
      )
  truth = annotations.Annotations(videos, CLASSES)
  files.write_json(output / 'ground_truth.json', truth.as_json())


def _sample_times(rng):
  """Sample which snippets are action and which are context."""
  action = np.zeros(NUM_SNIPPETS, bool)
  context = np.zeros(NUM_SNIPPETS, bool)
  part = NUM_SNIPPETS // 4
  for k in rng.permutation(4)[: rng.integers(2, 4)]:
    length = rng.integers(5, 11)
    start = k * part + rng.integers(2, part - length - 1)
    action[start : start + length] = True
    # The context surrounds its action, as the pool does the dive.
    before, after = rng.integers(3, 7, size=2)
    context[max(0, start - before) : start + length + after] = True
  return action, context & ~action


def _write(path, name, rng, looks, label, action, context, *, clicks):
  """Sample features and clicks of one video and write it."""
  num_classes = len(CLASSES)
  feature = rng.normal(size=(NUM_SNIPPETS, looks.shape[1])) * 0.2
  # Scenery that has nothing to do with the class.
  feature += looks[2 * num_classes + rng.integers(num_classes)] * 0.5
  strength = rng.uniform(0.4, 1.6, size=(NUM_SNIPPETS, 1))
  feature += strength * np.where(action[:, None], looks[label], 0)
  feature += strength * np.where(
    context[:, None], looks[num_classes + label], 0
  )
  click = np.full(NUM_SNIPPETS, IGNORED)
  for start, end in arrays.runs(~action):
    click[rng.integers(start, end)] = num_classes
  sources.write_video(
    path,
    feat_spa=feature.T[:STREAM_DIM],
    feat_tem=feature.T[STREAM_DIM:],
    cls_label=np.eye(num_classes)[label],
    vid_name=name,
    frame_num=int(_DURATION * FPS),
    fps=FPS,
    duration=_DURATION,
    point_label=click if clicks else None,
  )
