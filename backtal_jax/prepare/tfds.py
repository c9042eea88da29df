"""The command `prepare tfds`: a root's npz files as array_record files."""

import argparse

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import sources
from backtal_jax.prepare import run_config


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  run_config.add_options(parser)
  parser.add_argument('--output', type=files.path, help='another data root')


def run(folder: epath.Path, config: str, output: epath.Path | None) -> None:
  """Convert the splits of a config."""
  errors.need('tensorflow_datasets', 'train', '`prepare tfds`')  # seconds
  from backtal_jax.data import builder

  output = output or folder
  files.require_ending(output)
  given = run_config.read(config)
  builder.prepare(
    output,
    {s: sources.NpzSource(folder / s, given.shape) for s in given.splits},
  )
