"""I3D, the inflated Inception network of Carreira and Zisserman (2017).

Inference only, batch normalisation folded into the convolutions (see
`weights`). Letters of shapes: N clips, L frames, X and Y pixels, F channels.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# By module and tensor, some modules in others: float32 arrays.
Params = dict[str, Any]
SIZE = 224  # pixels of a frame, both ways
CHANNELS = {'rgb': 3, 'flow': 2}
# Branches b0; b1a, b1b; b2a, b2b; b3b of the nine Mixed blocks.
MIXED = {
  '3b': (64, 96, 128, 16, 32, 32),
  '3c': (128, 128, 192, 32, 96, 64),
  '4b': (192, 96, 208, 16, 48, 64),
  '4c': (160, 112, 224, 24, 64, 64),
  '4d': (128, 128, 256, 24, 64, 64),
  '4e': (112, 144, 288, 32, 64, 64),
  '4f': (256, 160, 320, 32, 128, 128),
  '5b': (256, 160, 320, 32, 128, 128),
  '5c': (384, 192, 384, 48, 128, 128),
}
_POOLS = {'4b': (3, 3, 3), '5b': (2, 2, 2)}  # before these blocks, stride 2


def _convolve(x, kernel, stride):
  """Convolve with zeros around as TensorFlow's SAME puts them.

  The one place that chooses how: on accelerators XLA's 3-D convolution. On
  CPU that takes 1.5 to 8 times as long as its product would; XLA's 2-D one
  doesn't (`python -m benchmarks --only i3d`).
  """
  if len(kernel) == 1:
    return jnp.dot(x, kernel[0, 0, 0], precision=_precision(x))
  return lax.platform_dependent(
    x,
    kernel,
    cpu=functools.partial(_in_two, stride=stride),
    default=functools.partial(_in_three, stride=stride),
  )


def _precision(x):
  return 'highest' if x.dtype == jnp.float32 else None


def _in_three(x, kernel, stride):
  return lax.conv_general_dilated(
    x, kernel, (stride,) * 3, 'SAME',
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'), precision=_precision(x),
  )  # fmt: skip


def _in_two(x, kernel, stride):
  """Let the kernel's steps through time be channels of a 2-D convolution."""
  steps = jnp.concatenate(_shifted(x, 1, len(kernel), stride), axis=-1)
  y = lax.conv_general_dilated(
    steps.reshape(-1, *steps.shape[2:]), jnp.concatenate(list(kernel), axis=-2),
    (stride,) * 2, 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=_precision(x),
  )  # fmt: skip
  return y.reshape(*steps.shape[:2], *y.shape[1:])


def _shifted(x, axis, window, stride):
  """Return what a window sees at each of its places, zeros around (SAME)."""
  length = x.shape[axis]
  count = -(-length // stride)
  missing = max((count - 1) * stride + window - length, 0)
  padding = [(0, 0)] * x.ndim
  padding[axis] = missing // 2, missing - missing // 2
  x, last = jnp.pad(x, padding), (count - 1) * stride + 1
  return [lax.slice_in_dim(x, k, k + last, stride, axis) for k in range(window)]


def _max_pool(x, window, stride):
  """Take maxima one axis after the other; after ReLU zeros are no maximum."""
  for axis, (w, s) in enumerate(zip(window, stride, strict=True), 1):
    x = functools.reduce(jnp.maximum, _shifted(x, axis, w, s))
  return x


class Unit(nn.Module):
  """A convolution with bias, and ReLU."""

  features: int
  width: int = 1
  stride: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'N L Y X F']) -> Float[Array, 'N M V U G']:
    shape = (*(self.width,) * 3, x.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.he_normal(), shape)
    bias = self.param('bias', nn.initializers.zeros, shape[-1:])
    y = _convolve(x, kernel.astype(x.dtype), self.stride)
    return nn.relu(y + bias.astype(x.dtype))


