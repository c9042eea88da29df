"""The command `prepare convert-clicks`: click files of one tool for another."""

import argparse

from backtal_jax.data import annotations, click_tools
from backtal_jax.data import clicks as click_files
from backtal_jax.prepare import click_stats


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  click_stats.add_click_files(parser)
  add('--output', required=True,
      help='a .csv, .json (VIA 3) or a folder (ELAN)')  # fmt: skip
  add('--ground_truth', help='to check with; of any format')
  add('--fps', type=float, help='of clicks that are frames')
  add('--suffix', default='.mp4', help='of the videos')


def run(
  clicks: list[str],
  output: str,
  ground_truth: str | None,
  fps: float | None,
  suffix: str,
  intervals: str,
) -> None:
  """Read click files, and write their clicks for the tool of the output."""
  truth = annotations.read_ground_truth(ground_truth) if ground_truth else None
  found, _ = click_files.read(clicks, truth, fps=fps, intervals=intervals)
  if output.endswith('.csv'):
    annotations.write_clicks(output, found)
  elif output.endswith('.json'):
    click_tools.write_via(output, found, suffix)
  else:
    click_tools.write_elan(output, found, suffix)
  print(f'{output}: {len(found)} clicks')
