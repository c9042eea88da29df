"""The command `prepare check`: what is in a data root, and what is wrong."""

import argparse
import collections
import sys
from concurrent import futures

import numpy as np
import tqdm
from etils import epath

from backtal_jax import IGNORED, errors, files
from backtal_jax.data import annotations, clicks, npz, sources, video_names
from backtal_jax.metrics import segments
from backtal_jax.prepare import run_config
from backtal_jax.video import decode, streams

_HEADS = ('split', 'videos', 'snippets', 'hours', 'no label', 'labels',
          'background clicks', 'action clicks', 'features')  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  run_config.add_options(parser)
  add = parser.add_argument
  add('--plot', metavar='VIDEO', help='draw one video')
  add('--output', type=files.path, help='the PNG of --plot')
  add('--videos', type=files.path, help='pictures for --plot')


def run(
  folder: epath.Path,
  config: str,
  plot: str | None,
  output: epath.Path | None,
  videos: epath.Path | None,
) -> None:
  """Check a data root, or draw one of its videos.

  Problems make the exit status 1.
  """
  given = run_config.read(config)
  if plot:
    output = output or files.path(f'{plot}.png')
    files.require_ending(output, '.png')
    draw(folder, given, plot, output, videos)
  elif output or videos:
    raise errors.InputError('--output and --videos are of a --plot VIDEO')
  elif check(folder, given):
    sys.exit(1)


def check(root: epath.Path, config: run_config.Config) -> list[str]:
  """Open every file of a data root; print a table, notes and every problem.

  The config's clicks, if any, are those that are counted.

  Returns:
    All problems, one line each, with the file.
  """
  splits, shape, rows = config.splits, config.shape, [_HEADS]
  truth = annotations.read_ground_truth(files.find(config.ground_truth, root))
  found, labeller, problems = _clicks(root, config, truth)
  if len(truth.classes) != shape[2]:
    problems.append(
      f'{truth.path}: {len(truth.classes)} classes, config.model.num_classes '
      f'is {shape[2]}'
    )
  annotations.note(truth)
  for split in dict.fromkeys(splits):
    counts, names, wrong = _check_split(root, split, shape, truth, labeller)
    rows.append(_row(split, counts))
    problems += wrong
    if split == splits[0] and names:  # What training would refuse.
      if all(count.get('unlabelled') for count in counts):
        problems.append(f'{split}: no video has a label')
      try:
        if config.clicks:
          print(clicks.coverage(found, names, config.annotator)[0])
      except errors.InputError as e:
        problems.append(f'{config.clicks}: {e}')
  try:
    for split in splits[1:]:
      segments.make_truth(truth, split)
  except errors.InputError as e:
    problems.append(str(e))
  if not splits[1:]:
    print("note: config.data.eval_split is '': there will be no mAP")
  problems = list(dict.fromkeys(problems))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = zip(row, widths, strict=True)
    print('  '.join(cell.rjust(width) for cell, width in cells))
  for problem in problems:
    print(f'wrong: {problem}')
  print(f'{len(problems)} problems')
  return problems


def _clicks(root, config, truth):
  """Return config.data.clicks, a labeller of them or None, and problems."""
  found, problems = [], []
  for path in files.find_all(config.clicks, root):
    read, complaints = annotations.read_clicks(path, truth, lenient=True)
    print(f'{path}: {len(read)} clicks on {len(clicks.by_video(read))} videos')
    found += read
    problems += complaints
  # Of `random`, those of the first epoch.
  label = config.clicks and clicks.labeller(
    found, truth, config.annotator, seed=0, num_snippets=config.shape[0]
  )
  return found, label, problems


def _check_split(root, split, shape, truth, labeller):
  """Return the counts of each file of a split, its videos and problems."""
  folder = root / split
  try:
    subset = truth.subset(split)
    paths = sources.NpzSource(folder, shape).paths
  except errors.InputError as e:
    return [], [], [str(e)]
  one = lambda path: _check_file(path, shape, subset, truth, labeller)
  with futures.ThreadPoolExecutor(8) as pool:
    results = tqdm.tqdm(
      pool.map(one, paths), split, len(paths), unit='video', disable=None
    )
    videos, counts, problems = zip(*results, strict=True)
  problems = [problem for found in problems for problem in found]
  files_of = collections.defaultdict(list)
  for name, path in zip(videos, paths, strict=True):
    files_of[name].append(path)
  for name, twice in files_of.items():
    if name and len(twice) > 1:
      problems.append(f'{twice[1]}: video {name!r} is in {twice[0]}, too')
  _, absent = video_names.match(subset, files_of)
  problems += [f'{folder}: no file of annotated video {v!r}' for v in absent]
  return counts, [*files_of], problems