class Mixed(nn.Module):
  """Four branches side by side."""

  widths: tuple[int, ...]

  @nn.compact
  def __call__(self, x: Float[Array, 'N L Y X F']) -> Float[Array, 'N L Y X G']:
    b0, b1a, b1b, b2a, b2b, b3b = self.widths
    branches = [
      Unit(b0, name='b0')(x),
      Unit(b1b, 3, name='b1b')(Unit(b1a, name='b1a')(x)),
      Unit(b2b, 3, name='b2b')(Unit(b2a, name='b2a')(x)),
      Unit(b3b, name='b3b')(_max_pool(x, (3, 3, 3), (1, 1, 1))),
    ]
    return jnp.concatenate(branches, axis=-1)


class I3D(nn.Module):
  """Clips in [−1, 1] to features; `classify` goes on to Kinetics' classes."""

  dtype: Any = jnp.float32

  def setup(self) -> None:
    self.Conv3d_1a_7x7 = Unit(64, 7, 2)
    self.Conv3d_2b_1x1 = Unit(64)
    self.Conv3d_2c_3x3 = Unit(192, 3)
    for name, widths in MIXED.items():
      setattr(self, f'Mixed_{name}', Mixed(widths))
    self.logits = nn.Dense(400)

  def __call__(
    self, clips: Float[Array, 'N L 224 224 F']
  ) -> Float[Array, 'N M 1024']:
    """Return the features before their mean over time, M = ⌈L / 8⌉ − 1.

    Of the average pool's window (2, 7, 7), stride 1; M is at least 1.
    """
    in_space = (1, 3, 3), (1, 2, 2)
    x = self.Conv3d_1a_7x7(clips.astype(self.dtype))
    x = self.Conv3d_2b_1x1(_max_pool(x, *in_space))
    x = _max_pool(self.Conv3d_2c_3x3(x), *in_space)
    for name in MIXED:
      if name in _POOLS:
        x = _max_pool(x, _POOLS[name], (2, 2, 2))
      x = getattr(self, f'Mixed_{name}')(x)
    x = x.astype(jnp.float32).mean(axis=(2, 3))
    if self.is_initializing():
      self.logits(x)
    return (x[:, :-1] + x[:, 1:]) / 2 if x.shape[1] > 1 else x

  def classify(
    self, features: Float[Array, '*N 1024']
  ) -> Float[Array, '*N 400']:
    """Return the logits of Kinetics' 400 classes."""
    return self.logits(features)


def cut_centre(pixels: Any) -> Any:
  """Cut the middle 224 × 224 out of pixels [Y, X, channels]."""
  top, left = ((n - SIZE) // 2 for n in pixels.shape[:2])
  return pixels[top : top + SIZE, left : left + SIZE]


def to_unit(clips: Array) -> Array:
  """Bring bytes to [−1, 1]; what is no bytes is there already."""
  if clips.dtype != jnp.uint8:
    return clips
  return clips.astype(jnp.float32) * (2 / 255) - 1


def shapes(stream: str) -> Params:
  """Return the tree of a stream's parameters as shapes."""
  clips = jax.ShapeDtypeStruct((1, 9, SIZE, SIZE, CHANNELS[stream]), 'float32')
  return jax.eval_shape(I3D().init, jax.random.key(0), clips)['params']


@functools.partial(jax.jit, static_argnames='dtype')
def encode(params: Params, clips: Array, *, dtype: str = 'float32') -> Array:
  """Encode clips [N, L, 224, 224, 3 or 2], bytes or floats in [−1, 1].

  Activations and products are float32 or bfloat16. Returns [N, 1024] float32,
  at least 0.
  """
  return I3D(jnp.dtype(dtype)).apply({'params': params}, to_unit(clips)).mean(1)


@jax.jit
def classify(params: Params, features: Array) -> Array:
  """Return [N, 400] probabilities of Kinetics' classes of features."""
  logits = I3D().apply({'params': params}, features, method='classify')
  return jax.nn.softmax(logits)
