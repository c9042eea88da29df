"""The command `prepare demo`: the embedded data set."""

import argparse

from backtal_jax import command_line
from backtal_jax.data import demo


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  add('--output', required=True, help='the data root')
  add('--seed', type=command_line.seed, default=0)


def run(output: str, seed: int) -> None:
  """Write the data set."""
  demo.prepare(output, seed)