def _check_file(path, shape, subset, truth, labeller):
  """Return the video's name, counts, and every problem of one file."""
  try:
    found = npz.read(path)
  except errors.InputError as e:
    # By its name the file is there; that is not a second problem.
    return path.stem, {}, [str(e)]
  video, problems = sources.parse(found, path, shape)
  if problems:
    name = found.get('vid_name', np.array(''))
    return (str(name.item()) if name.size == 1 else ''), {}, problems
  known = subset.get(video_names.match_one(video.name, subset))
  if known is None:
    problems.append(f'{path}: video {video.name!r} is not in the ground truth')
  for key in ('frame_num', 'duration'):
    value = getattr(video, key)
    if not 0 < value < np.inf:
      problems.append(f'{path}: {key} is {value}, expected more than 0')
  if known and known.duration and abs(known.duration - video.duration) > 1:
    problems.append(
      f'{path}: duration is {video.duration:g} s, in the ground truth '
      f'{known.duration:g} s'
    )
  if known and known.segments and shape[2] == len(truth.classes):
    labels = {truth.classes[i] for i in np.flatnonzero(video.label)}
    different = sorted(labels ^ {s.label for s in known.segments})
    if different:
      problems.append(
        f'{path}: cls_label and the ground truth differ in '
        f'{", ".join(different[:5])}'
      )
  click = video.click
  if labeller:
    try:
      click = labeller(video, 0)
    except errors.InputError as e:
      problems.append(f'{path}: {e}')
  clicked = click[click != IGNORED]
  background = int((clicked == shape[2]).sum())
  counts = {
    'hours': video.duration / 3600 if np.isfinite(video.duration) else 0,
    'snippets': len(video.feature),
    'labels': int(video.label.sum()),
    'unlabelled': int(not video.label.any()),
    'background': background,
    'action': len(clicked) - background,
    'low': float(video.feature.min()),
    'high': float(video.feature.max()),
  }
  return video.name, counts, problems


def _row(split, counts):
  """Return the cells of a split in the table; labels and clicks are a video."""
  total = lambda key: sum(count.get(key, 0) for count in counts)
  per = [
    f'{total(key) / max(len(counts), 1):.2f}'
    for key in ('labels', 'background', 'action')
  ]
  low = min((count['low'] for count in counts if count), default=np.nan)
  high = max((count['high'] for count in counts if count), default=np.nan)
  return (
    split, str(len(counts)), str(total('snippets')), f'{total("hours"):.2f}',
    str(total('unlabelled')), *per, f'{low:.3g} to {high:.3g}',
  )  # fmt: skip


def draw(
  root: epath.Path,
  config: run_config.Config,
  video: str,
  output: epath.Path,
  videos: epath.Path | None,
) -> None:
  """Draw one video's energy, labels, clicks and ground truth as PNG.

  Pictures above the curves are those of the folder `videos`, if any.

  Raises:
    errors.InputError: There is no such video, or its file is wrong.
  """
  from backtal_jax.report import figures, style  # matplotlib takes a second

  shape = config.shape
  truth = annotations.read_ground_truth(files.find(config.ground_truth, root))
  paths = {
    path.stem: path
    for split in config.splits
    for path in files.listed(root / split, '.npz')
  }
  video = files.name_of(video)
  path = paths.get(video_names.match_one(video, paths) or video)
  if path is None:
    raise errors.InputError(f'{root}: no file of video {video!r}')
  found, wrong = sources.parse(npz.read(path), path, shape)
  if found is None:
    raise errors.InputError(wrong[0])
  name = video_names.match_one(found.name, truth.videos)
  known = truth.videos.get(name or '')
  _, labeller, problems = _clicks(root, config, truth)
  if problems:
    raise errors.InputError(problems[0])
  click = labeller(found, 0) if labeller else found.click
  times = (np.arange(shape[0]) + 0.5) / shape[0] * found.duration
  names = [truth.classes[i] for i in np.flatnonzero(found.label)]
  figure = figures.timeline(
    f'{found.name}: {", ".join(names) or "no label"}',
    found.duration,
    magnitude=np.linalg.norm(found.feature, axis=1),
    ground_truth=known.listed() if known else (),
    clicks=times[click == shape[2]],
    strip=_strip(videos, found.name) if videos else (),
    action_clicks=[
      {'label': truth.classes[click[t]], 'time': times[t]}
      for t in np.flatnonzero((click != IGNORED) & (click != shape[2]))
    ],
  )
  style.image(figure)
  with files.atomic(output) as f:
    figure.savefig(f, format='png')
  print(output)


def _strip(folder, name):
  """Return pictures of the video of that name."""
  paths = {path.stem: path for path in streams.find(folder)}
  path = paths.get(video_names.match_one(name, paths))
  if path is None:
    raise errors.InputError(f'{folder}: no video {name!r} in it')
  return decode.read_strip(path)
