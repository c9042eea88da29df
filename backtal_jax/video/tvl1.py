"""Optical flow by TV-L1, equal to OpenCV 4's program, on whatever JAX runs on.

Zach, Pock and Bischof, A Duality Based Approach for Realtime TV-L1 Optical Flow
(2007), as Sánchez, Meinhardt-Llopis and Facciolo describe it (IPOL 2013), with
the choices of OpenCV 4's DualTVL1OpticalFlow; docs/video.md has it in words.
All arrays are [B, Y, X] float32 unless said otherwise, B pairs side by side,
each of which stops for itself.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# What a record of features says of this program.
VERSION = 1
_TAU, _LAMBDA, _THETA = 0.25, 0.15, 0.3
_SCALES, _STEP, _LEAST = 5, 0.8, 16
_WARPS, _OUTER, _INNER = 5, 10, 30
_EPSILON = 0.01
_MEDIAN = 5
_FRACTIONS = 32  # positions are rounded to one part of so many of a pixel
_FLAT = np.finfo(np.float32).eps
_LOWEST = np.finfo(np.float32).min
_CUBIC = -0.75  # the cubic kernel's slope at 1
_MAGIC = np.int32(0x5F3759DF)  # of the quick inverse square root


def _times(a, b):
  """Multiply, and round.

  XLA would join a product and a sum to one operation that rounds once, and
  OpenCV's builds do not: the maximum, which changes nothing, keeps them apart.
  Rounding decides when a pair stops and which part of a pixel is sampled, so
  that without this a tenth of the 8-bit values differ by one.
  """
  return jnp.maximum(a * b, _LOWEST)


class _Warped(NamedTuple):
  """The second image where the flow points, made linear around it.

  Attributes:
    x, y: Its gradient.
    length: The gradient's squared length.
    rest: Brightness that the flow leaves unexplained, at no flow.
  """

  x: jax.Array
  y: jax.Array
  length: jax.Array
  rest: jax.Array


class _Flow(NamedTuple):
  """Flow along x and y in pixels, and the dual variables of their gradients."""

  u: tuple[jax.Array, jax.Array]
  dual: tuple[tuple[jax.Array, jax.Array], ...]


class _Progress(NamedTuple):
  """Where the iterations are.

  Attributes:
    flow: So far.
    error: [B] squared change by the last iteration.
    rounds: Of the loop that this is the state of.
    done: [B] iterations of each pair.
  """

  flow: _Flow
  error: jax.Array
  rounds: int | jax.Array
  done: jax.Array


def estimate(
  before: jax.Array,
  after: jax.Array,
  compiled: Callable[..., Any] = jax.jit,
) -> tuple[jax.Array, ...]:
  """Estimate the flow from one image to another.

  Each scale is a program of its own: compiling one takes 100 MiB, all of them
  together 440.

  Args:
    before, after: [B, Y, X] gray values 0 to 255, of any type.
    compiled: Compiles a function of arrays [B, …] to such arrays.

  Returns:
    [B, Y, X, 2] float32, pixels along x and y; and [B, scales] the inner
    iterations done, of the smallest scale first.
  """
  pyramids = (compiled(_pyramid)(x)[::-1] for x in (before, after))
  u: tuple[jax.Array, ...] = ()
  done = []
  for first, second in zip(*pyramids, strict=True):
    u, count = compiled(_solve)(first, second, u)
    done.append(count)
  return jnp.stack(u, axis=-1), jnp.stack(done, axis=-1)


def _pyramid(image):
  """Return the image and its smaller copies, the largest first."""
  levels = [image.astype(jnp.float32)]
  while len(levels) < _SCALES:
    size = [round(n * _STEP) for n in levels[-1].shape[1:]]
    if min(size) < _LEAST:
      break
    levels.append(_resize(levels[-1], (len(image), *size), 1 / _STEP))
  return levels


def _resize(image, shape, ratio):
  """Resize bilinearly; `ratio` of old to new pixels, None: of the sizes."""
  for axis in (2, 1):
    size, new = image.shape[axis], shape[axis]
    place = (np.arange(new) + 0.5) * (ratio or size / new) - 0.5
    low = np.floor(place).astype(int)
    part = (place - low).astype(np.float32)
    low, high = (
      jnp.take(image, np.clip(n, 0, size - 1), axis=axis)
      for n in (low, low + 1)
    )
    image = low + (high - low) * part.reshape((-1, 1) if axis == 1 else -1)
  return image


def _solve(first, second, u):
  """Return the flow at one scale, from a smaller one's, and [B] iterations."""
  zero = jnp.zeros_like(first)
  if not u:
    u = zero, zero
  else:
    u = tuple(_resize(x, first.shape, None) * np.float32(1 / _STEP) for x in u)
  # The squared change of a whole image below which a pair is done.
  enough = np.float32(_EPSILON**2 * first[0].size)
  images = jnp.stack([second, *_centred_gradient(second)], axis=-1)

  def warp(_, state):
    u, dual, done = state
    moved, dx, dy = jnp.moveaxis(_sample(images, *u), -1, 0)
    length = _times(dx, dx) + _times(dy, dy)
    rest = moved - _times(dx, u[0]) - _times(dy, u[1]) - first
    warped = _Warped(dx, dy, length, rest)
    flow, count = _iterate(_Flow(u, dual), warped, enough)
    return flow.u, flow.dual, done + count

  state = u, ((zero, zero),) * 2, jnp.zeros(len(first), jnp.int32)
  u, _, done = lax.fori_loop(0, _WARPS, warp, state)
  return u, done


