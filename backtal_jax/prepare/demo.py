"""The command `prepare demo`: the embedded data set."""

import argparse

from etils import epath

from backtal_jax import command_line, files
from backtal_jax.data import demo


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  add('--output', type=files.path, required=True, help='the data root')
  add('--seed', type=command_line.seed, default=0)


def run(output: epath.Path, seed: int) -> None:
  """Write the data set."""
  demo.prepare(output, seed)
