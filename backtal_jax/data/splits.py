"""A split of a data root, opened by what a config says of it."""

from backtal_jax import files
from backtal_jax.data import sources
from backtal_jax.data.prepare import demo


def open(
  root,
  split: str,
  *,
  source: str,
  num_snippets: int,
  feature_dim: int,
  num_classes: int,
  generate: bool = False,
):
  """Open a split; the embedded set is made where it is missing.

  Args:
    root: Folder of the data.
    split: Name of the folder in it.
    source: 'npz' or 'tfds', see config.data.source.
    num_snippets: T.
    feature_dim: D.
    num_classes: C.
    generate: Whether the root is the embedded set's.

  Returns:
    A source of examples, see `sources`.
  """
  root = files.path(root)
  if generate and not (root / 'ground_truth.json').exists():
    demo.prepare(root)
  shape = {
    'num_snippets': num_snippets,
    'feature_dim': feature_dim,
    'num_classes': num_classes,
  }
  if source == 'tfds':
    from backtal_jax.data import builder  # TFDS takes seconds to import

    return builder.TfdsSource(root, split, **shape)
  return sources.NpzSource(root / split, **shape)
