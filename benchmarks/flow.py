"""TV-L1 flow beside OpenCV 4.12's, a pair of frames.

  python -m benchmarks --only flow --output FILE

Real frames of ../shared/data/video where they are, and made ones that move by
known distances, at both sizes of published features. OpenCV is installed in a
folder that is gone afterwards, and runs in a process of its own, in turns with
ours; where that fails its times are missing. The limit is the time in which
the machine copies what the iterations must read and write at least, between
arrays of that size. What an H100 and a v5e would need, by bytes and operations
alone, is an estimate.
"""

import contextlib
import itertools
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
from etils import epath

from backtal_jax.run import sharding
from backtal_jax.video import decode, flow, tvl1
from benchmarks import measure

_SIZES = (340, 256), (224, 224)  # width, height
_OPENCV = 'opencv-contrib-python-headless==4.12.0.88'
_VIDEOS = pathlib.Path(__file__).parents[2] / 'shared' / 'data' / 'video'
_FRAMES = 20, 80, 140, 200  # of each video, and the next one
_MOTIONS = (0.3, -0.2), (2.5, 1.0), (-1.25, 3.5), (6.0, -2.0)  # pixels x, y
_REPEATS = 3
# Of a pixel an iteration reads the flow, its dual variables and the warped
# image, and writes the first two: float32.
_BYTES = 4 * (2 + 4 + 4 + 2 + 4)
# Bytes a second of memory; float32 operations a second where published.
_CARDS = {'h100': (3.35e12, 67e12), 'v5e': (0.82e12, np.inf)}

_THEIRS = """
import sys, time
import cv2, numpy
pairs = numpy.load(sys.argv[1])
method = cv2.optflow.DualTVL1OpticalFlow_create()
for line in sys.stdin:
  seconds, cpu = time.perf_counter(), time.process_time()
  method.calc(*pairs[int(line)], None)
  print(time.perf_counter() - seconds, time.process_time() - cpu, flush=True)
"""


def run() -> dict:
  """Measure both sizes."""
  with tempfile.TemporaryDirectory() as folder:
    has_opencv = _install(folder)
    found = {
      f'{x} × {y}': _measure((x, y), folder, has_opencv) for x, y in _SIZES
    }
  first, *others = found
  return found[first] | {'sets': {name: found[name] for name in others}}


def _install(folder):
  """Install OpenCV 4.12 in a folder; return whether that could be done."""
  done = subprocess.run(
    [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps',
     '--disable-pip-version-check', '--target', folder, _OPENCV],
    stdout=sys.stderr,
  )  # fmt: skip
  if done.returncode:
    print(f'{_OPENCV} cannot be installed: its times are missing')
  return done.returncode == 0


def _measure(size, folder, has_opencv):
  """Return the result of one size; times are means over pairs."""
  real, made = _read(size), _make(size)
  pairs = np.array(real + made)
  ours, compile_seconds, iterations = _compile(pairs)
  with contextlib.ExitStack() as stack:
    nothing = lambda i: (np.nan, np.nan)
    theirs = (
      stack.enter_context(_start(folder, pairs)) if has_opencv else nothing
    )
    # [repeats, pairs, ours and theirs, seconds and seconds of CPU].
    times = np.median(
      [
        [(ours(i), theirs(i)) for i in range(len(pairs))]
        for _ in range(_REPEATS)
      ],
      axis=0,
    )
  work = iterations @ _pixels(size)  # pixels, each an iteration
  state = _BYTES * size[0] * size[1] // 2
  (copied,) = measure.interleaved(measure.make_copy(state), repeats=20)
  flop = _count_flop(size)

  def summarise(which):
    (seconds, cpu), (their_seconds, their_cpu) = times[which].mean(axis=0)
    some = work[which].mean()
    others: dict[str, Any] = {}
    if has_opencv:
      others = {
        'opencv_seconds': their_seconds, 'opencv_cpu_seconds': their_cpu,
        'cpu_ratio': cpu / their_cpu,
      }  # fmt: skip
    return measure.result(
      seconds, some * _BYTES * copied / (2 * state), cpu_seconds=cpu,
      iterations=iterations[which].sum(axis=1).mean(),
      gigabytes=some * _BYTES / 1e9, gflop=some * flop / 1e9,
      **{
        f'{name}_estimate_seconds': some * max(_BYTES / memory, flop / rate)
        for name, (memory, rate) in _CARDS.items()
      },
      **others,
    )  # fmt: skip

  found = summarise(np.s_[len(real) :])
  if real:
    found = summarise(np.s_[: len(real)]) | {'made': found}
  return found | {'compile_seconds': compile_seconds}


