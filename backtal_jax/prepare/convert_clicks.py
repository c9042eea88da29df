"""The command `prepare convert-clicks`: click files of one tool for another."""

import argparse
from typing import Any

from etils import epath

from backtal_jax import files
from backtal_jax.data import annotations
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
  suffix: str | None,
  **known: Any,
) -> None:
  """Read click files, and write their clicks for the tool of the output."""
  files.require_ending(output, '.csv', '.json')
  ending = output.suffix.lower()
  suffix = options.suffix_of(output, suffix, ending != '.csv')
  _, times, read = options.read_click_files(clicks, **known)
  found = [click for own in read.values() for click in own]
  first_pictures = {name: told.first_picture for name, told in times.items()}
  if ending == '.csv':
    annotations.write_clicks(output, found)
  elif ending == '.json':
    via.write(output, found, suffix, first_pictures)
  else:
    elan.write(output, found, suffix, first_pictures)
  print(f'{output}: {len(found)} clicks')
