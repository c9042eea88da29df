"""The command `prepare hapt`: a data set of real smartphone recordings.

Source: J.-L. Reyes-Ortiz, L. Oneto, A. Samà, X. Parra and D. Anguita,
"Transition-Aware Human Activity Recognition Using Smartphones",
Neurocomputing, 2015; "Smartphone-Based Recognition of Human Activities and
Postural Transitions" in the UCI repository (its README asks for this citation
and forbids commercial use). Thirty people wore a phone at the waist;
acceleration (g) and angular velocity (rad/s) at 50 Hz, activities labelled
from video.

Nearly every recording holds every activity, so recordings are cut into clips.
Walking (three kinds) and the six postural transitions are the actions;
sitting, standing, lying and unlabelled time are background.
"""

import argparse
import collections
import functools
import io
import itertools
import os
import zipfile
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tqdm
from etils import epath

from backtal_jax import IGNORED, command_line, errors, files
from backtal_jax.data import annotations, arrays, feature_records, sources

ACTIONS = {  # Activity number in labels.txt: class; the order is the index.
  1: 'WALKING',
  2: 'WALKING_UPSTAIRS',
  3: 'WALKING_DOWNSTAIRS',
  7: 'STAND_TO_SIT',
  8: 'SIT_TO_STAND',
  9: 'SIT_TO_LIE',
  10: 'LIE_TO_SIT',
  11: 'STAND_TO_LIE',
  12: 'LIE_TO_STAND',
}
CLASSES = tuple(ACTIONS.values())
POSTURES = (4, 5, 6)
TEST_PEOPLE = (2, 4, 9, 10, 12, 13, 18, 20, 24)
FPS = 50
NUM_SNIPPETS = 128
CLIP_SECONDS = 64
HOP, WINDOW = 25, 64  # Samples.
MIN_REST = 25  # Samples that must remain of a segment cut by a clip's end.
# Of the window's 33 frequencies, 0.78 Hz apart: 0.8 to 2.3 Hz (changes of
# posture, the step rate), 3.1 to 7.0 Hz (its harmonics), 7.8 to 25 Hz (the
# shock of a step).
BANDS = ((1, 4), (4, 10), (10, 33))


class Clip(NamedTuple):
  """One part of a recording; S sliding windows, N samples."""

  name: str  # expEE_userUU_PP
  subset: str  # train or test
  features: list[np.ndarray]  # [S, 32] of accelerometer and gyroscope
  # (class index, first sample, sample after the last)
  segments: list[tuple[int, int, int]]
  action: np.ndarray  # [N] bool, whether a sample belongs to an action


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  add('--archive', type=files.path, required=True, help='the zip or its folder')
  add('--output', type=files.path, required=True, help='the data root')
  add('--seed', type=command_line.at_least(0), default=0, help='of the clicks')


def run(archive: epath.Path, output: epath.Path, seed: int = 0) -> None:
  """Write the clips of the archive as a data root (formats.md, HAPT).

  That is train/*.npz, test/*.npz (method.md section 1) and, last,
  ground_truth.json, from 'HAPT Data Set.zip' or the folder it unpacks to; the
  seed is that of the simulated background clicks.

  Raises:
    errors.InputError: A file of the archive is missing or malformed.
  """
  files.require_ending(output)
  clips = read_clips(archive)
  train = [clip.features for clip in clips if clip.subset == 'train']
  if not train:
    raise errors.InputError(f'{archive}: no recording of a training person')
  scales = [_scale(np.concatenate(x)) for x in zip(*train, strict=True)]
  rng, videos = np.random.default_rng(seed), {}
  counts = collections.defaultdict(collections.Counter)
  for clip in tqdm.tqdm(clips, desc='writing', unit='clip', disable=None):
    count, clicks = counts[clip.subset], None
    count['clips'] += 1
    count['without action'] += not clip.segments
    count['segments'] += len(clip.segments)
    if clip.subset == 'train':
      clicks = simulate_clicks(clip.action, NUM_SNIPPETS, rng)
      count['clicks'] += int(np.sum(clicks != IGNORED))
    videos[clip.name] = _write(output, clip, scales, clicks)
  truth = annotations.Annotations(videos, CLASSES)
  files.write_json(output / 'ground_truth.json', truth.as_json())
  for subset, count in sorted(counts.items(), reverse=True):
    told = ', '.join(f'{number} {what}' for what, number in count.items())
    print(f'{output / subset}: {told}')