def _read(size):
  """Return [(before, after)] of real videos; [] where there are none."""
  pairs = []
  for path in sorted(_VIDEOS.glob('*.mp4')):
    frames = decode.read_frames(epath.Path(path), fps=None, size=size)
    some = itertools.islice(frames, max(_FRAMES) + 2)
    grays = [flow.to_gray(frame) for frame in some]
    pairs += [(grays[k], grays[k + 1]) for k in _FRAMES]
  return pairs


def _make(size):
  """Return [(before, after)], waves that move by _MOTIONS."""
  rng = np.random.default_rng(0)
  waves = rng.normal(0, 0.25, size=(40, 2))
  phases, heights = rng.uniform(0, 2 * np.pi, 40), rng.uniform(0, 12, 40)
  y, x = np.mgrid[: size[1], : size[0]]

  def picture(dx, dy):
    value = sum(
      height * np.sin(a * (x - dx) + b * (y - dy) + phase)
      for (a, b), phase, height in zip(waves, phases, heights, strict=True)
    )
    return np.clip(np.round(value + 128), 0, 255).astype(np.uint8)

  return [(picture(0, 0), picture(*motion)) for motion in _MOTIONS]


def _compile(pairs):
  """Return a timed call, seconds of the first, [pairs, scales] iterations.

  The call does as many pairs as `prepare video` does side by side, the i-th
  first, and returns what one took: seconds, and seconds of CPU.
  """
  mesh = sharding.make_mesh((1,))
  count = flow.batch_size(mesh)
  batch = lambda i: np.take(pairs, range(i, i + count), axis=0, mode='wrap')
  estimate = lambda i: tvl1.estimate(*batch(i).swapaxes(0, 1))
  start = time.perf_counter()
  jax.block_until_ready(estimate(0))
  compile_seconds = time.perf_counter() - start

  def call(i):
    images = jax.device_put(batch(i))
    before, after = jax.block_until_ready((images[:, 0], images[:, 1]))
    cpu = time.process_time()
    seconds = measure.seconds(lambda: tvl1.estimate(before, after))
    return seconds / count, (time.process_time() - cpu) / count

  done = [estimate(i)[1][0] for i in range(len(pairs))]
  return call, compile_seconds, np.array(done)


@contextlib.contextmanager
def _start(folder, pairs):
  """Start OpenCV 4.12; give a call that returns its seconds of pair i."""
  path = pathlib.Path(folder, 'pairs.npy')
  np.save(path, pairs)
  with subprocess.Popen(
    [sys.executable, '-c', f'import sys\nsys.path.insert(0, {folder!r})'
     f'{_THEIRS}', path],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  ) as process:  # fmt: skip

    def call(i):
      print(i, file=process.stdin, flush=True)
      return tuple(map(float, process.stdout.readline().split()))

    yield call
    process.stdin.close()


def _pixels(size):
  """Return the pixels of each scale, the smallest first."""
  image = jax.ShapeDtypeStruct((1, *size[::-1]), np.float32)
  return [level.size for level in jax.eval_shape(tvl1._pyramid, image)][::-1]


def _count_flop(size):
  """Return the operations that XLA counts of an iteration, a pixel."""
  image = jax.ShapeDtypeStruct((1, *size[::-1]), np.float32)
  state = tvl1._Flow((image,) * 2, ((image,) * 2,) * 2)
  step = jax.jit(tvl1._step).lower(state, tvl1._Warped(*(image,) * 4))
  return step.compile().cost_analysis()['flops'] / image.size
