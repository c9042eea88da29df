"""Convolutions, their affinity and the products they are made of.

The products stand in the form that XLA runs fastest (docs/performance.md).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# The outputs of layers: what rematerialisation keeps; the wide arrays between
# neighbours and sums, three and nine times as large, it computes again.
KEPT = 'layer'
# PyTorch's Conv1d default: uniform in ±1/sqrt(fan_in).
_kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def _dot(a, b, axes, dtype):
  """Contract one axis of two matrices; float32 is so on accelerators too."""
  return jax.lax.dot_general(
    a,
    b,
    (axes, ((), ())),
    precision=jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None,
    preferred_element_type=dtype,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(
  x: Float[Array, 'B T F'], kernel: Float[Array, 'F G'], dtype: DTypeLike
) -> Float[Array, 'B T G']:
  """Multiply in `dtype`.

  The gradients are the usual ones. They are written out because JAX's own
  weight gradient is transposed and over two axes, for which XLA copies an
  operand; as matrices, both are plain products.
  """
  rows = x.reshape(-1, x.shape[-1]).astype(dtype)
  y = _dot(rows, kernel.astype(dtype), ((1,), (0,)), dtype)
  return y.reshape(*x.shape[:-1], -1)


def _product_forward(x, kernel, dtype):
  return product(x, kernel, dtype), (x, kernel)


def _product_backward(dtype, residuals, gradient):
  x, kernel = residuals
  rows = gradient.reshape(-1, gradient.shape[-1])
  dx = _dot(rows, kernel.astype(dtype), ((1,), (1,)), dtype)
  columns = x.reshape(-1, x.shape[-1]).astype(dtype)
  dkernel = _dot(columns, rows, ((0,), (0,)), kernel.dtype)
  return dx.reshape(x.shape).astype(x.dtype), dkernel


product.defvjp(_product_forward, _product_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def shared_product(
  x: list[Float[Array, 'B T F']], kernel: Float[Array, 'F G'], dtype: DTypeLike
) -> list[Float[Array, 'B T G']]:
  """Multiply several arrays by one kernel, as `product` would each.

  Their weight gradient is one product over them all. A sum of one a piece
  would be summed over the devices piece by piece, at twice the bytes.
  """
  return [product(a, kernel, dtype) for a in x]


def _shared_forward(x, kernel, dtype):
  return shared_product(x, kernel, dtype), (x, kernel)


def _shared_backward(dtype, residuals, gradients):
  x, kernel = residuals
  rows = [g.reshape(-1, g.shape[-1]) for g in gradients]
  dx = [
    _dot(r, kernel.astype(dtype), ((1,), (1,)), dtype)
    .reshape(a.shape).astype(a.dtype)
    for a, r in zip(x, rows, strict=True)
  ]  # fmt: skip
  # Stacked, not appended: the rows of both are split over the devices.
  columns = jnp.stack([a.reshape(-1, a.shape[-1]) for a in x]).astype(dtype)
  axes = (0, 1), (0, 1)
  return dx, _dot(columns, jnp.stack(rows), axes, kernel.dtype)


shared_product.defvjp(_shared_forward, _shared_backward)


def dropout(
  rng: jax.Array, x: list[Float[Array, 'B T H']], rate: float
) -> list[Float[Array, 'B T H']]:
  """Drop a share of each of at most two arrays, independently.

  Each takes one half of the same 32-bit samples, which halves the cost of the
  random bits; the rate is met to 1/65536.
  """
  kept = round((1 - rate) * 2**16)
  bits = jax.random.bits(rng, x[0].shape, jnp.uint32)
  halves = bits >> 16, bits & 0xFFFF
  return [
    jnp.where(half < kept, a * (2**16 / kept), 0).astype(a.dtype)
    for a, half in zip(x, halves, strict=False)
  ]


def neighbours(x: Float[Array, 'B T *F']) -> list[Float[Array, 'B T *F']]:
  """Return x[t-1], x[t] and x[t+1], zeros beyond the ends."""
  padded = jnp.pad(x, [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 2))
  return [padded[:, k : k + x.shape[1]] for k in range(3)]


def similarities(e: Float[Array, 'B T E']) -> list[Float[Array, 'B T']]:
  """Return cos(e[t], e[t+j-1]) for j = 0, 1, 2; 0 beyond the ends."""
  square = jnp.sum(e * e, axis=-1)
  return [
    jnp.sum(e * other, axis=-1)
    * jax.lax.rsqrt(jnp.maximum(square * other_square, 1e-16))
    for other, other_square in zip(
      neighbours(e), neighbours(square), strict=True
    )
  ]


def similarity_index(affinity: str, channels: int) -> np.ndarray:
  """Return [3, channels]: the similarity j that scales channel c at offset k.

  `paper`: the neighbour's own, j = k. `official`: j = (3c + k) // channels,
  as the published checkpoints were trained (method.md 2.3); for every k that
  cuts the channels into three runs.
  """
  k, c = np.mgrid[:3, :channels]
  return k if affinity == 'paper' else (3 * c + k) // channels


class Conv(nn.Module):
  """A convolution along T, zeros beyond the ends, PyTorch's initialisation."""

  features: int
  width: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'B T F']) -> Float[Array, 'B T G']:
    fan_in = self.width * x.shape[-1]
    shape = (self.width, x.shape[-1], self.features)
    kernel = self.param('kernel', _kernel_init, shape)
    taps = neighbours(x) if self.width == 3 else [x]
    x = sum(
      product(tap, weights, self.dtype)
      for tap, weights in zip(taps, kernel, strict=True)
    )
    bound = fan_in**-0.5
    init = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
    x += self.param('bias', init, (self.features,)).astype(self.dtype)
    return checkpoint_name(x, KEPT)


