"""The config file that `prepare check` and `prepare tfds` are given."""

import argparse
import runpy
from typing import NamedTuple

from backtal_jax import command_line, errors, files


class Config(NamedTuple):
  """What the commands ask of a config."""

  ground_truth: str
  clicks: str  # these three as in config.data
  annotator: str
  splits: tuple[str, ...]  # (train_split, eval_split), the latter if any
  shape: tuple[int, int, int]  # (T, D, C)


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the data root and the option of the config."""
  parser.add_argument('folder', type=files.path, help='the data root')
  parser.add_argument('--config', required=True, help='of the runs')


def read(path: str) -> Config:
  """Run a config file[:recipe].

  Raises:
    errors.InputError: There is none, or it raises something.
  """
  path, *recipe = path.split(':', 1)
  if not files.path(path).is_file():
    hint = command_line.COLON * bool(recipe)
    raise errors.InputError(f'--config: no such file: {path}{hint}')
  try:
    config = runpy.run_path(files.path(path))['get_config'](*recipe)
    data, model = config.data, config.model
    return Config(
      data.ground_truth,
      data.clicks,
      data.annotator,
      tuple(filter(None, (data.train_split, data.eval_split))),
      (data.num_snippets, model.feature_dim, model.num_classes),
    )
  except Exception as e:  # it runs any code
    raise errors.InputError(f'{path}: no config file: {e!r}') from e
