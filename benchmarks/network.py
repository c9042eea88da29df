"""The training step and the prediction at the benchmarks' sizes.

The limit is the least arithmetic (method.md, section 2) at the rate of a
large square product.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from backtal_jax import loop, models, predict, train
from benchmarks import measure
from configs import activitynet12, hacs, thumos14
from oracles import network as oracle

# Config and videos of a batch: about as many snippets in each.
SETS = {
  'thumos14': (thumos14, 2),
  'activitynet12': (activitynet12, 15),
  'hacs': (hacs, 8),
}


def least_flop(config, *, training) -> float:
  """Count the products of one video that cannot be avoided."""
  m, length = config.model, config.data.num_snippets
  narrow = 3 * m.feature_dim * m.reduce_dim
  narrow += 3 * m.reduce_dim * m.embedding_dim
  narrow += m.feature_dim * m.reduce_dim
  first = 3 * m.feature_dim * m.hidden_dim
  second = 3 * m.hidden_dim**2 + m.hidden_dim * (m.num_classes + 1)
  if not training:
    return 2 * length * (narrow + first + second)
  # Forward and weights; of the second layer, two branches and the input too.
  return 2 * length * (2 * narrow + 2 * first + 6 * second)


def _batch(config, size):
  rng = np.random.default_rng(0)
  length, classes = config.data.num_snippets, config.model.num_classes
  clicked = rng.random((size, length)) < 0.01
  batch = {
    'feature': rng.random((size, length, config.model.feature_dim), np.float32),
    'label': np.eye(classes, dtype=np.float32)[
      rng.integers(classes, size=size)
    ],
    'click': np.where(clicked, classes, -100).astype(np.int32),
    'mask': np.ones(size, bool),
  }
  return jax.device_put(batch)


def _make(config, size, model):
  """Compile the step and the prediction; return calls without arguments."""
  batch, options = _batch(config, size), config.train
  optimizer = train.make_optimizer(
    options.learning_rate, options.weight_decay, options.betas
  )
  params = models.init(models.BackTAL(**config.model), jax.random.key(0))
  fresh = jax.tree.map(jnp.array, params)  # the step's own, which it donates
  state = loop.TrainState(
    jnp.int32(0), fresh, optimizer.init(fresh), jax.random.key(0)
  )
  step = functools.partial(
    train.train_step,
    model=model,
    optimizer=optimizer,
    loss=train.make_loss(config),
  )
  step = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
  infer = predict.predict_step.lower(params, batch['feature'], model=model)
  infer = infer.compile()

  def take_step():
    nonlocal state
    state, metrics = step(state, batch)
    return state, metrics

  return (take_step, step), (lambda: infer(params, batch['feature']), infer)


def run(which) -> dict:
  """Measure 'train_step' or 'inference' on every set."""
  index = ('train_step', 'inference').index(which)

  def measured(name):
    module, size = SETS[name]
    config = module.get_config()
    call, compiled = _make(config, size, models.BackTAL(**config.model))[index]
    other = oracle.Network(config.model.affinity, config.model.topk_ratio)
    theirs, _ = _make(config, size, other)[index]
    square, flop = measure.make_square()
    ours, plainly, product = measure.interleaved(call, theirs, square)
    least = least_flop(config, training=index == 0)
    return measure.result(
      ours,
      size * least / flop * product,
      plain_seconds=plainly,
      videos=size,
      gflop_per_video=compiled.cost_analysis()['flops'] / size / 1e9,
      least_gflop_per_video=least / 1e9,
      temp_bytes=compiled.memory_analysis().temp_size_in_bytes,
      limit_gflop_per_second=flop / product / 1e9,
    )

  return measure.of_sets(SETS, measured)