class AffinityConv(nn.Module):
  """The affinity-weighted convolution of kernel size 3 (method.md 2.3).

  y[t] = Σ_k Σ_c s_{g(k,c)}[t] · x[t+k-1, c] · W[k, c], where s_j is the
  similarity with the left neighbour, itself and the right neighbour, and
  g(k, c) is `similarity_index`. Two ways to the same sum: `__call__` scales
  the input, `gated` shares the products of inputs that differ by a gate.
  """

  in_features: int
  features: int
  affinity: str = 'official'
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    shape = (3, self.in_features, self.features)
    self.kernel = self.param('kernel', _kernel_init, shape)
    self.index = similarity_index(self.affinity, self.in_features)

  def __call__(
    self, x: list[Float[Array, 'B T F']], similarity: list[Float[Array, 'B T']]
  ) -> list[Float[Array, 'B T G']]:
    """Scale the neighbours' channels of every x, then multiply."""
    similarity = jnp.stack(similarity, axis=-1)
    outputs: list[Any] = [0.0 for _ in x]
    shifted = zip(*map(neighbours, x), strict=True)
    for j, taps, kernel in zip(self.index, shifted, self.kernel, strict=True):
      # A product with one-hot columns spreads exactly, and its gradient is
      # again a product.
      spread = jax.nn.one_hot(j, 3, axis=0, dtype=similarity.dtype)
      scale = product(similarity, spread, self.dtype)
      scaled = [scale * tap for tap in taps]
      for n, y in enumerate(shared_product(scaled, kernel, self.dtype)):
        outputs[n] += y
    return [checkpoint_name(y, KEPT) for y in outputs]

  def gated(
    self,
    x: Float[Array, 'B T F'],
    similarity: list[Float[Array, 'B T']],
    gates: list[Float[Array, 'B T']],
  ) -> list[Float[Array, 'B T G']]:
    """Return the convolution of gate·x for every gate, multiplying once.

    Similarity and gate are one number a snippet and channel group, so they
    commute with the sum over the group's channels: the tap products
    x[t+k-1, group] · W[k, group] serve every gate, and as x needs no
    gradient the backward pass is one weight-gradient product.
    """
    gates = [neighbours(gate) for gate in gates]
    outputs: list[Any] = [0.0 for _ in gates]
    for k, shifted in enumerate(neighbours(x)):
      cuts = np.flatnonzero(np.diff(self.index[k])) + 1
      for j, part, kernel in zip(
        np.unique(self.index[k]),
        jnp.split(shifted, cuts, axis=-1),
        jnp.split(self.kernel[k], cuts),
        strict=True,
      ):
        tap = product(part, kernel, self.dtype)
        for n, gate in enumerate(gates):
          scale = (similarity[j] * gate[k])[..., None]
          outputs[n] += scale * tap  # in float32
    return [checkpoint_name(y.astype(self.dtype), KEPT) for y in outputs]


class Classifier(nn.Module):
  """A convolution of width 1 without bias, for several inputs at once."""

  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: list[Float[Array, 'B T H']]
  ) -> list[Float[Array, 'B T C1']]:
    shape = (1, x[0].shape[-1], self.features)
    kernel = self.param('kernel', _kernel_init, shape)
    x = shared_product(x, kernel[0], self.dtype)
    return [checkpoint_name(y, KEPT) for y in x]
