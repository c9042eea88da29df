"""What is in a prepared folder, and what is wrong with it."""

import collections
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import numpy as np
import tqdm
from etils import epath

from backtal_jax import IGNORED, errors, files
from backtal_jax.data import annotations, clicks, npz, sources
from backtal_jax.metrics import segments
from backtal_jax.report import figures, style
from backtal_jax.video import decode


def check(
  root: epath.PathLike,
  data: Any,
  splits: Sequence[str],
  shape: tuple[int, int, int],
  workers: int | None = 8,
) -> Any:
  """Open every file; print a table, notes and every problem.

  Args:
    root: The data root.
    data: Config.data; its clicks, if any, are those that are counted.
    splits: (train_split, eval_split).
    shape: (T, D, C).
    workers: Threads.

  Returns:
    All problems, one line each, with the file.
  """
  root, rows = files.path(root), []
  path = files.find(data.ground_truth, root)
  truth = annotations.read_ground_truth(path)
  found, labeller, problems = _clicks(root, data, truth, shape[0])
  if len(truth.classes) != shape[2]:
    problems.append(
      f'{path}: {len(truth.classes)} classes, config.model.num_classes is '
      f'{shape[2]}'
    )
  for kind, lines in annotations.problems(truth).items():
    if lines:
      some = errors.few(lines, '; ')
      print(f'note: {path}: {len(lines)} of kind {kind!r}: {some}')
  for split in dict.fromkeys(splits):
    row, names, wrong = _check_split(
      root, split, shape, truth, labeller, workers
    )
    rows.append(row)
    problems += wrong
    if split == splits[0] and names:
      problems += _check_training(row, names, data, found)
  try:
    segments.make_truth(truth, splits[1])
  except errors.InputError as e:
    problems.append(str(e))
  problems = list(dict.fromkeys(problems))
  print(_table(rows))
  for problem in problems:
    print(f'wrong: {problem}')
  print(f'{len(problems)} problems')
  return problems


def _clicks(root, data, truth, num_snippets):
  """Return config.data.clicks, a labeller of them or None, and problems."""
  found, problems = [], []
  for name in data.clicks.split(',') if data.clicks else ():
    path = files.find(name.strip(), root)
    read, complaints = annotations.read_clicks(path, truth, lenient=True)
    print(f'{path}: {len(read)} clicks on {len(clicks.by_video(read))} videos')
    found += read
    problems += complaints
  if not data.clicks:
    return found, None, problems
  # Of `random`, those of the first epoch.
  label = clicks.labeller(
    found, truth, data.annotator, seed=0, num_snippets=num_snippets
  )
  return found, label, problems


def _check_training(row, names, data, found):
  """Return what training would refuse: no label, or clicks for nobody."""
  problems = []
  if row.get('unlabelled') == row['videos']:
    problems.append(f'{row["split"]}: no video has a label')
  if data.clicks:
    try:
      print(clicks.coverage(found, names, data.annotator))
    except errors.InputError as e:
      problems.append(f'{data.clicks}: {e}')
  return problems


def _check_split(root, split, shape, truth, labeller, workers):
  """Return the row of a split in the table, its videos and problems."""
  (t, d, c), folder = shape, root / split
  try:
    subset = truth.subset(split)
    paths = sources.NpzSource(
      folder, num_snippets=t, feature_dim=d, num_classes=c
    ).paths
  except errors.InputError as e:
    return {'split': split}, [], [str(e)]
  problems, files_of = [], collections.defaultdict(list)
  row = collections.Counter(low=np.inf, high=-np.inf)
  with futures.ThreadPoolExecutor(workers) as pool:
    results = pool.map(
      lambda p: _check_file(p, shape, subset, truth, labeller), paths
    )
    for path, (name, counts, found) in zip(
      paths,
      tqdm.tqdm(results, split, len(paths), unit='video', disable=None),
      strict=True,
    ):
      problems += found
      files_of[name].append(str(path))
      row['low'] = min(row['low'], counts.pop('low', np.inf))
      row['high'] = max(row['high'], counts.pop('high', -np.inf))
      row.update(counts)
  for name, twice in files_of.items():
    if name and len(twice) > 1:
      problems.append(f'{twice[1]}: video {name!r} is in {twice[0]}, too')
  _, absent = annotations.match_names(subset, files_of)
  problems += [f'{folder}: no file of annotated video {v!r}' for v in absent]
  return {'split': split, 'videos': len(paths), **row}, [*files_of], problems


def _check_file(path, shape, subset, truth, labeller):
  """Return the video's name, counts, and every problem of one file."""
  try:
    found = npz.read(path)
  except errors.InputError as e:
    # By its name the file is there; that is not a second problem.
    return path.name.removesuffix('.npz'), {}, [str(e)]
  video, problems = sources.parse(found, path, shape)
  if problems:
    name = found.get('vid_name', np.array(''))
    return (str(name.item()) if name.size == 1 else ''), {}, problems
  known = subset.get(annotations.match_name(video.name, subset))
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


def _table(rows):
  """Lay out what `_check_split` counted; labels and clicks are a video."""
  heads = ('split', 'videos', 'snippets', 'hours', 'no label', 'labels',
           'background clicks', 'action clicks', 'features')  # fmt: skip
  cells = [heads]
  for row in rows:
    n = max(row.get('videos', 0), 1)
    per = [
      f'{row.get(k, 0) / n:.2f}' for k in ('labels', 'background', 'action')
    ]
    span = f'{row.get("low", np.nan):.3g} to {row.get("high", np.nan):.3g}'
    cells.append((
      row['split'], str(row.get('videos', 0)), str(row.get('snippets', 0)),
      f'{row.get("hours", 0):.2f}', str(row.get('unlabelled', 0)), *per, span,
    ))  # fmt: skip
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return '\n'.join(
    '  '.join(c.rjust(w) for c, w in zip(line, widths, strict=True))
    for line in cells
  )


def plot(
  root: epath.PathLike,
  data: Any,
  splits: Sequence[str],
  shape: tuple[int, int, int],
  video: str,
  output: epath.PathLike | None,
  videos: Any = '',
) -> Any:
  """Draw one video's energy, labels, clicks and ground truth as PNG.

  Args:
    root: The data root.
    data: Config.data; its clicks, if any, replace the file's.
    splits: Where to look for the video.
    shape: (T, D, C).
    video: Its name, with or without `v_`.
    output: Path of the PNG.
    videos: Folder of videos, for pictures above the curves.

  Raises:
    errors.InputError: There is no such video, or its file is wrong.
  """
  root = files.path(root)
  truth = annotations.read_ground_truth(files.find(data.ground_truth, root))
  paths = {
    path.name.removesuffix('.npz'): path
    for split in splits
    for path in (root / split).glob('*.npz')
  }
  path = paths.get(annotations.match_name(video, paths) or video)
  if path is None:
    raise errors.InputError(f'{root}: no file of video {video!r}')
  found, wrong = sources.parse(npz.read(path), path, shape)
  if found is None:
    raise errors.InputError(wrong[0])
  name = annotations.match_name(found.name, truth.videos)
  known = truth.videos[name] if name else None
  _, labeller, problems = _clicks(root, data, truth, shape[0])
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
  paths = {path.stem: path for path in decode.find(folder)}
  path = paths.get(annotations.match_name(name, paths))
  if path is None:
    raise errors.InputError(f'{folder}: no video {name!r} in it')
  return decode.read_strip(path)
