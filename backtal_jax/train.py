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
  workdir, mesh = epath.Path(workdir), sharding.make_mesh(config.mesh)
  source = evaluate.make_source(config, config.data.train_split)
  model = models.BackTAL(**config.model)
  evaluator = evaluate.Evaluator(
    config, model, evaluate.make_source(config, config.data.eval_split), mesh
  )
  plan = make_plan(config, source, mesh)
  optimizer = make_optimizer(config.train)
  step_fn = make_train_step(config, model, optimizer)
  runs.claim(workdir, config)
  with checkpoints.manager(workdir) as manager:
    state = initial_state(config, model, optimizer, manager, mesh)
    end_of_epoch = make_end_of_epoch(config, workdir, evaluator, manager)
    start, every = int(state.step), config.train.checkpoint_every
    per_epoch = len(plan) // config.train.num_epochs
    loaded = pipeline.batches(source, sharding.local_columns(plan[start:]))
    with runs.Log(workdir, plan, start, source, config.train.on_nan) as log:
      for step, (on_device, batch) in enumerate(
        sharding.prefetch(loaded, mesh, _TRAIN_KEYS), start + 1
      ):
        state, metrics = step_fn(state, on_device)
        log.add(step, metrics, batch, learning_rate=config.train.learning_rate)
        if step % per_epoch == 0:
          end_of_epoch(step // per_epoch, state, log)
        elif every and step % every == 0:
          log.flush()
          checkpoints.save(manager, state, epoch=step // per_epoch)
    checkpoints.finish(manager)
  return files.read_json(workdir / 'metrics.json')


def make_end_of_epoch(config, workdir, evaluator, manager):
  """Return what follows an epoch: evaluation when due, and a checkpoint.

  The results of the best epoch are written before its checkpoint: a run that
  dies between the two evaluates that epoch again when it resumes.
  """
  best = manager.best_step()
  best = checkpoints.UNKNOWN if best is None else manager.metrics(best)['value']

  def end_of_epoch(epoch, state, log):
    nonlocal best
    log.flush()
    value, last = checkpoints.UNKNOWN, epoch == config.train.num_epochs
    if epoch % config.train.eval_every == 0 or last:
      results = evaluator(state.params)
      results.metrics['epoch'] = epoch
      value = evaluate.ranking_value(results.metrics, config.eval.best_metric)
      log.write(int(state.step), evaluate.scalars(results.metrics))
      log.say(f'epoch {epoch}\n{evaluate.table(results.metrics)}')
      if value > best:
        best = value
        evaluate.write(workdir, results)
    checkpoints.save(manager, state, epoch=epoch, value=value)

  return end_of_epoch


def make_plan(config, source, mesh):
  """Return the index plan of the whole run, over the labelled videos."""
  labelled = np.flatnonzero(source.labels().any(axis=1))
  if len(labelled) < len(source):
    print(f'{len(source) - len(labelled)} videos without a label are dropped')
  if not len(labelled):
    raise errors.InputError(
      f'{config.data.root}/{config.data.train_split}: no video has a label'
    )
  return pipeline.train_plan(
    labelled,
    sharding.batch_size(config.train.batch_size, mesh),
    seed=config.train.seed,
    num_epochs=config.train.num_epochs,
  )
