"""Batches of a plan, as a training step takes them."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from backtal_jax.data import pipeline, sources
from backtal_jax.run import resident, sharding

# What a step takes of a batch, besides the targets.
KEYS = ('feature', 'label', 'click', 'mask', 'video_index')


def batches(
  source: sources.Videos,
  mesh: jax.sharding.Mesh,
  clicks: sources.Labeller | None,
  dtype: str | None,
  plan: np.ndarray,
  targets: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[tuple[dict[str, jax.Array], pipeline.Batch]]:
  """Yield the batches of a plan on the devices of a mesh, and on this host.

  Args:
    source: Videos.
    mesh: Devices.
    clicks: Label the snippets; None: as the source's own files do.
    dtype: In which all features wait on the devices; None: on the host.
    plan: [steps, B, 2], see pipeline.train_plan.
    targets: Labels and weights [N, T] of the snippets of all videos, which
      come along as snippet_label and snippet_weight.
  """
  keys = KEYS
  complete = lambda batch: batch
  if dtype:
    source, complete = resident.load(source, mesh, dtype)
  loaded = pipeline.batches(source, sharding.local_columns(plan), clicks)
  if targets is not None:
    keys += 'snippet_label', 'snippet_weight'
    label, weight = targets

    def add(batch):
      # Rows that fill the batch are masked, whatever they hold.
      i = batch['video_index']
      return batch | {'snippet_label': label[i], 'snippet_weight': weight[i]}

    loaded = map(add, loaded)
  for on_device, batch in sharding.prefetch(loaded, mesh, keys):
    yield complete(on_device), batch


def named(
  source: sources.Videos,
  names: Sequence[str],
  clicks: sources.Labeller | None,
  plan: np.ndarray,
) -> Iterator[pipeline.Batch]:
  """Yield this host's batches of a plan, with the `name` of every video."""
  by_index = np.array(names, object)
  for batch in pipeline.batches(source, sharding.local_columns(plan), clicks):
    yield batch | {'name': by_index[batch['video_index']]}
