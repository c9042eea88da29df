"""From video to features: times of the parts, and the memory of a long video.

  python -m benchmarks --only i3d --output FILE
  python -m benchmarks.video        the memory of a 2-hour video, in minutes

The limit of a snippet is its 48.6 GFLOP at the rate of a large square product.
Beside it, where they are installed, the extras: PyTorch's convolutions with
the same weights; decoding and optical flow, frames a second.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from backtal_jax.video import decode, encoder, extract, flow, i3d, weights
from benchmarks import measure

_FLOP = 48.6e9  # of a snippet of 16 frames
_HOURS, _FPS = 2, 5


def run() -> dict:
  """Measure a snippet; several parts in turns."""
  clips = np.random.default_rng(0).uniform(-1, 1, (1, 16, 224, 224, 3))
  clips = clips.astype(np.float32)
  params = _draw_params()
  forward = lambda p, x: i3d.I3D().apply({'params': p}, x)
  ours, plain = jax.jit(forward), jax.jit(lambda p, x: forward(p, x))
  with mock.patch.object(i3d, '_in_two', i3d._in_three):
    plain = plain.lower(params, clips).compile()
  square, flop = measure.make_square()
  calls = [lambda: ours(params, clips), lambda: plain(params, clips), square]
  if importlib.util.find_spec('torch'):
    calls.append(_torch_network(params, clips))
  seconds, xla, product, *torch = measure.interleaved(*calls)
  return measure.result(
    seconds,
    _FLOP / flop * product,
    xla_seconds=xla,
    torch_seconds=torch[0] if torch else None,
    **_measure_frames(),
  )


def _draw_params(stream='rgb'):
  rng = np.random.default_rng(1)

  def draw(shape):
    scale = np.sqrt(2 / np.prod(shape.shape[:-1]))
    return rng.normal(0, scale if len(shape.shape) > 1 else 0.1, shape.shape)

  drawn = jax.tree.map(draw, i3d.shapes(stream))
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), drawn)


def _torch_network(params, clips):
  """Return a call of the same network by PyTorch, checked against ours."""
  import torch

  as_torch = lambda x: torch.from_numpy(np.array(x))
  weights = jax.tree.map(as_torch, params)
  for unit in jax.tree.leaves(weights, is_leaf=lambda x: 'bias' in x):
    if unit['kernel'].ndim == 5:
      unit['kernel'] = unit['kernel'].permute(4, 3, 0, 1, 2).contiguous()

  def pad(x, window, stride):
    missing = [
      max((-(-n // s) - 1) * s + w - n, 0)
      for n, w, s in zip(x.shape[2:], window, stride, strict=True)
    ]
    pads = [p for m in missing[::-1] for p in (m // 2, m - m // 2)]
    return torch.nn.functional.pad(x, pads)

  def unit(x, w, stride=1):
    x = pad(x, w['kernel'].shape[2:], (stride,) * 3)
    return torch.nn.functional.conv3d(x, w['kernel'], w['bias'], stride).relu_()

  def pool(x, window, stride):
    return torch.nn.functional.max_pool3d(
      pad(x, window, stride), window, stride
    )

  def mixed(x, w):
    return torch.cat(
      [
        unit(x, w['b0']),
        unit(unit(x, w['b1a']), w['b1b']),
        unit(unit(x, w['b2a']), w['b2b']),
        unit(pool(x, (3, 3, 3), (1, 1, 1)), w['b3b']),
      ],
      1,
    )

  x0 = as_torch(clips.transpose(0, 4, 1, 2, 3))

  @torch.inference_mode()
  def call():
    x = pool(unit(x0, weights['Conv3d_1a_7x7'], 2), (1, 3, 3), (1, 2, 2))
    x = unit(unit(x, weights['Conv3d_2b_1x1']), weights['Conv3d_2c_3x3'])
    x = pool(x, (1, 3, 3), (1, 2, 2))
    for name in i3d.MIXED:
      if name in i3d._POOLS:
        x = pool(x, i3d._POOLS[name], (2, 2, 2))
      x = mixed(x, weights[f'Mixed_{name}'])
    return x.mean((2, 3, 4)).numpy()

  found = i3d.I3D().apply({'params': params}, clips).mean(1)
  np.testing.assert_allclose(call(), found, rtol=1e-3, atol=1e-4)
  return call


def _measure_frames() -> dict:
  """Return frames a second of decoding and of optical flow, at 340 × 256."""
  if not all(map(importlib.util.find_spec, ('av', 'cv2'))):
    return {}
  with tempfile.TemporaryDirectory() as folder:
    path = f'{folder}/a.mp4'
    _write_video(path, 250, fps=25)
    frames = list(decode.read_frames(path, fps=25, size=(340, 256)))
    read = lambda: [*decode.read_frames(path, fps=25, size=(340, 256))]
    (seconds,) = measure.interleaved(read, repeats=3)
  found = {'decode_frames_per_second': len(frames) / seconds}
  pairs = list(flow.pair(frames[:20]))
  dis = lambda: [*flow.add_flow(pairs, 'dis', None, as_bytes=False)]
  (seconds,) = measure.interleaved(dis, repeats=3)
  return found | {'dis_frames_per_second': len(pairs) / seconds}


def _write_video(path, count, *, fps, size=(320, 240)):
  """Write a video of a texture that moves."""
  import av

  texture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
  texture = np.kron(texture, np.ones((16, 16, 1), np.uint8))
  width, height = size
  with av.open(path, 'w') as container:
    stream = container.add_stream(
      'libx264', rate=fps, options={'preset': 'ultrafast'}
    )
    stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
    for i in range(count):
      x, y = 3 * i % 300, 2 * i % 200
      picture = np.ascontiguousarray(texture[y : y + height, x : x + width])
      frame = av.VideoFrame.from_ndarray(picture, 'rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _memory(key) -> float:
  """Return VmRSS (now) or VmHWM (its peak) of this process in MiB."""
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{key}:'):
      return int(line.split()[1]) / 1024
  raise KeyError(key)


def _extract(path, output):
  """Extract both streams, print memory as JSON; few windows, all frames."""
  jnp.zeros(1).block_until_ready()
  import av

  assert av
  imported = _memory('VmRSS')
  package, load = weights.PACKAGE, weights.load
  protocol, paths = encoder.plan(
    rgb=package, flow=package, fps=_FPS, stride=200 * 16
  )

  def load_or_draw(path, stream, sha256):
    is_flow = stream == 'flow'
    return _draw_params('flow') if is_flow else load(path, stream, sha256)

  with mock.patch.object(weights, 'load', load_or_draw):
    extract.extract(epath.Path(path), epath.Path(output), protocol, paths)
  print(json.dumps({'imported': imported, 'peak': _memory('VmHWM')}))


def main():
  """Make a long video of low resolution, extract it in a process of its own."""
  if sys.argv[1:]:
    return _extract(*sys.argv[1:])
  with tempfile.TemporaryDirectory() as folder:
    path = f'{folder}/long.mp4'
    _write_video(path, _HOURS * 3600 * _FPS, fps=_FPS, size=(160, 120))
    command = [sys.executable, '-m', 'benchmarks.video', path, f'{folder}/out']
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
  found = json.loads(done.stdout.decode().splitlines()[-1])
  print({k: f'{v:.0f} MiB' for k, v in found.items()})
  print(f'over the imports: {found["peak"] - found["imported"]:.0f} MiB')


if __name__ == '__main__':
  main()
