"""Section 2 of method.md, a branch at a time: the plain form of `models`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from backtal_jax import models


def _conv(x, p):
  kernel = p['kernel']
  reach = len(kernel) // 2
  padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
  y = sum(
    jnp.einsum('btf,fg->btg', padded[:, k : k + x.shape[1]], kernel[k],
               precision='highest')
    for k in range(len(kernel))
  )  # fmt: skip
  return y + p.get('bias', 0)


def _affinity_conv(x, embedding, p, kind):
  """Unfold, scale every channel, multiply: method.md, 2.3."""
  length, channels = x.shape[1:]
  ahead = lambda a, k: jnp.pad(a, ((0, 0), (1, 1), (0, 0)))[:, k : k + length]
  norm = lambda a: jnp.sqrt(jnp.maximum(jnp.sum(a * a, -1), 1e-30))
  similarity = []
  for j in range(3):
    other = ahead(embedding, j)
    norms = jnp.maximum(norm(embedding) * norm(other), 1e-8)
    similarity.append(jnp.sum(embedding * other, -1) / norms)
  similarity = jnp.stack(similarity, -1)
  y = 0
  for k in range(3):
    c = np.arange(channels)
    j = np.full(channels, k) if kind == 'paper' else (3 * c + k) // channels
    scaled = jnp.take(similarity, j, axis=-1) * ahead(x, k)
    y += jnp.einsum('btf,fg->btg', scaled, p['kernel'][k], precision='highest')
  return y


class Network(NamedTuple):
  """The network without dropout; stands in for a models.BackTAL."""

  kind: str  # affinity, 'official' or 'paper'
  ratio: float  # share of the snippets that make the video score
  standardize = False  # as a step asks of a model

  def apply(self, variables, x, *, train, rngs=None):
    """Return models.Outputs of features [B, T, D], the base branch to train."""
    del rngs
    params = variables['params']
    lrelu = lambda a: jnp.where(a > 0, a, 0.01 * a)
    p = params['embedding']
    e = _conv(lrelu(_conv(x, p['conv_1'])), p['conv_2'])
    e /= jnp.maximum(jnp.linalg.norm(e, axis=-1, keepdims=True), 1e-12)
    p = params['filter']
    w = jax.nn.sigmoid(_conv(lrelu(_conv(x, p['conv_1'])), p['conv_2']))
    p = params['backbone']
    scores, cas, first = [None], [None], None
    for branch in ([x] if train else []) + [w * x]:
      first = lrelu(_affinity_conv(branch, e, p['conv_1'], self.kind))
      f = lrelu(_affinity_conv(first, e, p['conv_2'], self.kind))
      cas.append(_conv(f, p['classifier']))
      k = int(x.shape[1] * self.ratio)
      top = jax.lax.top_k(cas[-1].swapaxes(1, 2), k)[0]
      scores.append(top.mean(-1))
    return models.Outputs(
      scores[-2], cas[-2], scores[-1], cas[-1], first, e, w[..., 0]
    )
