"""The command `prepare click-stats`: how clicks and ground truth agree.

Whether a click lies in an action or in a gap is asked with both ends
included: annotators worked on a grid of half seconds, and this is how the
numbers of method.md section 8 come out. A click exactly on a boundary thus
counts as inside the action and as hitting the gap.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from backtal_jax import errors, files
from backtal_jax.annotate import history
from backtal_jax.data import annotations
from backtal_jax.prepare import options


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  options.add_click_files(parser, truth_required=True)
  parser.add_argument(
    '--output', type=files.path, required=True, help='the JSON file'
  )


def actions(video: annotations.AnnotatedVideo) -> list[tuple[float, float]]:
  """Return the merged (start, end) in seconds of a video's actions.

  What lies outside the video is cut off, what has no length is left out.
  """
  merged = []
  end_of_video = np.inf if video.duration is None else video.duration
  for segment in sorted(video.segments, key=lambda s: s.start):
    start, end = max(segment.start, 0.0), min(segment.end, end_of_video)
    if end <= start:
      continue
    if merged and start <= merged[-1][1]:
      merged[-1] = merged[-1][0], max(merged[-1][1], end)
    else:
      merged.append((start, end))
  return merged


def gaps(video: annotations.AnnotatedVideo) -> list[tuple[float, float]]:
  """Return the (start, end) in seconds of what is left beside the actions."""
  if video.duration is None:
    raise errors.InputError(
      f'video {video.name!r} has no duration in the ground truth, needed to '
      'find its background'
    )
  bounds = [0.0, *(x for pair in actions(video) for x in pair), video.duration]
  pairs = zip(bounds[::2], bounds[1::2], strict=True)
  return [(start, end) for start, end in pairs if end > start]


def count(
  ground_truth: annotations.Annotations,
  clicks_by_file: dict[str, list[annotations.Click]],
) -> dict[str, dict[str, int]]:
  """Count how background clicks, by video names of ground truth, agree with it.

  Returns:
    {file: {'clicks', 'videos' (with a click), 'inside_action' (clicks inside
    any action), 'gaps' (of all videos of every subset that any file clicked
    in), 'gaps_hit' (those that hold a background click)}}.
  """
  videos = ground_truth.videos
  clicked = {c.video for found in clicks_by_file.values() for c in found}
  subsets = {videos[name].subset for name in clicked}
  gaps_of = {k: gaps(v) for k, v in videos.items() if v.subset in subsets}
  actions_of = {name: actions(videos[name]) for name in clicked}
  holds = lambda span, click: span[0] <= click.time <= span[1]
  result = {}
  for file, clicks in clicks_by_file.items():
    inside = [any(holds(x, c) for x in actions_of[c.video]) for c in clicks]
    hit = {
      (c.video, gap)
      for c in clicks
      for gap in gaps_of[c.video]
      if holds(gap, c) and c.is_background
    }
    result[file] = {
      'clicks': len(clicks),
      'videos': len({c.video for c in clicks}),
      'inside_action': sum(inside),
      'gaps': sum(map(len, gaps_of.values())),
      'gaps_hit': len(hit),
    }
  return result


def show(counts: dict[str, dict[str, int]]) -> None:
  """Print what `count` returns as a table, with shares."""
  width = max(map(len, ('file', *counts)))
  row = f'{{:{width}}} {{:>7}} {{:>7}} {{:>8}} {{:>17}} {{:>23}}'.format
  heads = 'clicks', 'videos', 'a video', 'inside an action', 'gaps hit'
  print(row('file', *heads))
  for name, n in counts.items():
    inside, hit = n['inside_action'], n['gaps_hit']
    cells = (
      f'{n["clicks"] / max(n["videos"], 1):.2f}',
      f'{inside} ({inside / max(n["clicks"], 1):.1%})',
      f'{hit} of {n["gaps"]} ({hit / max(n["gaps"], 1):.1%})',
    )
    print(row(name, n['clicks'], n['videos'], *cells))


def show_rates(rates: dict[str, dict[str, dict[str, float]]]) -> None:
  """Print {file: what history.rates returns}: how long clicks took."""
  for file, of_file in rates.items():
    for who, n in of_file.items():
      each = f'{n["seconds"] / n["clicks"]:.1f}' if n['clicks'] else '–'
      print(
        f'{file}: {who} made {n["clicks"]} clicks in {n["seconds"] / 60:.1f} '
        f'minutes, {each} s a click, '
        f'{60 * n["clicks"] / n["seconds"]:.1f} clicks a minute'
      )


def run(clicks: Sequence[str], output: epath.Path, **known: Any) -> None:
  """Count, print a table and write JSON, whose keys are the click files.

  The JSON holds what `count` returns, and of a file of the click page also
  `seconds`, {annotator: {'clicks' made there, 'seconds' spent}}.
  """
  files.require_ending(output, '.json')
  truth, _, read = options.read_click_files(clicks, **known)
  assert truth is not None  # the option is required
  counts = count(truth, read)
  show(counts)
  rates = {name: history.rates(files.path(name)) for name in counts}
  show_rates(rates)
  told = {k: {'seconds': found} if found else {} for k, found in rates.items()}
  files.write_json(output, {k: counts[k] | told[k] for k in counts}, indent=2)
