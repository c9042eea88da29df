"""Optical flow between frames: TV-L1 as published, or the much faster DIS.

The one place that knows which program estimates it. `tvl1` (ours) gives the
values of OpenCV 4's in less than half of its CPU time (`python -m benchmarks
--only flow`), so it is the default on accelerators and CPU alike. `opencv` is
the TV-L1 of whatever OpenCV is installed; from 5 on its values are others.
"""

import collections
import functools
import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax import lax

from backtal_jax import errors
from backtal_jax.run import sharding
from backtal_jax.video import i3d, needs, tvl1

METHODS = ('tvl1', 'opencv', 'dis')
_NEWER = 'tvl1 of OpenCV 5'  # which no longer rounds positions to 1/32 pixel
_BOUND = 20.0  # pixels; what is faster is cut
# Pairs in one program on each accelerator, which they fill; all wait for the
# slowest, so that a CPU, which gains nothing, has one.
_PAIRS = 16
# Of red, green and blue in gray, as OpenCV has it, of 2¹⁵.
_GRAY = 9798, 19235, 3735


def choose(method: str, recorded: str | None = None) -> str:
  """Return the method that a user names, or the one to take without a name.

  Args:
    method: '' without a name.
    recorded: What a record of features says of its flow, see `describe`.

  Raises:
    errors.InputError: No such method.
  """
  if method and method not in METHODS:
    raise errors.InputError(
      f'--flow_method is {method!r}, expected one of {", ".join(METHODS)}'
    )
  return method or {_NEWER: 'opencv', 'dis': 'dis'}.get(recorded or '', 'tvl1')


def describe(method: str) -> dict[str, str]:
  """Return what a record of features says of a method.

  Returns:
    `flow`, equal where the values are comparable: ours, OpenCV 4's and what
    records from before there was ours call tvl1 are; and `flow_by`, the
    program and its version.
  """
  if method == 'tvl1':
    return {'flow': 'tvl1', 'flow_by': f'backtal_jax {tvl1.VERSION}'}
  version = needs('cv2').__version__
  is_newer = int(version.partition('.')[0]) >= 5
  values = 'dis' if method == 'dis' else _NEWER if is_newer else 'tvl1'
  return {'flow': values, 'flow_by': f'OpenCV {version}'}


