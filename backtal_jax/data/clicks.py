"""Clicks: chosen by annotator, made snippet labels, counted.

Whether a click lies in an action or in a gap is asked with both ends
included: annotators worked on a grid of half seconds, and this is how the
numbers of method.md section 8 come out. A click exactly on a boundary thus
counts as inside the action and as hitting the gap.
"""

import collections
import zlib

import numpy as np

from backtal_jax import IGNORED, errors, files
from backtal_jax.data import annotations

ALL = 'all'  # Every annotator's clicks together.
RANDOM = 'random'  # One annotator drawn for each video and epoch.


def snippet_labels(clicks, duration, num_snippets, classes) -> np.ndarray:
  """Label the snippets that were clicked (method.md section 8).

  Args:
    clicks: of one video.
    duration: of the video, seconds.
    num_snippets: T.
    classes: C names in the order of their indices.

  Returns:
    [T] int32: C for background, the class index for an action, IGNORED
    elsewhere. Of several clicks in a snippet an action goes before
    background, and a later one before an earlier.

  Raises:
    errors.InputError: no duration, a click beyond it, an unknown class.
  """
  labels = np.full(num_snippets, IGNORED, np.int32)
  index = {name: i for i, name in enumerate(classes)}
  index[annotations.BACKGROUND] = background = len(classes)
  for click in clicks:
    if not duration or not 0 <= click.time <= duration:
      raise errors.InputError(
        f'a click of video {click.video!r} is at {click.time:g} s, its '
        f'duration is {duration} s'
      )
    if click.label not in index:
      raise errors.InputError(
        f'a click of video {click.video!r} has class {click.label!r}, expected '
        f'{annotations.BACKGROUND!r} or one of the {len(classes)} classes'
      )
  # The last one written stays.
  order = lambda c: (index[c.label] != background, c.time, index[c.label])
  for click in sorted(clicks, key=order):
    t = min(num_snippets - 1, int(click.time / duration * num_snippets))
    labels[t] = index[click.label]
  return labels


def by_video(clicks, annotator=ALL) -> dict[str, list]:
  """Group clicks by video; of an annotator's name, only that one's.

  Args:
    clicks: of any videos.
    annotator: ALL, RANDOM (both keep everyone's clicks) or a name.

  Raises:
    errors.InputError: nobody of that name clicked.
  """
  names = sorted({click.annotator for click in clicks})
  everyone = annotator in (ALL, RANDOM)
  if not everyone and annotator not in names:
    raise errors.InputError(
      f'annotator {annotator!r} has no clicks, expected {ALL}, {RANDOM} or '
      f'one of {", ".join(names)}'
    )
  grouped = collections.defaultdict(list)
  for click in clicks:
    if everyone or click.annotator == annotator:
      grouped[click.video].append(click)
  return dict(grouped)


def draw(clicks, *, seed, epoch) -> list:
  """Draw one annotator of a video's and return the clicks of that one.

  A pure function of the seed, the epoch, the name of the video and who
  clicked there: the same on every host and after resuming.

  Args:
    clicks: of one video.
    seed: not negative.
    epoch: from 0.
  """
  names = sorted({click.annotator for click in clicks})
  if len(names) < 2:
    return list(clicks)
  key = zlib.crc32(clicks[0].video.encode())
  (bits,) = np.random.SeedSequence([seed, epoch, key]).generate_state(1)
  return [c for c in clicks if c.annotator == names[int(bits) % len(names)]]


def labeller(clicks, ground_truth, annotator, *, seed, num_snippets):
  """Return `(video, epoch) -> [T] labels` for the input pipeline.

  Args:
    clicks: of all videos.
    ground_truth: Annotations with the classes and durations.
    annotator: ALL, RANDOM or a name.
    seed: of RANDOM.
    num_snippets: T.

  Returns:
    The function; its video has `name` and `duration` (seconds), which
    stands in where the ground truth does not tell.

  Raises:
    errors.InputError: nobody of that name clicked.
  """
  grouped = by_video(clicks, annotator)

  def labels(video, epoch):
    name = annotations.match_name(video.name, grouped)
    chosen = grouped.get(name, [])
    if annotator == RANDOM:
      chosen = draw(chosen, seed=seed, epoch=epoch)
    known = ground_truth.videos.get(name)
    return snippet_labels(
      chosen,
      (known and known.duration) or video.duration,
      num_snippets,
      ground_truth.classes,
    )

  return labels


def actions(video) -> list[tuple[float, float]]:
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


def gaps(video) -> list[tuple[float, float]]:
  """Return the (start, end) in seconds of what is left beside the actions."""
  if video.duration is None:
    raise errors.InputError(
      f'video {video.name!r} has no duration in the ground truth, needed to '
      'find its background'
    )
  bounds = [0.0, *(x for pair in actions(video) for x in pair), video.duration]
  pairs = zip(bounds[::2], bounds[1::2], strict=True)
  return [(start, end) for start, end in pairs if end > start]


def statistics(ground_truth, clicks_by_file, subset='') -> dict:
  """Count how background clicks and ground truth agree.

  Args:
    ground_truth: Annotations.
    clicks_by_file: {file: [Click]} with video names of the ground truth.
    subset: whose videos count; else every subset that any file clicked in.

  Returns:
    {file: {'clicks', 'videos' (with a click), 'inside_action' (clicks inside
    any action), 'gaps' (of all videos of the subset), 'gaps_hit' (those
    that hold a background click)}}.
  """
  if subset:
    videos = ground_truth.subset(subset)
  else:
    clicked = {c.video for found in clicks_by_file.values() for c in found}
    subsets = {ground_truth.videos[name].subset for name in clicked}
    videos = {
      k: v for k, v in ground_truth.videos.items() if v.subset in subsets
    }
  open_gaps = {name: gaps(video) for name, video in videos.items()}
  closed = {name: actions(video) for name, video in videos.items()}
  result = {}
  for file, clicks in clicks_by_file.items():
    clicks = [c for c in clicks if c.video in videos]
    hit = {
      (c.video, start)
      for c in clicks
      for start, end in open_gaps[c.video]
      if start <= c.time <= end and c.label == annotations.BACKGROUND
    }
    result[file] = {
      'clicks': len(clicks),
      'videos': len({c.video for c in clicks}),
      'inside_action': sum(
        any(start <= c.time <= end for start, end in closed[c.video])
        for c in clicks
      ),
      'gaps': sum(map(len, open_gaps.values())),
      'gaps_hit': len(hit),
    }
  return result


def print_statistics(counts):
  """Print what `statistics` returns as a table, with shares."""
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


def write_statistics(ground_truth, clicks, output, lenient=False) -> dict:
  """Do what `prepare click-stats` does: count, print a table, write JSON.

  Args:
    ground_truth: path.
    clicks: paths of click files, one an annotator.
    output: path of the JSON; its keys are the paths as given.
    lenient: leave out click lines that are wrong, and list them on stderr.

  Returns:
    What `statistics` returns.
  """
  truth = annotations.read_ground_truth(ground_truth)
  found, problems = {}, []
  for path in clicks:
    found[str(path)], complaints = annotations.read_clicks(
      path, truth, lenient=True
    )
    problems += complaints
  errors.tell(problems, lenient)
  counts = statistics(truth, found)
  print_statistics(counts)
  files.write_json(output, counts, indent=2)
  return counts
