"""Videos that tests make themselves, by PyAV's encoders."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np

from backtal_jax.video import i3d, tvl1, weights


def write(
  path, frames, *, fps=25, codec='libx264', pixels='yuv420p', times=None,
  options=None, encoder=None,
):  # fmt: skip
  """Write a video file.

  Args:
    path: Of the file; its suffix is the container.
    frames: [height, width, 3] uint8 each.
    fps: Frames a second.
    codec: FFmpeg's name of it.
    pixels: The pixel format.
    times: Milliseconds of the frames, where they don't come evenly.
    options: Of the container.
    encoder: Options of the codec.
  """
  import av

  frames = list(frames)
  with av.open(str(path), 'w', options=options or {}) as container:
    stream = container.add_stream(codec, rate=fractions.Fraction(fps))
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt, stream.options = pixels, encoder or {}
    for i, pixels in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), 'rgb24')
      if times is not None:
        frame.pts, frame.time_base = times[i], fractions.Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def write_audio(path):
  """Write a second of silence."""
  import av

  with av.open(str(path), 'w') as container:
    stream = container.add_stream('aac', rate=16000, layout='mono')
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 16000), np.float32), 'fltp', 'mono'
    )
    frame.sample_rate = 16000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def gray(values, size=(96, 64)):
  """Yield one even picture of (width, height) for each gray value."""
  for value in values:
    yield np.full((size[1], size[0], 3), value, np.uint8)


def noise(count, size=(96, 64)):
  """Yield pictures that no encoder makes small."""
  rng = np.random.default_rng(0)
  for _ in range(count):
    yield rng.integers(0, 256, (size[1], size[0], 3), np.uint8)


def fake_i3d(monkeypatch, folder):
  """Put a network in I3D's place that is quick; return its weight file.

  A feature is the clip's mean of each channel in [−1, 1], then zeros.
  """
  path = folder / 'weights' / 'rgb.ckpt'
  path.parent.mkdir()
  path.write_bytes(b'weights')

  def encode(params, clips, *, dtype):
    assert clips.shape[2:4] == (224, 224)
    means = i3d.to_unit(clips).mean((1, 2, 3))
    return jnp.pad(means, ((0, 0), (0, 1024 - means.shape[1])))

  monkeypatch.setattr(i3d, 'encode', jax.jit(encode, static_argnames='dtype'))
  monkeypatch.setattr(weights, 'load', lambda *_: {'a': np.ones(1)})
  return path


def fake_flow(monkeypatch):
  """Put flow in TV-L1's place that is quick: along x, how much brighter."""

  def estimate(before, after, compiled):
    del compiled
    u = after.astype(jnp.float32) - before
    return jnp.stack([u, 0 * u], axis=-1), jnp.zeros((len(u), 1), int)

  monkeypatch.setattr(tvl1, 'estimate', estimate)