def pair(
  frames: Iterable[np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Give each frame the two gray images that its flow goes from and to.

  Yields:
    The frame [Y, X, 3] uint8, itself in gray and the next one; the last frame
    has the two of the one before it, a lone one itself twice.
  """
  last: np.ndarray | None = None
  grays: collections.deque[np.ndarray] = collections.deque(maxlen=2)
  for frame in frames:
    grays.append(to_gray(frame))
    if last is not None:
      yield last, grays[0], grays[1]
    last = frame
  if last is not None:
    yield last, grays[0], grays[-1]


def to_gray(frame: np.ndarray) -> np.ndarray:
  """Return RGB [Y, X, 3] uint8 as gray [Y, X] uint8, as OpenCV rounds it."""
  red, green, blue = (
    frame[..., i] * np.uint32(weight) for i, weight in enumerate(_GRAY)
  )
  return ((red + green + blue + (1 << 14)) >> 15).astype(np.uint8)


def add_flow(
  pairs: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
  method: str,
  mesh: jax.sharding.Mesh,
  *,
  as_bytes: bool,
) -> Iterator[tuple[np.ndarray, np.ndarray | jax.Array]]:
  """Pair each frame with its flow.

  Args:
    pairs: See `pair`, all of one size.
    method: One of METHODS.
    mesh: Devices, on which the flow of `tvl1` stays, whole on each.
    as_bytes: See `scale`.

  Yields:
    The frame and [224, 224, 2], the middle of its flow, see `scale`.
  """
  count, threads, estimate = (
    _ours(mesh, as_bytes) if method == 'tvl1' else _opencv(method, as_bytes)
  )
  pairs, waiting = iter(pairs), collections.deque[Any]()
  is_compiled = False
  with futures.ThreadPoolExecutor(threads) as pool:
    while batch := list(itertools.islice(pairs, count)):
      frames, before, after = zip(*batch, strict=True)
      waiting.append((frames, pool.submit(estimate, before, after)))
      if not is_compiled:
        # By one thread, and it took more memory than estimating does.
        futures.wait([waiting[0][1]])
        sharding.give_back_memory()
        is_compiled = True
      if len(waiting) > threads:
        yield from _next(waiting)
    while waiting:
      yield from _next(waiting)


def _next(waiting):
  """Pair the frames that wait the longest with their flow, which is there."""
  frames, estimating = waiting.popleft()
  return zip(frames, jax.block_until_ready(estimating.result()), strict=False)


def _opencv(method, as_bytes):
  """Return 1 pair that is estimated at once, by 1 thread, and how."""
  cv2 = needs('cv2')
  if method == 'dis':
    program = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
  elif not hasattr(cv2, 'optflow'):
    raise errors.InputError(
      '--flow_method opencv needs opencv-contrib-python-headless instead of '
      "the OpenCV that is installed: pip install 'backtal-jax[video]'"
    )
  else:
    program = cv2.optflow.DualTVL1OpticalFlow_create()

  def estimate(before, after):
    flow = program.calc(before[0], after[0], None)
    return [scale(i3d.cut_centre(flow), as_bytes=as_bytes)]

  return 1, 1, estimate


def _ours(mesh, as_bytes):
  """Return how many pairs a thread estimates at once, the threads, and how."""
  count = batch_size(mesh)
  # A pair keeps a core and a quarter busy, and what one thread dispatches runs
  # one after the other. Several devices exchange flow, all in one order.
  threads = _num_cores() if _on_cpu(mesh) and mesh.size == 1 else 1

  def estimate(*images):
    # The last pair fills the batch.
    filled = (np.stack((*x, *x[-1:] * (count - len(x)))) for x in images)
    pairs = dict(zip(('before', 'after'), filled, strict=True))
    pairs = sharding.shard_batch(pairs, mesh)
    flow, _ = tvl1.estimate(**pairs, compiled=_by_itself(mesh))
    flow = _finish(flow, mesh=mesh, as_bytes=as_bytes)
    # One thread dispatches a batch while the device has the one before.
    return flow if threads == 1 else jax.block_until_ready(flow)

  return count, threads, estimate


def _num_cores():
  """Return how many cores this process may use, where the system says."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def batch_size(mesh: jax.sharding.Mesh) -> int:
  """Return how many pairs `tvl1` estimates at once."""
  return mesh.size * (1 if _on_cpu(mesh) else _PAIRS)


def _on_cpu(mesh):
  return mesh.devices.flat[0].platform == 'cpu'


@functools.cache
def _by_itself(mesh):
  """Return what compiles so that no device waits for another's pairs."""
  spec = sharding.split(mesh).spec
  return functools.cache(
    lambda function: jax.jit(
      jax.shard_map(
        function, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
      )
    )
  )


@functools.partial(jax.jit, static_argnames=('mesh', 'as_bytes'))
def _finish(flow, *, mesh, as_bytes):
  """Return the middle of each flow of a batch, whole on every device."""
  flow = jax.vmap(lambda x: scale(i3d.cut_centre(x), as_bytes=as_bytes))(flow)
  return list(lax.with_sharding_constraint(flow, sharding.replicated(mesh)))


def scale(flow: Any, *, as_bytes: bool) -> Any:
  """Cut flow at ±20 pixels.

  Args:
    flow: Pixels, of NumPy or JAX.
    as_bytes: Round to the 256 steps of flow that is stored as pictures.

  Returns:
    ±20 pixels as ±1, float32, or as 0 to 255, uint8.
  """
  flow = (flow / _BOUND).clip(-1, 1)
  if as_bytes:
    return ((flow + 1) * 127.5).round().astype('uint8')
  return flow.astype('float32')
