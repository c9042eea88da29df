"""The suppressed branch (method.md, section 2) as an ONNX graph.

Written by hand, in a dozen operations: jax2onnx 0.17, which converts the
network, too, wants an Orbax older than the one that writes checkpoints here.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from backtal_jax import errors, layers, models

# Read by onnxruntime from 1.14 on, of 2023.
OPSET = 18
_IR = 8
# What a network holds that the graph has a place for.
_TENSORS = {
  'embedding.conv_1.kernel', 'embedding.conv_1.bias',
  'embedding.conv_2.kernel', 'embedding.conv_2.bias',
  'filter.conv_1.kernel', 'filter.conv_1.bias',
  'filter.conv_2.kernel', 'filter.conv_2.bias',
  'backbone.conv_1.kernel', 'backbone.conv_2.kernel',
  'backbone.classifier.kernel',
}  # fmt: skip
_STANDARD = {'standard.channels.mean', 'standard.channels.scale'}


class _Graph:
  """Nodes and constants; each method adds some and returns a value's name.

  Values along a video have `length` rows.
  """

  def __init__(self, onnx, length):
    self._helper, self._array = onnx.helper, onnx.numpy_helper.from_array
    self.nodes, self.constants, self.length = [], {}, length

  def __call__(self, kind, *inputs, num=1, to=None, **attributes):
    """Add a node; what is no name among its inputs is a constant."""
    inputs = [x if isinstance(x, str) else self.constant(x) for x in inputs]
    names = [to or f'{kind.lower()}_{len(self.nodes)}_{i}' for i in range(num)]
    node = self._helper.make_node(kind, inputs, names, **attributes)
    self.nodes.append(node)
    return names[0] if num == 1 else names

  def constant(self, value, name=None):
    """Add a constant, integers for the axes and sizes of nodes."""
    value = np.asarray(value)
    value = value.astype(np.int64 if value.dtype.kind == 'i' else np.float32)
    name = name or f'constant_{len(self.constants)}'
    self.constants[name] = self._array(value, name)
    return name

  def cut(self, x, start, end, axis):
    """Return a part of a value along one of its axes."""
    return self('Slice', x, *(np.array([n]) for n in (start, end, axis)))

  def neighbours(self, x):
    """Return x[t-1], x[t], x[t+1] of a value [B, T, F]."""
    padded = self('Pad', x, np.array([0, 1, 0, 0, 1, 0]))
    return [self.cut(padded, k, k + self.length, 1) for k in range(3)]

  def wide(self, x):
    """Return the neighbours' channels side by side [B, T, 3F]."""
    return self('Concat', *self.neighbours(x), axis=-1)

  def total(self, x):
    """Sum over the channels, [B, T, 1]."""
    return self('ReduceSum', x, np.array([-1]), keepdims=1)


def build(
  params: models.Params, model: models.BackTAL, num_snippets: int,
  about: Mapping[str, Any],
) -> bytes:  # fmt: skip
  """Return the network as an ONNX file, for T snippets and any number B.

  Its input is `feature` [B, T, D], its outputs what `predict.predict_step`
  computes.

  Args:
    params: Parameters of the model.
    model: The network.
    num_snippets: T.
    about: What the file says of itself; values other than text as JSON.

  Raises:
    errors.InputError: The network has a parameter or computes in a type that
      the graph has no place for; onnx is not installed.
  """
  onnx = errors.need('onnx', 'export', 'an .onnx file')
  if np.dtype(model.dtype) != np.float32:
    raise errors.InputError(
      f'config.model.dtype is {np.dtype(model.dtype)}, an .onnx file is in '
      'float32; --config C.py --config.model.dtype=float32 computes so'
    )
  tensors = traverse_util.flatten_dict(params, sep='.')
  known = _TENSORS | (_STANDARD if model.standardize else set())
  if different := tensors.keys() ^ known:
    raise errors.InputError(
      f'an .onnx file has no place for a network with or without '
      f'{errors.few(sorted(different))}; expected a folder as --output'
    )
  graph = _Graph(onnx, num_snippets)
  for name, x in tensors.items():
    # A kernel [3, F, G] as the matrix [3F, G] that `wide` is multiplied by.
    x = x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x
    graph.constant(x, name)
  _network(graph, tensors, model)
  return _file(onnx, graph, model, about).SerializeToString()


