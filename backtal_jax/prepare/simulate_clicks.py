"""The command `prepare simulate-clicks`: clicks sampled from ground truth.

All times are seconds; the annotator's name is 'simulated'.
"""

import argparse
import functools

import numpy as np
from etils import epath

from backtal_jax import command_line, errors, files
from backtal_jax.data import annotations
from backtal_jax.prepare import click_stats


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  add('--ground_truth', type=files.path, required=True, help='of any format')
  add('--subset', required=True, help='whose videos')
  add('--output', type=files.path, required=True, help='the click file')
  add('--seed', type=command_line.at_least(0), default=0)
  share = functools.partial(add, type=float, metavar='SHARE')
  share('--gap_share', help='clicked; by default 1')
  share('--wrong_share', help='in actions')
  seconds = functools.partial(add, type=float, metavar='SECONDS')
  seconds('--margin', help='kept from actions')
  seconds('--min_gap', help='shorter gaps get none')
  add('--actions', action='store_true',
      help='click each action, no background')  # fmt: skip


def run(
  ground_truth: epath.Path,
  subset: str,
  output: epath.Path,
  actions: bool,
  seed: int,
  **options: float | None,
) -> None:
  """Simulate and write clicks; `options` are those of the background."""
  files.require_ending(output, '.csv')
  truth = annotations.read_ground_truth(ground_truth)
  given = {k: value for k, value in options.items() if value is not None}
  if actions and given:
    raise errors.InputError(
      f'--{min(given)} is of background, not of --actions'
    )
  if actions:
    found = simulate_actions(truth, subset, seed=seed)
  else:
    found = simulate_background(truth, subset, seed=seed, **given)
  annotations.write_clicks(output, found)
  videos = len({click.video for click in found})
  print(f'{output}: {len(found)} clicks on {videos} videos')


def simulate_background(
  ground_truth: annotations.Annotations,
  subset: str,
  *,
  seed: int,
  gap_share: float | int = 1.0,
  margin: float | int = 0.0,
  wrong_share: float | int = 0.0,
  min_gap: float | int = 0.0,
) -> list[annotations.Click]:
  """Click background as an annotator would, once in a gap.

  Of one seed, the gaps clicked at a smaller share are among those clicked at
  a larger one, at the same times.

  Args:
    ground_truth, subset: Whose videos are clicked.
    seed: Seed of everything random.
    gap_share: Share of the gaps that get a click, in whole gaps.
    margin: What a click keeps from an action at least; gaps without room for
      that do not count.
    wrong_share: Share of clicks that are moved into an action of their video.
    min_gap: Gaps shorter than this do not count.

  Returns:
    Clicks by video name and time.

  Raises:
    errors.InputError: A share or a time is out of range, a video has no
      duration, or too few clicks are in videos with actions to be wrong.
  """
  shares = {'gap_share': gap_share, 'wrong_share': wrong_share}
  for field, value in (shares | {'margin': margin, 'min_gap': min_gap}).items():
    highest = 1 if field in shares else np.inf
    if not 0 <= value <= highest:
      raise errors.InputError(
        f'{field} is {value}, expected a number of 0 to {highest}'
      )
  rng = np.random.default_rng(seed)
  videos = sorted(ground_truth.subset(subset).items())
  rooms = [(v, r) for _, v in videos for r in _rooms(v, margin, min_gap)]
  places = rng.random((len(rooms), 2)).tolist()
  order = rng.permutation(len(rooms))[: round(gap_share * len(rooms))].tolist()
  num_wrong = round(wrong_share * len(order))
  with_actions = [i for i in order if click_stats.actions(rooms[i][0])]
  wrong = set(with_actions[:num_wrong])
  if len(wrong) < num_wrong:
    raise errors.InputError(
      f'wrong_share is {wrong_share}, {num_wrong} clicks, but only '
      f'{len(wrong)} are in videos with actions'
    )
  return _simulated(_background(rooms[i], places[i], i in wrong) for i in order)


def simulate_actions(
  ground_truth: annotations.Annotations, subset: str, *, seed: int
) -> list[annotations.Click]:
  """Click every instance of an action once, anywhere in it.

  Instances without length inside their video get none.

  Returns:
    Clicks on the videos of the subset, by video name and time.
  """
  rng = np.random.default_rng(seed)
  found = []
  for name, video in sorted(ground_truth.subset(subset).items()):
    limit = np.inf if video.duration is None else video.duration
    for segment in video.segments:
      place = rng.random()
      bounds = max(segment.start, 0.0), min(segment.end, limit)
      if bounds[0] < bounds[1]:
        found.append((name, _place([bounds], place), segment.label))
  return _simulated(found)


def _simulated(found):
  return [annotations.Click(*click, 'simulated') for click in sorted(found)]


def _rooms(video, margin, min_gap):
  """Return where each gap may be clicked; ends of the video need no margin."""
  rooms = []
  for start, end in click_stats.gaps(video):
    low = start + margin * (start > 0)
    high = end - margin * (end < video.duration)
    if end - start >= min_gap and np.nextafter(low, np.inf) < high:
      rooms.append((low, high))
  return rooms


def _background(room, places, is_wrong):
  """Return (video name, time, label) of one click."""
  (video, gap), (right_place, wrong_place) = room, places
  if is_wrong:
    time = _place(click_stats.actions(video), wrong_place)
  else:
    # Never on a boundary: there it would count as inside the action.
    lowest, highest = np.nextafter(gap, gap[::-1]).tolist()
    time = min(max(_place([gap], right_place), lowest), highest)
  return video.name, time, annotations.BACKGROUND


def _place(bounds, share):
  """Return the time at a share 0…1 of [(start, end)], set end to end."""
  left = share * sum(end - start for start, end in bounds)
  for start, end in bounds:
    if left <= end - start:
      return min(start + left, end)
    left -= end - start
  return bounds[-1][1]  # Rounding only.
