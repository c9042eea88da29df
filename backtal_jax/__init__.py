"""BackTAL: background-click supervision for temporal action localization.

The letters of every shape in this package:

  B  videos of a batch
  T  snippets of a video
  D  feature channels (RGB first, then flow)
  H  hidden channels
  E  embedding channels
  C  action classes; index C is the background
  C1 C + 1, the background included
  K  the largest snippets that make a video score
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epath

if TYPE_CHECKING:
  import ml_collections

  from backtal_jax import predict

__version__ = '0.2.0'

# The snippet label of a snippet that nobody clicked.
IGNORED = -100


def load(
  checkpoint: epath.PathLike,
  *,
  config: ml_collections.ConfigDict | None = None,
  classes: Sequence[str] | None = None,
  **weights: str,
) -> predict.Model:
  """Load a checkpoint to predict with, see `predict.load`."""
  from backtal_jax import predict  # JAX only when it is needed

  return predict.load(checkpoint, config=config, classes=classes, **weights)
