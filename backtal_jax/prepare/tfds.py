"""The command `prepare tfds`: a root's npz files as array_record files."""

import argparse

from backtal_jax.data import sources
from backtal_jax.prepare import run_config


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  run_config.add_options(parser)
  parser.add_argument('--output', help='another data root')


def run(folder: str, config: str, output: str | None) -> None:
  """Convert the splits of a config."""
  from backtal_jax.data import builder  # TFDS takes seconds to import

  _, splits, shape = run_config.read(config)
  builder.prepare(
    output or folder,
    {s: sources.NpzSource(f'{folder}/{s}', shape) for s in splits},
  )
