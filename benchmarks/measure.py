"""Timing, and the limits that timings are compared with."""

import time

import jax
import jax.numpy as jnp
import numpy as np

_SIZE = 3072


def seconds(function) -> float:
  """Time one call, its arrays on the device ready."""
  start = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - start


def interleaved(*functions, repeats=5) -> list[float]:
  """Return each function's median time, the calls taking turns.

  So that a machine that slows down slows all of them down.
  """
  for function in functions:
    jax.block_until_ready(function())
  times = [[seconds(f) for f in functions] for _ in range(repeats)]
  return np.median(times, axis=0).tolist()


def make_square():
  """Return a large square product in float32, and its number of FLOPs."""
  a = jax.random.normal(jax.random.key(0), (_SIZE, _SIZE))
  dot = jax.jit(lambda a: jnp.dot(a, a, precision='highest'))
  return lambda: dot(a), 2 * _SIZE**3


def make_copy(num_bytes):
  """Return a copy of so many bytes in memory."""
  source = np.ones(max(num_bytes, 1), np.uint8)
  target = np.empty_like(source)
  return lambda: np.copyto(target, source)


def result(seconds, limit_seconds, **others) -> dict:
  """Lay out one result."""
  ratio = seconds / limit_seconds
  return dict(
    seconds=seconds, limit_seconds=limit_seconds, ratio=ratio, **others
  )