def _network(graph, tensors, model):
  """Add the nodes; see models and layers, which they follow line by line."""

  def conv(x, name):
    width = len(tensors[f'{name}.kernel'])
    x = graph.wide(x) if width == 3 else x
    y = graph('MatMul', x, f'{name}.kernel')
    bias = f'{name}.bias'
    return graph('Add', y, bias) if bias in tensors else y

  leaky = lambda x: graph('LeakyRelu', x, alpha=0.01)
  x = 'feature'
  if model.standardize:
    x = graph('Sub', x, 'standard.channels.mean')
    x = graph('Mul', x, 'standard.channels.scale')
  e = conv(leaky(conv(x, 'embedding.conv_1')), 'embedding.conv_2')
  square = graph.total(graph('Mul', e, e))
  e = graph('Div', e, graph('Sqrt', graph('Max', square, 1e-24)))
  similarity = _similarities(graph, e)
  weight = graph(
    'Sigmoid', conv(leaky(conv(x, 'filter.conv_1')), 'filter.conv_2')
  )
  graph('Squeeze', weight, np.array([-1]), to='foreground')

  def affinity_conv(x, name):
    channels = tensors[f'{name}.kernel'].shape[1]
    index = layers.similarity_index(model.affinity, channels).ravel()
    spread = graph('MatMul', similarity, np.eye(3)[:, index])
    x = graph('Mul', graph.wide(x), spread)
    return leaky(graph('MatMul', x, f'{name}.kernel'))

  first = affinity_conv(graph('Mul', x, weight), 'backbone.conv_1')
  strength = graph('Sqrt', graph.total(graph('Mul', first, first)))
  graph('Squeeze', strength, np.array([-1]), to='magnitude')
  second = affinity_conv(first, 'backbone.conv_2')
  cas = graph('MatMul', second, 'backbone.classifier.kernel', to='cas')
  k = np.array([models.topk_size(graph.length, model.topk_ratio)])
  best, _ = graph('TopK', cas, k, num=2, axis=1)
  if model.topk_by == 'probabilities':
    best = _likeliest(graph, cas, best, k, model.num_classes)
  score = graph('ReduceMean', best, np.array([1]), keepdims=0)
  graph('Softmax', score, axis=-1, to='score')


def _similarities(graph, e):
  """Return the three of layers.similarities as [B, T, 3]."""
  square = graph.total(graph('Mul', e, e))
  others, squares = graph.neighbours(e), graph.neighbours(square)
  columns = []
  for other, other_square in zip(others, squares, strict=True):
    both = graph('Max', graph('Mul', square, other_square), 1e-16)
    dot = graph.total(graph('Mul', e, other))
    columns.append(graph('Div', dot, graph('Sqrt', both)))
  return graph('Concat', *columns, axis=-1)


def _likeliest(graph, cas, best, k, num_classes):
  """Return logits [B, K, C+1] where a class is likeliest, see models.choose.

  `best` are the largest logits, which stand for the background.
  """
  likely = graph('LogSoftmax', cas, axis=-1)
  _, where = graph('TopK', likely, k, num=2, axis=1)
  there = graph('GatherElements', cas, where, axis=1)
  actions = graph.cut(there, 0, num_classes, -1)
  background = graph.cut(best, num_classes, num_classes + 1, -1)
  return graph('Concat', actions, background, axis=-1)


def _file(onnx, graph, model, about):
  """Wrap the graph: shapes of its borders, versions, what it is."""
  video, t, c = 'videos', graph.length, model.num_classes + 1
  value = lambda name, *shape: onnx.helper.make_tensor_value_info(
    name, onnx.TensorProto.FLOAT, shape
  )
  made = onnx.helper.make_model(
    onnx.helper.make_graph(
      graph.nodes,
      'BackTAL',
      [value('feature', video, t, model.feature_dim)],
      [
        value('cas', video, t, c),
        value('score', video, c),
        value('magnitude', video, t),
        value('foreground', video, t),
      ],
      list(graph.constants.values()),
    ),
    opset_imports=[onnx.helper.make_opsetid('', OPSET)],
    ir_version=_IR,
    producer_name='backtal_jax',
    producer_version=about['version'],
  )
  text = lambda x: x if isinstance(x, str) else json.dumps(x)
  onnx.helper.set_model_props(made, {k: text(v) for k, v in about.items()})
  onnx.checker.check_model(made, full_check=True)
  return made
