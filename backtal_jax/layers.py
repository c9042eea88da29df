"""Matrix products and dropout, in the form that XLA runs fastest."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
  x: Float[Array, 'B T F'], kernel: Float[Array, 'F G'], dtype: Any
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
  x: list[Float[Array, 'B T F']], kernel: Float[Array, 'F G'], dtype: Any
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
  rng: Any, x: list[Float[Array, 'B T H']], rate: float
) -> list[Float[Array, 'B T H']]:
  """Drop a share of each of at most two arrays, independently.

  Each takes one half of the same 32-bit draws, which halves the cost of the
  random bits; the rate is met to 1/65536.
  """
  kept = round((1 - rate) * 2**16)
  bits = jax.random.bits(rng, x[0].shape, jnp.uint32)
  halves = bits >> 16, bits & 0xFFFF
  return [
    jnp.where(half < kept, a * (2**16 / kept), 0).astype(a.dtype)
    for a, half in zip(x, halves, strict=False)
  ]
