"""The network of BackTAL (method.md, section 2), channels last.

Two branches share every parameter: *base* sees the features x, *supp* (the
background suppressed) sees w·x, w[t] the foreground weight of a snippet.
Everything in float32 but activations and products, which are in `dtype`.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from backtal_jax import layers

AFFINITY_KINDS = ('official', 'paper')
# The outputs of layers: what rematerialisation keeps; the wide arrays between
# neighbours and sums, three and nine times as large, it computes again.
KEPT = 'layer'
# PyTorch's Conv1d default: uniform in ±1/sqrt(fan_in).
_kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


class Outputs(NamedTuple):
  """What the network computes; the base branch only when training."""

  score_base: Float[Array, 'B C1'] | None
  cas_base: Float[Array, 'B T C1'] | None
  score_supp: Float[Array, 'B C1']
  cas_supp: Float[Array, 'B T C1']
  feature_supp: Float[Array, 'B T H']
  embedding: Float[Array, 'B T E']
  foreground: Float[Array, 'B T']


def topk_size(num_snippets: int, ratio: float) -> int:
  """Return K = int(T · ratio), at least one snippet."""
  return max(1, int(num_snippets * ratio))


def topk_mask(cas: Float[Array, 'B T C'], k: int) -> Float[Array, 'B T C']:
  """Mark the k largest snippets of every class with 1, the others with 0.

  Exactly k also where values tie (the earlier snippets win). Sorting instead
  of lax.top_k, which gathers a batch-sharded array on every device; a mask
  instead of indices, so that the gradient needs no scatter.
  """
  cas = jax.lax.stop_gradient(cas)
  kth = jnp.sort(cas, axis=1)[:, cas.shape[1] - k, None, :]
  above, equal = cas > kth, cas == kth
  room = k - above.sum(axis=1, keepdims=True)
  tied = equal & (jnp.cumsum(equal, axis=1) <= room)
  return (above | tied).astype(cas.dtype)


def video_score(
  cas: Float[Array, 'B T C'], ratio: float
) -> Float[Array, 'B C']:
  """Average the K = int(T · ratio) largest logits of every class."""
  k = topk_size(cas.shape[1], ratio)
  return (topk_mask(cas, k) * cas).sum(axis=1) / k


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


def _full(x: Float[Array, '...']) -> Float[Array, '...']:
  """Go back to float32 (or float64), where `dtype` does not reach."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


leaky_relu = nn.leaky_relu  # its own slope is the official one


class Conv(nn.Module):
  """A convolution along T, zeros beyond the ends, PyTorch's initialisation."""

  features: int
  width: int
  use_bias: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'B T F']) -> Float[Array, 'B T G']:
    fan_in = self.width * x.shape[-1]
    shape = (self.width, x.shape[-1], self.features)
    kernel = self.param('kernel', _kernel_init, shape)
    taps = neighbours(x) if self.width == 3 else [x]
    x = sum(
      layers.product(tap, weights, self.dtype)
      for tap, weights in zip(taps, kernel, strict=True)
    )
    if self.use_bias:
      bound = fan_in**-0.5
      init = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
      x += self.param('bias', init, (self.features,)).astype(self.dtype)
    return checkpoint_name(x, KEPT)


class Embedding(nn.Module):
  """Map every snippet to a unit vector that tells action from background."""

  reduce_dim: int
  embedding_dim: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'B T D']) -> Float[Array, 'B T E']:
    x = Conv(self.reduce_dim, 3, dtype=self.dtype, name='conv_1')(x)
    conv_2 = Conv(self.embedding_dim, 3, dtype=self.dtype, name='conv_2')
    x = _full(conv_2(leaky_relu(x)))
    # rsqrt of a guarded square: the norm itself has a NaN gradient at 0.
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


class Filter(nn.Module):
  """Weigh every snippet between background (0) and foreground (1)."""

  reduce_dim: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'B T D']) -> Float[Array, 'B T']:
    x = Conv(self.reduce_dim, 1, dtype=self.dtype, name='conv_1')(x)
    x = Conv(1, 1, dtype=self.dtype, name='conv_2')(leaky_relu(x))
    return nn.sigmoid(_full(x[..., 0]))


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
  dtype: Any = jnp.float32

  def setup(self):
    shape = (3, self.in_features, self.features)
    self.kernel = self.param('kernel', _kernel_init, shape)
    self.index = similarity_index(self.affinity, self.in_features)

  def __call__(
    self, x: list[Float[Array, 'B T F']], similarity: list[Float[Array, 'B T']]
  ) -> list[Float[Array, 'B T G']]:
    """Scale the neighbours' channels of every x, then multiply."""
    similarity = jnp.stack(similarity, axis=-1)
    outputs = [0.0 for _ in x]
    shifted = zip(*map(neighbours, x), strict=True)
    for j, taps, kernel in zip(self.index, shifted, self.kernel, strict=True):
      # A product with one-hot columns spreads exactly, and its gradient is
      # again a product.
      spread = jax.nn.one_hot(j, 3, axis=0, dtype=similarity.dtype)
      scale = layers.product(similarity, spread, self.dtype)
      scaled = [scale * tap for tap in taps]
      for n, y in enumerate(layers.shared_product(scaled, kernel, self.dtype)):
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
    outputs = [0.0 for _ in gates]
    for k, shifted in enumerate(neighbours(x)):
      cuts = np.flatnonzero(np.diff(self.index[k])) + 1
      for j, part, kernel in zip(
        np.unique(self.index[k]),
        jnp.split(shifted, cuts, axis=-1),
        jnp.split(self.kernel[k], cuts),
        strict=True,
      ):
        tap = layers.product(part, kernel, self.dtype)
        for n, gate in enumerate(gates):
          scale = (similarity[j] * gate[k])[..., None]
          outputs[n] += scale * tap  # in float32
    return [checkpoint_name(y.astype(self.dtype), KEPT) for y in outputs]


