"""The three networks at full size, by the definition, in float64.

  python tests/full_size.py

writes golden/full_size.json: what the evaluation outputs of networks with
drawn parameters come to, computed here in plain NumPy from method.md, section
2, without the package. Parameters are drawn with RandomState(seed) in the
order of `tensors`: weights uniform in ±sqrt(6 / fan_in), biases uniform in
±1/sqrt(fan_in); then the features [D, T] uniform in 0…1, squared. All are
rounded to float32 before anything is computed.
"""

import json
import pathlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'full_size.json'
D, H, REDUCE, E = 2048, 2048, 512, 32
# T, C, share of the snippets in the video score, seed.
SETS = {
  'thumos14': (750, 20, 0.125, 14),
  'activitynet12': (100, 100, 0.6, 12),
  'hacs': (200, 200, 0.6, 1),
}


def tensors(num_classes):
  """Return the official names, in drawing order, with their shapes."""
  return {
    'filter_module.conv_1.0.weight': (REDUCE, D, 1),
    'filter_module.conv_1.0.bias': (REDUCE,),
    'filter_module.conv_2.0.weight': (1, REDUCE, 1),
    'filter_module.conv_2.0.bias': (1,),
    'base_module.conv_1.weight': (H, D, 3),
    'base_module.conv_2.weight': (H, H, 3),
    'classifier_module.conv.weight': (num_classes + 1, H, 1),
    'embedding_module.conv_1.weight': (REDUCE, D, 3),
    'embedding_module.conv_1.bias': (REDUCE,),
    'embedding_module.conv_2.weight': (E, REDUCE, 3),
    'embedding_module.conv_2.bias': (E,),
  }


def draw(kind):
  """Return a set's tensors by official name, and features [D, T]."""
  length, num_classes, _, seed = SETS[kind]
  rng, state = np.random.RandomState(seed), {}
  for name, shape in tensors(num_classes).items():
    if name.endswith('weight'):
      fan_in = shape[1] * shape[2]
      bound = (6 / fan_in) ** 0.5
    else:
      bound = fan_in**-0.5  # of the weight just drawn
    state[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
  return state, (rng.uniform(0, 1, (D, length)) ** 2).astype(np.float32)


def _lrelu(x):
  return np.where(x > 0, x, 0.01 * x)


def _at(x, offset):
  """Return x[t + offset], zeros beyond the ends; x is [T, …]."""
  y = np.zeros_like(x)
  inside = slice(max(0, -offset), len(x) - max(0, offset))
  source = slice(max(0, offset), len(x) - max(0, -offset))
  y[inside] = x[source]
  return y


def _conv(x, weight, bias):
  middle = weight.shape[2] // 2
  return bias + sum(
    _at(x, k - middle) @ weight[:, :, k].T for k in range(weight.shape[2])
  )


def affinity_conv(x, similarity, weight, kind='official'):
  """Scale input (c, k) by s_g, then convolve.

  Officially g is (3c + k) // channels, in the paper k.
  """
  channels = x.shape[1]
  c, y = np.arange(channels), 0
  for k in range(3):
    g = (3 * c + k) // channels if kind == 'official' else np.full(channels, k)
    y += (_at(x, k - 1) * similarity[:, g]) @ weight[:, :, k].T
  return y


def outputs(state, feature, topk_ratio):
  """Return cas [T, C+1], score [C+1], magnitude [T] and foreground [T]."""
  state = {name: tensor.astype(np.float64) for name, tensor in state.items()}
  x = feature.T.astype(np.float64)

  def pair(module, suffix=''):
    name = f'{module}{suffix}'
    return state[f'{name}.weight'], state[f'{name}.bias']

  e = _lrelu(_conv(x, *pair('embedding_module.conv_1')))
  e = _conv(e, *pair('embedding_module.conv_2'))
  e /= np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-12)
  w = _lrelu(_conv(x, *pair('filter_module.conv_1', '.0')))
  w = 1 / (1 + np.exp(-_conv(w, *pair('filter_module.conv_2', '.0'))))
  norms = [np.linalg.norm(_at(e, j - 1), axis=1) for j in range(3)]
  similarity = np.stack(
    [
      (e * _at(e, j - 1)).sum(1) / np.maximum(norms[1] * norms[j], 1e-8)
      for j in range(3)
    ],
    axis=1,
  )
  first = _lrelu(
    affinity_conv(w * x, similarity, state['base_module.conv_1.weight'])
  )
  second = _lrelu(
    affinity_conv(first, similarity, state['base_module.conv_2.weight'])
  )
  cas = second @ state['classifier_module.conv.weight'][:, :, 0].T
  k = int(len(cas) * topk_ratio)
  score = np.sort(cas, axis=0)[-k:].mean(0)
  score = np.exp(score - score.max())
  return {
    'cas': cas,
    'score': score / score.sum(),
    'magnitude': np.linalg.norm(first, axis=1),
    'foreground': w[:, 0],
  }


def summary(found):
  """Sum up outputs: six digits of what moves when anything does."""
  result = {}
  for name, values in found.items():
    values = np.asarray(values, np.float64)
    flat = values.ravel()
    numbers = {
      'mean': flat.mean(),
      'std': flat.std(),
      'min': flat.min(),
      'max': flat.max(),
      'argmax': int(flat.argmax()),
      # A weighted mean notices a changed order, which the others do not.
      'ramp': flat @ np.linspace(-1, 1, flat.size) / flat.size,
      'first': flat[0],
      'last': flat[-1],
    }
    result[name] = {key: float(f'{x:.6g}') for key, x in numbers.items()}
  return result


if __name__ == '__main__':
  result = {kind: summary(outputs(*draw(kind), SETS[kind][2])) for kind in SETS}
  GOLDEN.write_text(json.dumps(result, indent=1) + '\n')
