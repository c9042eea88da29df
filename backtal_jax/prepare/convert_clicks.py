"""The command `prepare convert-clicks`: click files of one tool for another."""

import argparse

from backtal_jax import files
from backtal_jax.data import annotation_formats, annotations
from backtal_jax.data import clicks as click_files
from backtal_jax.data.tools import elan, via
from backtal_jax.prepare import click_stats


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  click_stats.add_click_files(parser)
  add('--output', required=True,
      help='a .csv, .json (VIA 3) or a folder (ELAN)')  # fmt: skip
  add('--ground_truth', help='to check with; of any format')
  add('--suffix', default='.mp4', help='of the videos')


def run(
  clicks: list[str],
  output: str,
  ground_truth: str | None,
  suffix: str,
  video_list: str | None,
  fps: float | None,
  intervals: str,
) -> None:
  """Read click files, and write their clicks for the tool of the output."""
  truth, times = None, {}
  if ground_truth:
    truth = annotations.read_ground_truth(ground_truth, video_list=video_list)
    times = {name: video.times for name, video in truth.videos.items()}
  elif video_list:
    times = annotation_formats.read_video_list(files.path(video_list))
  found, _ = click_files.read(
    clicks, truth, fps=fps, intervals=intervals, times=times
  )
  path = files.path(output)
  first_pictures = {name: told.first_picture for name, told in times.items()}
  if output.endswith('.csv'):
    annotations.write_clicks(path, found)
  elif output.endswith('.json'):
    via.write(path, found, suffix, first_pictures)
  else:
    elan.write(path, found, suffix, first_pictures)
  print(f'{output}: {len(found)} clicks')