def _iterate(flow, warped, enough):
  """Iterate until each pair changes little; return the flow and [B] counts."""

  def going(state, most):
    return (state.rounds < most) & jnp.any(state.error > enough)

  def outer_step(state):
    filtered = jnp.split(_median(jnp.concatenate(state.flow.u)), 2)
    u = _where(state.error > enough, tuple(filtered), state.flow.u)
    inner = lax.while_loop(
      functools.partial(going, most=_INNER),
      inner_step,
      state._replace(flow=state.flow._replace(u=u), rounds=0),
    )
    return inner._replace(rounds=state.rounds + 1)

  def inner_step(state):
    active = state.error > enough
    new, error = _step(state.flow, warped)
    return _Progress(
      _where(active, new, state.flow),
      jnp.where(active, error, state.error),
      state.rounds + 1,
      state.done + active,
    )

  batch = len(warped.x)
  start = jnp.full(batch, jnp.inf), 0, jnp.zeros(batch, jnp.int32)
  state = lax.while_loop(
    functools.partial(going, most=_OUTER), outer_step, _Progress(flow, *start)
  )
  return state.flow, state.done


def _where(active, new, old):
  """Choose by pair; a lone one goes on only while it is active."""
  if len(active) == 1:
    return new
  choose = lambda a, b: jnp.where(active[:, None, None], a, b)
  return jax.tree.map(choose, new, old)


def _step(flow, warped):
  """Do one inner iteration; return the flow, and [B] its squared change."""
  (u, v), dual = flow
  # The data term moves against the gradient, as far as it explains the rest,
  # at most λθ of it.
  most = np.float32(_LAMBDA * _THETA)
  away = warped.rest + (_times(warped.x, u) + _times(warped.y, v))
  away = jnp.where(
    jnp.abs(away) > _times(most, warped.length), jnp.copysign(most, away),
    jnp.where(warped.length > _FLAT, away / warped.length, 0),
  )  # fmt: skip
  theta = np.float32(_THETA)
  new_u = u - _times(away, warped.x) + _times(theta, _divergence(*dual[0]))
  new_v = v - _times(away, warped.y) + _times(theta, _divergence(*dual[1]))
  # What reads neighbours is computed from memory, not over again.
  new_u, new_v = lax.optimization_barrier((new_u, new_v))
  change = (new_u - u) ** 2 + (new_v - v) ** 2
  error = change.sum(axis=1).sum(axis=1)
  dual = tuple(map(_ascend, (new_u, new_v), dual))
  return _Flow((new_u, new_v), dual), error


def _ascend(u, dual):
  """Move the dual variables along the flow's gradient, and back into bounds."""
  step = np.float32(_TAU / _THETA)
  dx = jnp.pad(u[:, :, 1:] - u[:, :, :-1], ((0, 0), (0, 0), (0, 1)))
  dy = jnp.pad(u[:, 1:] - u[:, :-1], ((0, 0), (0, 1), (0, 0)))
  scale = 1 + _times(step, _length(dx, dy))
  return tuple(
    (p + _times(step, d)) / scale for p, d in zip(dual, (dx, dy), strict=True)
  )


def _length(x, y):
  """Return the square root of x² + y², rounded once, as C's hypot is.

  Without a square root or a division, which XLA on CPU does not fuse: the dual
  variables are then computed in one pass over memory each.
  """
  xx, yy = _times(x, x), _times(y, y)
  total = xx + yy
  # A guess at 1/√total by its exponent, made exact to seven digits by Newton.
  half = lax.bitcast_convert_type(total, jnp.int32) >> 1
  inverse = lax.bitcast_convert_type(_MAGIC - half, jnp.float32)
  for _ in range(3):
    inverse *= 1.5 - (0.5 * total * inverse) * inverse
  root = total * inverse
  # What was rounded away: in the sum, in both squares, and in the root.
  rest = total - xx
  lost = (xx - (total - rest)) + (yy - rest)
  lost += _square_less(x, xx) + _square_less(y, yy)
  lost -= _square_less(root, total)
  return root + 0.5 * lost * inverse


def _square_less(x, square):
  """Return x² − `square`, exact where the two are joined to one operation."""
  return x * jnp.maximum(x, _LOWEST) - square


