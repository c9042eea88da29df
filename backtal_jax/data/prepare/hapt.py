"""Make a localisation data set of real smartphone recordings (HAPT).

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

import collections
import contextlib
import io
import itertools
import pathlib
import typing
import zipfile
import zlib
from typing import Any

import numpy as np
import tqdm
from etils import epath

from backtal_jax import IGNORED, errors, files
from backtal_jax.data import annotations, resampling, sources

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
CLIP_SECONDS = 64
HOP, WINDOW = 25, 64  # Samples.
MIN_REST = 25  # Samples that must remain of a segment cut by a clip's end.
# Of the window's 33 frequencies, 0.78 Hz apart: 0.8 to 2.3 Hz (changes of
# posture, the step rate), 3.1 to 7.0 Hz (its harmonics), 7.8 to 25 Hz (the
# shock of a step).
BANDS = ((1, 4), (4, 10), (10, 33))


class Clip(typing.NamedTuple):
  """One part of a recording; S sliding windows, N samples.

  Attributes:
    name: key of the clip, expEE_userUU_PP.
    subset: train or test.
    acc: [S, 32], features of the accelerometer, not standardised.
    gyro: [S, 32], the gyroscope's.
    segments: [(class index, first sample, sample after the last)].
    action: [N] bool, whether a sample belongs to an action.
  """

  name: str
  subset: str
  acc: np.ndarray
  gyro: np.ndarray
  segments: list
  action: np.ndarray


def prepare(
  archive: epath.PathLike,
  output: epath.PathLike,
  seed: int = 0,
  num_snippets: int = 128,
) -> Any:
  """Write the clips as npz files and their ground truth (formats.md, HAPT).

  Args:
    archive: 'HAPT Data Set.zip', or the folder it unpacks to.
    output: Folder that receives train/*.npz, test/*.npz (method.md section 1)
      and, last, ground_truth.json (ActivityNet format).
    seed: Seed of the simulated background clicks.
    num_snippets: T.

  Returns:
    {subset: {'clips', 'without action', 'segments', 'clicks'}}, counts (no
    clicks in test); they are printed too.

  Raises:
    errors.InputError: A file of the archive is missing or malformed.
  """
  output = files.path(output)
  clips = read_clips(archive)
  train = [c for c in clips if c.subset == 'train']
  if not train:
    raise errors.InputError(f'{archive}: no recording of a training person')
  moments = [
    _moments(np.concatenate([getattr(c, sensor) for c in train]))
    for sensor in ('acc', 'gyro')
  ]
  rng = np.random.default_rng(seed)
  videos = {}
  summary = collections.defaultdict(collections.Counter)
  for clip in tqdm.tqdm(clips, desc='writing', unit='clip', disable=None):
    counts = summary[clip.subset]
    counts['clips'] += 1
    counts['without action'] += not clip.segments
    counts['segments'] += len(clip.segments)
    clicks = None
    if clip.subset == 'train':
      clicks = simulate_clicks(clip.action, num_snippets, rng)
      counts['clicks'] += int(np.sum(clicks != IGNORED))
    _write_clip(output, clip, moments, clicks, num_snippets)
    videos[clip.name] = _ground_truth(clip)
  annotations.write_ground_truth(
    output / 'ground_truth.json', annotations.Annotations(videos, CLASSES)
  )
  for subset, counts in sorted(summary.items(), reverse=True):
    told = ', '.join(f'{count} {what}' for what, count in counts.items())
    print(f'{output / subset}: {told}')
  return {k: dict(v) for k, v in summary.items()}


def read_clips(archive: epath.PathLike) -> Any:
  """Return every clip of the archive, in the order of the recordings.

  A recording is cut into round(duration / 64 s) equal parts.

  Args:
    archive: The zip file or the folder it unpacks to.

  Returns:
    A list of `Clip`.

  Raises:
    errors.InputError: As for `prepare`.
  """
  clips = []
  with _open(archive) as root:
    recordings = _read_labels(archive, root)
    for (experiment, person), rows in tqdm.tqdm(
      recordings.items(), desc='reading', unit='recording', disable=None
    ):
      stem = f'exp{experiment:02d}_user{person:02d}'
      acc, gyro = _read_sensors(archive, root, stem, rows)
      parts = max(1, round(len(acc) / FPS / CLIP_SECONDS))
      bounds = np.linspace(0, len(acc), parts + 1).round().astype(int).tolist()
      for i, (start, end) in enumerate(itertools.pairwise(bounds)):
        clips.append(
          Clip(
            f'{stem}_{i:02d}',
            'test' if person in TEST_PEOPLE else 'train',
            window_features(acc[start:end]),
            window_features(gyro[start:end]),
            *cut(rows, start, end),
          )
        )
  return clips


def cut(rows: Any, start: int, end: int) -> Any:
  """Cut a recording's labels to a clip.

  Args:
    rows: [(activity number, first sample, last sample)] of the recording,
      samples counted from 1 as in labels.txt.
    start: First sample of the clip, from 0.
    end: Sample after the clip's last one.

  Returns:
    The segments and the action mask of `Clip`. What is left of a segment cut
    by the clip's end counts from 0.5 s; less is no segment, but stays in the
    mask, so that no background click falls there.
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
  """Describe each sliding window of a three-axis sensor by 32 numbers.

  Args:
    signal: [N, 3], N ≥ 64 samples.

  Returns:
    [(N − 64) // 25 + 1, 32]: mean, standard deviation, minimum, maximum, mean
    absolute difference and three log band energies (`BANDS`), each of x, y, z
    and the norm.
  """
  signal = np.concatenate(
    [signal, np.linalg.norm(signal, axis=1, keepdims=True)], axis=1
  )
  sliding = np.lib.stride_tricks.sliding_window_view
  windows = sliding(signal, WINDOW, axis=0)[::HOP]
  power = np.abs(np.fft.rfft(windows)) ** 2 / WINDOW
  # The floor keeps the logarithm of perfect silence finite.
  bands = [np.log(power[..., a:b].sum(-1) + 1e-6) for a, b in BANDS]
  return np.concatenate(
    [
      windows.mean(-1),
      windows.std(-1),
      windows.min(-1),
      windows.max(-1),
      np.abs(np.diff(windows)).mean(-1),
      *bands,
    ],
    axis=-1,
  )


def simulate_clicks(
  action: np.ndarray, num_snippets: int, rng: np.random.Generator
) -> Any:
  """Click one random snippet in each background gap of 2 snippets or more.

  Args:
    action: [N] bool, whether a sample belongs to an action.
    num_snippets: T equal parts of the clip; a snippet is background if its
      centre is.
    rng: Np.random.Generator.

  Returns:
    [T] integers: C where clicked, IGNORED elsewhere.
  """
  centres = (np.arange(num_snippets) + 0.5) * len(action) / num_snippets
  background = ~action[centres.astype(int)]
  edges = np.flatnonzero(np.diff(background, prepend=False, append=False))
  clicks = np.full(num_snippets, IGNORED)
  for start, end in edges.reshape(-1, 2):
    if end - start >= 2:
      clicks[rng.integers(start, end)] = len(CLASSES)
  return clicks


@contextlib.contextmanager
def _open(archive):
  """Yield the root of a zip file or of a folder, with pathlib's interface."""
  path = pathlib.Path(files.path(archive))
  if path.is_dir():
    yield path
    return
  if not path.is_file():
    raise errors.InputError(f'{archive}: no such file')
  try:
    opened = zipfile.ZipFile(path)
  except zipfile.BadZipFile as e:
    raise errors.InputError(f'{archive}: not a zip file: {e}') from e
  with opened:
    yield zipfile.Path(opened)


def _read_table(archive, root, member, columns, dtype=np.float64):
  """Return the numbers of a text file of the archive, [N, columns]."""
  where = f'{archive}: {member}'
  path = root.joinpath(member)
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


def _read_sensors(archive, root, stem, rows):
  """Return a recording's acceleration and angular velocity, [N, 3] each."""
  acc, gyro = (
    _read_table(archive, root, f'RawData/{sensor}_{stem}.txt', columns=3)
    for sensor in ('acc', 'gyro')
  )
  least = max(WINDOW, *(last for _, _, last in rows))
  if len(acc) != len(gyro) or len(acc) < least:
    raise errors.InputError(
      f'{archive}: RawData/*_{stem}.txt have {len(acc)} (acc) and {len(gyro)} '
      f'(gyro) samples, expected the same and {least} or more (labels.txt)'
    )
  return acc, gyro


def _read_labels(archive, root):
  """Return {(experiment, person): [(activity, first, last sample)]}."""
  member = 'RawData/labels.txt'
  recordings = collections.defaultdict(list)
  table = _read_table(archive, root, member, columns=5, dtype=np.int64)
  for experiment, person, *row in table.tolist():
    activity, first, last = row
    if not 1 <= activity <= 12 or not 1 <= first <= last:
      raise errors.InputError(
        f'{archive}: {member}: activity and samples {row}, expected an '
        'activity of 1 to 12 and 1 <= start <= end'
      )
    recordings[experiment, person].append(tuple(row))
  return dict(sorted(recordings.items()))


def _moments(values):
  """Return the mean and standard deviation of each feature; [D] both."""
  std = values.std(0)
  return values.mean(0), np.where(std > 0, std, 1)


def _write_clip(output, clip, moments, clicks, num_snippets):
  """Standardise, resample and write one clip."""
  duration = len(clip.action) / FPS
  count = len(clip.acc)
  times = resampling.centre_times(count, stride=HOP, window=WINDOW, fps=FPS)
  streams = [
    resampling.resample_times((x - mean) / std, times, duration, num_snippets)
    for x, (mean, std) in zip((clip.acc, clip.gyro), moments, strict=True)
  ]
  label = np.zeros(len(CLASSES), np.float32)
  label[[c for c, _, _ in clip.segments]] = 1
  sources.write_video(
    output / clip.subset / f'{clip.name}.npz',
    feat_spa=streams[0].T.astype(np.float32),
    feat_tem=streams[1].T.astype(np.float32),
    cls_label=label,
    vid_name=clip.name,
    frame_num=len(clip.action),
    fps=FPS,
    duration=duration,
    point_label=clicks,
  )


def _ground_truth(clip):
  """Return the clip's annotations."""
  segments = tuple(
    annotations.Segment(a / FPS, b / FPS, CLASSES[c])
    for c, a, b in clip.segments
  )
  duration = len(clip.action) / FPS
  name, subset, fps = clip.name, clip.subset, float(FPS)
  return annotations.AnnotatedVideo(name, subset, duration, fps, segments)
