"""The command `prepare convert-clicks`: click files of one tool for another."""

import argparse

from etils import epath

from backtal_jax import files
from backtal_jax.data import annotations
from backtal_jax.data import clicks as click_files
from backtal_jax.data.tools import elan, via
from backtal_jax.prepare import options


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  options.add_click_files(parser)
  options.add_suffix(parser)
  told = 'a .csv, .json (VIA 3) or a folder (ELAN)'
  parser.add_argument('--output', type=files.path, required=True, help=told)


def run(
  clicks: list[str],
  output: epath.Path,
  ground_truth: epath.Path | None,
  suffix: str | None,
  video_list: epath.Path | None,
  fps: float | None,
  intervals: str,
) -> None:
  """Read click files, and write their clicks for the tool of the output."""
  files.require_ending(output, '.csv', '.json')
  ending = output.suffix.lower()
  suffix = options.suffix_of(output, suffix, ending != '.csv')
  truth, times = annotations.read_known(ground_truth, video_list)
  paths = map(files.path, clicks)
  found, _ = click_files.read(
    paths, truth, fps=fps, intervals=intervals, times=times
  )
  first_pictures = {name: told.first_picture for name, told in times.items()}
  if ending == '.csv':
    annotations.write_clicks(output, found)
  elif ending == '.json':
    via.write(output, found, suffix, first_pictures)
  else:
    elan.write(output, found, suffix, first_pictures)
  print(f'{output}: {len(found)} clicks')
