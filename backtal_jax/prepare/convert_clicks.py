"""The command `prepare convert-clicks`: click files of one tool for another."""

import argparse

from etils import epath

from backtal_jax import files
from backtal_jax.data import annotations
from backtal_jax.data import clicks as click_files
from backtal_jax.data.tools import elan, via
from backtal_jax.prepare import click_stats


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  click_stats.add_click_files(parser)
  add('--output', type=files.path, required=True,
      help='a .csv, .json (VIA 3) or a folder (ELAN)')  # fmt: skip
  add('--ground_truth', type=files.path, help='to check with; of any format')
  add('--suffix', default='.mp4', help='of the videos')


def run(
  clicks: list[str],
  output: epath.Path,
  ground_truth: epath.Path | None,
  suffix: str,
  video_list: epath.Path | None,
  fps: float | None,
  intervals: str,
) -> None:
  """Read click files, and write their clicks for the tool of the output."""
  files.require_ending(output, '.csv', '.json')
  truth, times = annotations.read_known(ground_truth, video_list)
  paths = map(files.path, clicks)
  found, _ = click_files.read(
    paths, truth, fps=fps, intervals=intervals, times=times
  )
  first_pictures = {name: told.first_picture for name, told in times.items()}
  ending = output.suffix.lower()
  if ending == '.csv':
    annotations.write_clicks(output, found)
  elif ending == '.json':
    via.write(output, found, suffix, first_pictures)
  else:
    elan.write(output, found, suffix, first_pictures)
  print(f'{output}: {len(found)} clicks')
