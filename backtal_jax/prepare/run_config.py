"""The config file that `prepare check` and `prepare tfds` are given."""

import argparse
import runpy

import ml_collections

from backtal_jax import errors


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the data root and the option of the config."""
  parser.add_argument('folder', help='the data root')
  parser.add_argument('--config', required=True, help='of the runs')


def read(
  path: str,
) -> tuple[ml_collections.ConfigDict, tuple[str, str], tuple[int, int, int]]:
  """Return (config.data, splits, (T, D, C)) of a config file[:recipe].

  Raises:
    errors.InputError: There is none, or it raises something.
  """
  path, *recipe = path.split(':', 1)
  try:
    config = runpy.run_path(path)['get_config'](*recipe)
    data, model = config.data, config.model
    shape = data.num_snippets, model.feature_dim, model.num_classes
    return data, (data.train_split, data.eval_split), shape
  except Exception as e:  # it runs any code
    raise errors.InputError(f'{path}: no config file: {e!r}') from e