def read_clips(archive: epath.Path) -> list[Clip]:
  """Return every clip of the archive, in the order of the recordings.

  A recording is cut into round(duration / 64 s) equal parts.
  """
  read, clips = functools.partial(_read_table, archive, _open(archive)), []
  recordings = _read_labels(archive, read).items()
  bar = tqdm.tqdm(recordings, desc='reading', unit='recording', disable=None)
  for (experiment, person), rows in bar:
    stem = f'exp{experiment:02d}_user{person:02d}'
    subset = 'test' if person in TEST_PEOPLE else 'train'
    acc, gyro = (read(f'RawData/{x}_{stem}.txt', 3) for x in ('acc', 'gyro'))
    least = max(WINDOW, *(last for _, _, last in rows))
    if len(acc) != len(gyro) or len(acc) < least:
      raise errors.InputError(
        f'{archive}: RawData/*_{stem}.txt have {len(acc)} (acc) and '
        f'{len(gyro)} (gyro) samples, expected the same and {least} or more '
        '(labels.txt)'
      )
    parts = max(1, round(len(acc) / FPS / CLIP_SECONDS))
    bounds = np.linspace(0, len(acc), parts + 1).round().astype(int).tolist()
    for i, (start, end) in enumerate(itertools.pairwise(bounds)):
      features = [window_features(x[start:end]) for x in (acc, gyro)]
      cuts = cut(rows, start, end)
      clips.append(Clip(f'{stem}_{i:02d}', subset, features, *cuts))
  return clips


def cut(
  rows: Sequence[Sequence[int]], start: int, end: int
) -> tuple[list[tuple[int, int, int]], np.ndarray]:
  """Cut a recording's labels to a clip.

  What is left of a segment cut by the clip's end counts from 0.5 s; less is no
  segment, but stays in the mask, so that no background click falls there.

  Args:
    rows: [(activity number, first sample, last sample)] of the recording,
      samples counted from 1 as in labels.txt.
    start, end: First sample of the clip, from 0, and the one after its last.

  Returns:
    The segments and the action mask of `Clip`.
  """
  segments, action = [], np.zeros(end - start, bool)
  for activity, first, last in rows:
    if activity in POSTURES:
      continue
    a, b = max(first - 1, start), min(last, end)
    action[max(a - start, 0) : max(b - start, 0)] = True
    whole = (a, b) == (first - 1, last)
    if b - a >= (1 if whole else MIN_REST):
      segments.append((CLASSES.index(ACTIONS[activity]), a - start, b - start))
  return segments, action


def window_features(signal: np.ndarray) -> np.ndarray:
  """Describe each sliding window of a three-axis sensor [N, 3] by 32 numbers.

  Returns:
    [(N − 64) // 25 + 1, 32]: mean, standard deviation, minimum, maximum, mean
    absolute difference and three log band energies (`BANDS`), each of x, y, z
    and the norm.
  """
  signal = np.column_stack([signal, np.linalg.norm(signal, axis=1)])
  sliding = np.lib.stride_tricks.sliding_window_view
  windows = sliding(signal, WINDOW, axis=0)[::HOP]
  basic = windows.mean(-1), windows.std(-1), windows.min(-1), windows.max(-1)
  jump = np.abs(np.diff(windows)).mean(-1)
  power = np.abs(np.fft.rfft(windows)) ** 2 / WINDOW
  # The floor keeps the logarithm of perfect silence finite.
  bands = [np.log(power[..., a:b].sum(-1) + 1e-6) for a, b in BANDS]
  return np.concatenate([*basic, jump, *bands], axis=-1)


