"""The command `prepare tfds`: a root's npz files as array_record files."""

import argparse

from etils import epath

from backtal_jax import files
from backtal_jax.data import sources
from backtal_jax.prepare import run_config


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  run_config.add_options(parser)
  parser.add_argument('--output', type=files.path, help='another data root')


def run(folder: epath.Path, config: str, output: epath.Path | None) -> None:
  """Convert the splits of a config."""
  from backtal_jax.data import builder  # TFDS takes seconds to import

  given = run_config.read(config)
  builder.prepare(
    output or folder,
    {s: sources.NpzSource(folder / s, given.shape) for s in given.splits},
  )