def _divergence(p, q):
  """Return backward differences, of p along x and of q along y; 0 outside."""
  along = jnp.pad(p[:, :, 1:] - p[:, :, :-1], ((0, 0), (0, 0), (1, 0)))
  above = jnp.pad(q[:, :-1], ((0, 0), (1, 0), (0, 0)))
  first = np.arange(p.shape[2]) == 0
  # OpenCV adds up in another order there, which a hundred iterations show.
  return along + (jnp.where(first, p + q, q) - above)


def _centred_gradient(image):
  """Return half the difference of both neighbours; at an edge, of one."""
  wide = jnp.pad(image, ((0, 0), (1, 1), (1, 1)), mode='edge')
  dx = wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]
  dy = wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]
  return 0.5 * dx, 0.5 * dy


def _sample(images, u, v):
  """Sample [B, Y, X, N] where the flow points, cubic, 0 outside."""
  _, height, width, channels = images.shape
  grid_y, grid_x = np.mgrid[:height, :width].astype(np.float32)
  cells, weights = zip(_place(grid_y + v), _place(grid_x + u), strict=True)
  margin = 4
  wide = jnp.pad(images, ((0, 0), (margin,) * 2, (margin,) * 2, (0, 0)))
  # Whatever lies farther out than the margin sees nothing but zeros.
  top = jnp.clip(cells[0] + margin - 1, 0, height + margin)
  left = jnp.clip(cells[1] + margin - 1, 0, width + margin)
  # Four neighbours in a row, all channels, lie side by side in memory.
  rows = wide.reshape(len(wide), -1)
  by_row = one_by_one = 0
  for j in range(4):
    at = ((top + j) * (width + 2 * margin) + left) * channels
    found = _take_slices(rows, at, 4 * channels)
    found = found.reshape(*at.shape, 4, channels)
    row = 0
    for i in range(4):
      weight = weights[0][j] * weights[1][i]
      product = _times(found[..., i, :], weight[..., None])
      row += product
      one_by_one += product
    by_row += row
  # OpenCV adds up in another order where a neighbour lies outside.
  y, x = cells
  inside = (y >= 1) & (y < height - 2) & (x >= 1) & (x < width - 2)
  return jnp.where(inside[..., None], by_row, one_by_one)


def _take_slices(rows, at, size):
  """Return [B, Y, X, size]: what begins at `at` in each of [B, N]."""
  numbers = lax.GatherDimensionNumbers(
    offset_dims=(2,), collapsed_slice_dims=(), start_index_map=(0,)
  )
  one = functools.partial(
    lax.gather, dimension_numbers=numbers, slice_sizes=(size,),
    mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
  )  # fmt: skip
  return jax.vmap(one)(rows, at[..., None])


def _place(position):
  """Return the pixel before each position, and the four cubic weights."""
  steps = jnp.round(position * _FRACTIONS).astype(jnp.int32)
  part, t = steps % _FRACTIONS, np.arange(_FRACTIONS, dtype='f4') / _FRACTIONS
  a = np.float32(_CUBIC)
  first = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
  second = ((a + 2) * t - (a + 3)) * t * t + 1
  third = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1
  weights = first, second, third, 1 - first - second - third
  return steps // _FRACTIONS, [jnp.take(jnp.asarray(w), part) for w in weights]


# Sorts five values.
_SORT = ((0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2))
# Of a 5 × 5 window whose columns and rows are sorted these may be the median
# (row, column), and comparing them so brings it to place 6; found by pruning
# Batcher's network with the 252 windows of zeros and ones that are sorted.
_MAYBE = ((2, 1), (0, 3), (3, 0), (1, 2), (3, 1), (0, 4), (1, 4), (3, 2),
          (2, 2), (1, 3), (4, 0), (4, 1), (2, 3))  # fmt: skip
_SELECT = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (0, 2), (1, 3), (8, 10),
           (9, 11), (1, 2), (5, 6), (9, 10), (2, 4), (3, 5), (10, 12), (3, 4),
           (4, 8), (5, 9), (6, 10), (3, 5), (6, 8), (5, 6))  # fmt: skip


def _compare(values, pairs):
  """Put the smaller of each pair of places first; return the new list."""
  values = list(values)
  for i, j in pairs:
    a, b = values[i], values[j]
    values[i], values[j] = jnp.minimum(a, b), jnp.maximum(a, b)
  return values


def _median(image):
  """Take the median of 5 × 5 pixels, the edge's repeated outside.

  A column is sorted once for the five windows that it is part of.
  """
  around = _MEDIAN // 2
  height, width = image.shape[1:]
  wide = jnp.pad(image, ((0, 0), (around,) * 2, (around,) * 2), mode='edge')
  columns = _compare([wide[:, i : i + height] for i in range(_MEDIAN)], _SORT)
  columns = lax.optimization_barrier(tuple(columns))
  rows = [
    _compare([c[:, :, i : i + width] for i in range(_MEDIAN)], _SORT)
    for c in columns
  ]
  return _compare([rows[i][j] for i, j in _MAYBE], _SELECT)[6]