def simulate_clicks(
  action: np.ndarray, num_snippets: int, rng: np.random.Generator
) -> np.ndarray:
  """Click one random snippet in each background gap of 2 snippets or more.

  Of T equal parts of a clip, whose samples `action` [N] marks, a snippet is
  background if its centre is. Returns [T] integers: C where clicked, IGNORED
  elsewhere.
  """
  centres = (np.arange(num_snippets) + 0.5) * len(action) / num_snippets
  background = ~action[centres.astype(int)]
  clicks = np.full(num_snippets, IGNORED)
  for start, end in arrays.runs(background):
    if end - start >= 2:
      clicks[rng.integers(start, end)] = len(CLASSES)
  return clicks


def _open(archive):
  """Return the root of a zip file or of a folder, with pathlib's interface."""
  if archive.is_dir():
    return archive
  if not archive.is_file():
    raise errors.InputError(f'{archive}: no such file')
  try:
    return zipfile.Path(os.fspath(archive))
  except zipfile.BadZipFile as e:
    raise errors.InputError(f'{archive}: not a zip file: {e}') from e


def _read_table(archive, root, member, columns, dtype=np.float64):
  """Return the numbers of a text file of the archive, [N, columns]."""
  where, path = f'{archive}: {member}', root.joinpath(member)
  if not path.is_file():
    raise errors.InputError(f'{where}: no such file in the archive')
  try:
    text = path.read_bytes()
    if not text.strip():
      raise ValueError('no numbers in it')
    table = np.loadtxt(io.BytesIO(text), dtype, ndmin=2)
  except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as e:
    raise errors.InputError(f'{where}: {e}') from e
  if table.shape[1] != columns or not np.isfinite(table).all():
    raise errors.InputError(
      f'{where}: {table.shape[1]} columns, expected {columns} of finite numbers'
    )
  return table


def _read_labels(archive, read):
  """Return {(experiment, person): [(activity, first, last sample)]}."""
  member, recordings = 'RawData/labels.txt', collections.defaultdict(list)
  for experiment, person, *row in read(member, 5, np.int64).tolist():
    activity, first, last = row
    if not 1 <= activity <= 12 or not 1 <= first <= last:
      raise errors.InputError(
        f'{archive}: {member}: activity and samples {row}, expected an '
        'activity of 1 to 12 and 1 <= start <= end'
      )
    recordings[experiment, person].append(tuple(row))
  return dict(sorted(recordings.items()))


def _scale(values):
  """Return the mean and standard deviation of each feature; [D] both."""
  std = values.std(0)
  return values.mean(0), np.where(std > 0, std, 1)


def _write(output, clip, scales, clicks):
  """Standardise, resample and write one clip; return its annotations."""
  duration = len(clip.action) / FPS
  grid = feature_records.Grid(duration, FPS, WINDOW, HOP)
  spa, tem = (
    grid.resample((x - mean) / std, NUM_SNIPPETS)
    for x, (mean, std) in zip(clip.features, scales, strict=True)
  )
  sources.write_video(
    output / clip.subset / f'{clip.name}.npz',
    feat_spa=spa.T,
    feat_tem=tem.T,
    cls_label=np.isin(range(len(CLASSES)), [c for c, _, _ in clip.segments]),
    vid_name=clip.name,
    frame_num=len(clip.action),
    fps=FPS,
    duration=duration,
    point_label=clicks,
  )
  segments = tuple(
    annotations.Segment(a / FPS, b / FPS, CLASSES[c])
    for c, a, b in clip.segments
  )
  return annotations.AnnotatedVideo(
    clip.name, clip.subset, duration, float(FPS), segments
  )
