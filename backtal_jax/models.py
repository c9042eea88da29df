"""The network of BackTAL (method.md, section 2), channels last.

Two branches share every parameter: *base* sees the features x, *supp* (the
background suppressed) sees w·x, w[t] the foreground weight of a snippet.
Everything in float32 but activations and products, which are in `dtype`.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from backtal_jax import layers

# By module, layer and tensor: arrays, and what is known of them beforehand.
Params = dict[str, dict[str, dict[str, jax.Array]]]
Shapes = dict[str, dict[str, dict[str, jax.ShapeDtypeStruct]]]


class Outputs(NamedTuple):
  """What the network computes; the base branch only when training.

  `clean_base` and `clean_supp` are the CAS without dropout.
  """

  score_base: Float[Array, 'B C1'] | None
  cas_base: Float[Array, 'B T C1'] | None
  score_supp: Float[Array, 'B C1']
  cas_supp: Float[Array, 'B T C1']
  feature_supp: Float[Array, 'B T H']
  embedding: Float[Array, 'B T E']
  foreground: Float[Array, 'B T']
  clean_base: Float[Array, 'B T C1'] | None = None
  clean_supp: Float[Array, 'B T C1'] | None = None


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


def choose(
  cas: Float[Array, 'B T C1'], ratio: float, by: str = 'logits'
) -> Float[Array, 'B T C1']:
  """Mark the K = int(T · ratio) snippets that stand for each class.

  Args:
    cas: Logits, background last.
    ratio: Share of the snippets.
    by: What a class's snippets are the largest of, its 'logits' or its
      'probabilities', which fall where the background's logit is high.

  Returns:
    1 at the marked snippets. Those of the background have its largest logits,
    whatever `by` says.
  """
  key = jax.nn.log_softmax(cas) if by == 'probabilities' else cas
  is_class = jnp.arange(cas.shape[-1]) < cas.shape[-1] - 1
  key = jnp.where(is_class, key, cas)
  return topk_mask(key, topk_size(cas.shape[1], ratio))


def video_score(
  cas: Float[Array, 'B T C1'],
  ratio: float,
  by: str = 'logits',
  chooser: Float[Array, 'B T C1'] | None = None,
) -> Float[Array, 'B C1']:
  """Average every class's logits at its chosen snippets.

  `choose` takes them by the CAS itself, or by that of a `chooser`.
  """
  k = topk_size(cas.shape[1], ratio)
  chosen = choose(cas if chooser is None else chooser, ratio, by)
  return (chosen * cas).sum(axis=1) / k


def _full(x: Float[Array, '...']) -> Float[Array, '...']:
  """Go back to float32 (or float64), where `dtype` does not reach."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Standard(nn.Module):
  """Shift and scale every channel; both are given, not learned."""

  @nn.compact
  def __call__(self, x: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
    channels = self.param(
      'channels', lambda _, n: standard(np.zeros(n), np.ones(n)), x.shape[-1]
    )
    channels = jax.lax.stop_gradient(channels)
    return (x - channels['mean']) * channels['scale']


def standard(mean: np.ndarray, deviation: np.ndarray) -> dict[str, jax.Array]:
  """Return what `Standard` has, of means and standard deviations [D].

  Channels that hardly change, by less than a hundredth of what all change on
  average, count as if they changed by that much.
  """
  least = 0.01 * np.sqrt(np.mean(np.square(deviation)))
  scale = 1 / np.maximum(deviation, least or 1)
  return {
    'mean': jnp.asarray(mean, jnp.float32),
    'scale': jnp.asarray(scale, jnp.float32),
  }


class Embedding(nn.Module):
  """Map every snippet to a unit vector that tells action from background."""

  reduce_dim: int
  embedding_dim: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'B T D']) -> Float[Array, 'B T E']:
    x = layers.Conv(self.reduce_dim, 3, dtype=self.dtype, name='conv_1')(x)
    conv_2 = layers.Conv(self.embedding_dim, 3, dtype=self.dtype, name='conv_2')
    x = _full(conv_2(nn.leaky_relu(x)))  # its own slope is the official one
    # rsqrt of a guarded square: the norm itself has a NaN gradient at 0.
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


class Filter(nn.Module):
  """Weigh every snippet between background (0) and foreground (1)."""

  reduce_dim: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'B T D']) -> Float[Array, 'B T']:
    x = layers.Conv(self.reduce_dim, 1, dtype=self.dtype, name='conv_1')(x)
    x = layers.Conv(1, 1, dtype=self.dtype, name='conv_2')(nn.leaky_relu(x))
    return nn.sigmoid(_full(x[..., 0]))