class Classifier(nn.Module):
  """A convolution of width 1 without bias, for several inputs at once."""

  features: int
  dtype: Any

  @nn.compact
  def __call__(
    self, x: list[Float[Array, 'B T H']]
  ) -> list[Float[Array, 'B T C1']]:
    shape = (1, x[0].shape[-1], self.features)
    kernel = self.param('kernel', _kernel_init, shape)
    x = layers.shared_product(x, kernel[0], self.dtype)
    return [checkpoint_name(y, KEPT) for y in x]


class Backbone(nn.Module):
  """Two affinity convolutions and the classifier, for any number of gates."""

  num_classes: int
  hidden_dim: int
  affinity: str
  dropout_rate: float
  dtype: Any

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B T D'],
    similarity: list[Float[Array, 'B T']],
    gates: list[Float[Array, 'B T']],
    train: bool,
  ) -> tuple[list[Float[Array, 'B T H']], list[Float[Array, 'B T C1']]]:
    """Return the first layer and the CAS of gate·x for every gate."""
    conv = functools.partial(
      AffinityConv,
      features=self.hidden_dim,
      affinity=self.affinity,
      dtype=self.dtype,
    )
    conv_1 = conv(x.shape[-1], name='conv_1')
    conv_2 = conv(self.hidden_dim, name='conv_2')
    classifier = Classifier(self.num_classes + 1, self.dtype, name='classifier')
    if train:
      first = conv_1.gated(x, similarity, gates)
    else:
      first = conv_1(
        [g[..., None].astype(x.dtype) * x for g in gates], similarity
      )
    first = [leaky_relu(y) for y in first]
    second = [leaky_relu(y) for y in conv_2(first, similarity)]
    if train and self.dropout_rate:
      second = layers.dropout(
        self.make_rng('dropout'), second, self.dropout_rate
      )
    return first, [_full(y) for y in classifier(second)]


class BackTAL(nn.Module):
  """Features to class activation sequences, video scores and embeddings.

  Attributes:
    num_classes: C, without the background.
    feature_dim: D.
    hidden_dim: H, the width of the two affinity convolutions.
    reduce_dim: inner width of embedding and filter.
    embedding_dim: E.
    affinity: 'official' or 'paper'.
    topk_ratio: share of the snippets whose mean is the video score.
    dropout_rate: share of the second layer that is dropped in training.
    dtype: of activations and products, float32 or bfloat16.
  """

  num_classes: int
  feature_dim: int = 2048
  hidden_dim: int = 2048
  reduce_dim: int = 512
  embedding_dim: int = 32
  affinity: str = 'official'
  topk_ratio: float = 0.125
  dropout_rate: float = 0.7
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, feature: Float[Array, 'B T D'], *, train: bool) -> Outputs:
    """Run both branches when training, the suppressed one alone otherwise.

    Args:
      feature: [B, T, D], any float type.
      train: with dropout (an rng named 'dropout') and the base branch.
    """
    dtype = jnp.dtype(self.dtype)
    x = feature.astype(dtype)
    embedding = Embedding(
      self.reduce_dim, self.embedding_dim, dtype, name='embedding'
    )(x)
    foreground = Filter(self.reduce_dim, dtype, name='filter')(x)
    gates = [jnp.ones_like(foreground)] * train + [foreground]
    first, cas = Backbone(
      self.num_classes,
      self.hidden_dim,
      self.affinity,
      self.dropout_rate,
      dtype,
      name='backbone',
    )(x, similarities(embedding), gates, train)
    score = [video_score(c, self.topk_ratio) for c in cas]
    return Outputs(
      score_base=score[0] if train else None,
      cas_base=cas[0] if train else None,
      score_supp=score[-1],
      cas_supp=cas[-1],
      feature_supp=first[-1],
      embedding=embedding,
      foreground=foreground,
    )


def init(model: BackTAL, rng: Any, num_snippets: int) -> dict:
  """Draw the parameters, as PyTorch's Conv1d would."""
  feature = jnp.zeros((1, num_snippets, model.feature_dim))
  # Compiled, only what draws remains of the network.
  return jax.jit(lambda r: model.init(r, feature, train=False)['params'])(rng)
