"""Optical flow between frames: TV-L1 as published, or the much faster DIS."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from backtal_jax import errors
from backtal_jax.video import needs

KINDS = ('tvl1', 'dis')
_BOUND = 20.0  # pixels; what is faster is cut


def make(kind: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """Return a function from two gray images to their flow [Y, X, 2], pixels."""
  cv2 = needs('cv2')
  if kind == 'dis':
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
  elif not hasattr(cv2, 'optflow'):
    raise errors.InputError(
      'TV-L1 needs opencv-contrib-python-headless instead of the OpenCV that '
      "is installed: pip install 'backtal-jax[video]'"
    )
  else:
    method = cv2.optflow.DualTVL1OpticalFlow_create()
  return lambda before, after: method.calc(before, after, None)


def add_flow(
  frames: Iterable[np.ndarray], kind: str, *, as_bytes: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Pair each frame with the flow from it to the next one.

  Args:
    frames: [Y, X, 3] uint8 each.
    kind: 'tvl1' or 'dis'.
    as_bytes: Round to the 256 steps of flow that is stored as pictures.

  Yields:
    The frame and [Y, X, 2] float32, ±20 pixels as ±1; the last has the flow of
    the one before it.
  """
  cv2, estimate = needs('cv2'), make(kind)
  last: Any = None
  gray: Any = None
  flow = None
  for frame in frames:
    before, gray = gray, cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if last is not None:
      flow = scale(estimate(before, gray), as_bytes=as_bytes)
      yield last, flow
    last = frame
  if last is not None:
    yield last, np.zeros((*gray.shape, 2), 'f4') if flow is None else flow


def scale(flow: np.ndarray, *, as_bytes: bool) -> np.ndarray:
  """Cut flow at ±20 pixels and bring it to [−1, 1]."""
  flow = np.clip(flow / _BOUND, -1, 1)
  if as_bytes:
    flow = np.round((flow + 1) * 127.5) / 127.5 - 1
  return flow.astype(np.float32)
