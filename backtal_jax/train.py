"""Training: state, step and loop."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from backtal_jax import (
  checkpoints,
  errors,
  evaluate,
  files,
  losses,
  models,
  runs,
  sharding,
)
from backtal_jax.data import pipeline

_TRAIN_KEYS = ('feature', 'label', 'click', 'mask')


class TrainState(NamedTuple):
  """All that training changes."""

  step: jax.Array
  params: Any
  opt_state: Any
  rng: jax.Array


def make_optimizer(train) -> optax.GradientTransformation:
  """Make torch's Adam: the decay is added to the gradient, not decoupled."""
  return optax.chain(
    optax.add_decayed_weights(train.weight_decay),
    optax.adam(train.learning_rate, *train.betas, eps=1e-8),
  )


def create_state(model, optimizer, *, seed, num_snippets) -> TrainState:
  """Draw the parameters from the seed."""
  rng = jax.random.key(seed)
  params = models.init(model, rng, num_snippets)
  return TrainState(
    jnp.zeros((), jnp.int32), params, optimizer.init(params), rng
  )


def train_step(state, batch, *, model, optimizer, loss):
  """Do one step of Adam.

  Args:
    state: a TrainState.
    batch: feature [B, T, D], label [B, C], click [B, T], mask [B].
    model: a models.BackTAL.
    optimizer: of `make_optimizer`.
    loss: outputs, label, click, mask -> (sum, terms), see losses.total.

  Returns:
    The new state (all but its step is the old one where the loss or the
    gradient is not finite), and scalars: each term, the sum, the gradient's
    norm, and `finite`.
  """
  rng = jax.random.fold_in(state.rng, state.step)

  def loss_fn(params):
    outputs = model.apply(
      {'params': params}, batch['feature'], train=True, rngs={'dropout': rng}
    )
    return loss(outputs, batch['label'], batch['click'], batch['mask'])

  (total, terms), grads = jax.value_and_grad(loss_fn, has_aux=True)(
    state.params
  )
  norm = optax.tree.norm(grads)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  new = state._replace(
    params=optax.apply_updates(state.params, updates), opt_state=opt_state
  )
  finite = jnp.isfinite(total) & jnp.isfinite(norm)
  new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
  metrics = {f'loss/{name}': term for name, term in terms.items()}
  metrics |= {'loss/total': total, 'gradient_norm': norm, 'finite': finite}
  return new._replace(step=state.step + 1), metrics


def make_train_step(config, model, optimizer):
  """Jit `train_step` for a config, the old state's memory reused."""
  weights = ('base', 'supp', 'sparsity', 'click', 'separation', 'embedding')
  loss = functools.partial(
    losses.total,
    weights={name: config.loss[name] for name in weights},
    topk_ratio=config.model.topk_ratio,
    separation_topk_ratio=config.loss.separation_topk_ratio,
    similar_min=config.loss.similar_min,
    different_max=config.loss.different_max,
  )
  step = functools.partial(
    train_step, model=model, optimizer=optimizer, loss=loss
  )
  return jax.jit(step, donate_argnums=0)


class _Best:
  """Writes the results of an epoch when it is strictly the best so far."""

  def __init__(self, workdir, metric, manager):
    self._workdir, self._metric = workdir, metric
    step = manager.best_step()
    self._value = -1.0 if step is None else manager.metrics(step)['value']

  def update(self, epoch, metrics, predictions) -> dict:
    """Return what the checkpoint manager ranks the epoch by."""
    if self._metric == 'last':
      value = epoch
    elif self._metric == 'average_mAP':
      value = metrics['average_mAP']
    else:
      tiou = float(self._metric.removeprefix('mAP@'))
      value = metrics['mAP'][metrics['tiou'].index(tiou)]
    if value > self._value:
      self._value = value
      if sharding.is_main_process():
        evaluate.write(self._workdir, metrics, predictions)
    return {'epoch': epoch, 'value': float(value)}


def initial_state(config, model, optimizer, manager, mesh):
  """Return the latest state, or a new one, on every device of the mesh."""
  state = create_state(
    model,
    optimizer,
    seed=config.train.seed,
    num_snippets=config.data.num_snippets,
  )
  state = jax.device_put(state, sharding.replicated(mesh))
  if manager.latest_step() is not None:
    return checkpoints.restore(manager, state)
  if config.init_checkpoint:
    params, _ = checkpoints.restore_params(config.init_checkpoint, state.params)
    state = state._replace(params=params)
  return state


def train_and_evaluate(config, workdir):
  """Train from the latest checkpoint in `workdir`, or from the start.

  Args:
    config: of the run.
    workdir: gets config.json, metrics.jsonl, TensorBoard events, checkpoints,
      and predictions.json and metrics.json of the best epoch.

  Returns:
    The metrics of the best epoch.

  Raises:
    errors.InputError: a user error, or a loss that is not finite.
  """
  mesh = sharding.make_mesh(config.mesh)
  source = evaluate.make_source(config, config.data.train_split)
  model = models.BackTAL(**config.model)
  evaluator = evaluate.Evaluator(
    config, model, evaluate.make_source(config, config.data.eval_split), mesh
  )
  plan, per_epoch = make_plan(config, source, mesh)
  workdir = epath.Path(workdir)
  runs.claim(workdir, config)
  optimizer = make_optimizer(config.train)
  step_fn = make_train_step(config, model, optimizer)
  with checkpoints.manager(workdir) as manager:
    state = initial_state(config, model, optimizer, manager, mesh)
    best = _Best(workdir, config.eval.best_metric, manager)
    step = int(state.step)
    seen = np.count_nonzero(plan[..., 1] != pipeline.PADDING, axis=1)
    log = runs.Log(
      workdir,
      step,
      num_videos=int(seen.sum()),
      done=int(seen[:step].sum()),
      names=source.names,
      on_nan=config.train.on_nan,
    )
    loaded = pipeline.batches(source, sharding.local_columns(plan[step:]))
    for on_device, batch in sharding.prefetch(loaded, mesh, _TRAIN_KEYS):
      state, metrics = step_fn(state, on_device)
      step += 1
      epoch, in_epoch = divmod(step, per_epoch)
      log.add(step, metrics, batch, learning_rate=config.train.learning_rate)
      if in_epoch == 0:
        log.flush()
        ranked = None
        if epoch % config.train.eval_every == 0 or step == len(plan):
          metrics, predictions = evaluator(state.params)
          metrics['epoch'] = epoch
          log.write(step, evaluate.scalars(metrics))
          log.say(f'epoch {epoch}\n{evaluate.table(metrics)}')
          ranked = best.update(epoch, metrics, predictions)
        checkpoints.save(manager, state, ranked)
      elif _is_due(step, config.train.checkpoint_every):
        log.flush()
        checkpoints.save(manager, state)
    log.close()
    checkpoints.finish(manager)
  return files.read_json(workdir / 'metrics.json')


def _is_due(step, every):
  return every and step % every == 0


def make_plan(config, source, mesh):
  """Return the index plan over the labelled videos, and an epoch's steps."""
  labelled = np.flatnonzero(source.labels().any(axis=1))
  if len(labelled) < len(source):
    print(f'{len(source) - len(labelled)} videos without a label are dropped')
  if not len(labelled):
    raise errors.InputError(
      f'{config.data.root}/{config.data.train_split}: no video has a label'
    )
  plan = pipeline.train_plan(
    labelled,
    sharding.batch_size(config.train.batch_size, mesh),
    seed=config.train.seed,
    num_epochs=config.train.num_epochs,
  )
  return plan, len(plan) // config.train.num_epochs
