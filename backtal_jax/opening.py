"""What a config names, opened: its splits, its ground truth, its clicks.

Here, in `train`, `evaluate` and `predict` a config is taken apart; what lies
below takes values.
"""

from typing import NamedTuple

import ml_collections
import numpy as np
from etils import epath

from backtal_jax import files
from backtal_jax.data import annotations, demo, sources, splits


class Videos(NamedTuple):
  """What is trained on, and what is known of it."""

  source: sources.Source
  labelled: np.ndarray  # indices of the videos with a label
  truth: annotations.Annotations
  evaluated: sources.Source | None  # where there is an evaluation split
  supervision: splits.Supervision
  lines: list[str]  # what is to be said of them


def source(
  config: ml_collections.ConfigDict, root: epath.Path, split: str
) -> sources.Source:
  """Open a split of a data root as config.data says.

  The embedded set is made where config.data.generate finds none.
  """
  data, model = config.data, config.model
  if data.generate and not (root / 'ground_truth.json').exists():
    demo.prepare(root)
  shape = data.num_snippets, model.feature_dim, model.num_classes
  return splits.open(data.source, root, split, shape)


def training(config: ml_collections.ConfigDict, root: epath.Path) -> Videos:
  """Open all that config.data names, in its root.

  Raises:
    errors.InputError: A split, its labels or the clicks cannot be used.
  """
  data = config.data
  trained, *evaluated = [
    source(config, root, split)
    for split in (data.train_split, data.eval_split)
    if split
  ]
  labelled = splits.labelled(trained, root / data.train_split)
  annotated = files.find(data.ground_truth, root)
  clicked = files.find_all(data.clicks, root)
  others = files.find_all(data.agreement_clicks, root)
  truth = annotations.read_ground_truth(annotated)
  splits.check_labels(trained, truth)
  together = splits.inseparable(trained.labels()[labelled], truth.classes)
  supervision = splits.make_clicks(
    trained, labelled, clicked, truth, annotator=data.annotator,
    seed=config.train.seed, num_snippets=data.num_snippets,
    aside=data.clicks_aside, others=others,
  )  # fmt: skip
  lines = [line for line in (supervision.line, together) if line]
  return Videos(
    trained, labelled, truth, evaluated[0] if evaluated else None, supervision,
    lines,
  )  # fmt: skip