class Backbone(nn.Module):
  """Two affinity convolutions and the classifier, for any number of gates."""

  num_classes: int
  hidden_dim: int
  affinity: str
  dropout_rate: float
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B T D'],
    similarity: list[Float[Array, 'B T']],
    gates: list[Float[Array, 'B T']],
    train: bool,
  ) -> tuple[
    list[Float[Array, 'B T H']],
    list[Float[Array, 'B T C1']],
    list[Float[Array, 'B T C1']],
  ]:
    """Return first layer, CAS and CAS without dropout of each gate·x."""
    conv = functools.partial(
      layers.AffinityConv,
      features=self.hidden_dim,
      affinity=self.affinity,
      dtype=self.dtype,
    )
    conv_1 = conv(x.shape[-1], name='conv_1')
    conv_2 = conv(self.hidden_dim, name='conv_2')
    classifier = layers.Classifier(
      self.num_classes + 1, self.dtype, name='classifier'
    )
    if train:
      first = conv_1.gated(x, similarity, gates)
    else:
      first = conv_1(
        [g[..., None].astype(x.dtype) * x for g in gates], similarity
      )
    first = [nn.leaky_relu(y) for y in first]
    second = [nn.leaky_relu(y) for y in conv_2(first, similarity)]
    noisy = second
    if train and self.dropout_rate:
      rng = self.make_rng('dropout')
      noisy = layers.dropout(rng, second, self.dropout_rate)
    cas = [_full(y) for y in classifier(noisy)]
    if noisy is second:
      return first, cas, cas
    return first, cas, [_full(y) for y in classifier(second)]


class BackTAL(nn.Module):
  """Features to class activation sequences, video scores and embeddings."""

  num_classes: int  # C, without the background
  feature_dim: int = 2048  # D
  hidden_dim: int = 2048  # H, the width of the two affinity convolutions
  reduce_dim: int = 512  # inner width of embedding and filter
  embedding_dim: int = 32  # E
  affinity: str = 'official'  # or 'paper'
  topk_ratio: float = 0.125  # snippets whose mean is the video score
  topk_by: str = 'logits'  # or 'probabilities', see `choose`
  dropout_rate: float = 0.7  # of the second layer, in training
  standardize: bool = False  # the channels, before all else
  dtype: DTypeLike = jnp.float32  # of activations and products, or bfloat16

  @nn.compact
  def __call__(self, feature: Float[Array, 'B T D'], *, train: bool) -> Outputs:
    """Run the suppressed branch; to `train`, the base branch and dropout too.

    Features are of any float type; dropout needs an rng of that name.
    """
    dtype = jnp.dtype(self.dtype)
    x = feature
    if self.standardize:
      x = Standard(name='standard')(_full(x))
    x = x.astype(dtype)
    embedding = Embedding(
      self.reduce_dim, self.embedding_dim, dtype, name='embedding'
    )(x)
    foreground = Filter(self.reduce_dim, dtype, name='filter')(x)
    gates = [jnp.ones_like(foreground)] * train + [foreground]
    first, cas, clean = Backbone(
      self.num_classes,
      self.hidden_dim,
      self.affinity,
      self.dropout_rate,
      dtype,
      name='backbone',
    )(x, layers.similarities(embedding), gates, train)
    score = [video_score(c, self.topk_ratio, self.topk_by) for c in cas]
    return Outputs(
      score_base=score[0] if train else None,
      cas_base=cas[0] if train else None,
      score_supp=score[-1],
      cas_supp=cas[-1],
      feature_supp=first[-1],
      embedding=embedding,
      foreground=foreground,
      clean_base=clean[0] if train else None,
      clean_supp=clean[-1] if train else None,
    )


def init(model: BackTAL, rng: jax.Array) -> Params:
  """Sample the parameters, as PyTorch's Conv1d would."""
  feature = jnp.zeros((1, 1, model.feature_dim))
  # Compiled, only what draws remains of the network.
  return jax.jit(lambda r: model.init(r, feature, train=False)['params'])(rng)


def shapes(model: BackTAL) -> Shapes:
  """Return the shapes of the parameters."""
  return jax.eval_shape(lambda: init(model, jax.random.key(0)))
