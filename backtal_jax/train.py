"""Training: state, step and loop."""

import contextlib
import functools
import sys
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
  resident,
  runs,
  sharding,
)
from backtal_jax.data import annotations, clicks, pipeline

_TRAIN_KEYS = ('feature', 'label', 'click', 'mask', 'video_index')


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


def rematerialise(apply):
  """Keep of the network only the layers' outputs for the gradient."""
  keep = jax.checkpoint_policies.save_only_these_names(models.KEPT)
  return jax.checkpoint(apply, policy=keep)


def train_step(
  state,
  batch,
  *,
  model,
  optimizer,
  loss,
  num_steps=None,
  layout=None,
  remat=False,
):
  """Do one step of Adam.

  Args:
    state: a TrainState.
    batch: feature [B, T, D], label [B, C], click [B, T], mask [B].
    model: a models.BackTAL.
    optimizer: of `make_optimizer`.
    loss: outputs, label, click, mask -> (sum, terms), see losses.total.
    num_steps: of the training, for a loss that changes over it.
    layout: (of use, of storage) shardings of the parameters, where they
      differ; the compiler gathers the ones and scatters the gradients.
    remat: compute what is wide between layers again for the gradient.

  Returns:
    The new state (all but its step is the old one where the loss or the
    gradient is not finite), and scalars: each term, the sum, the gradient's
    norm, and `finite`.
  """
  rng = jax.random.fold_in(state.rng, state.step)
  if num_steps:
    loss = functools.partial(loss, progress=state.step / num_steps)

  def apply(params, feature):
    rngs = {'dropout': rng}
    return model.apply({'params': params}, feature, train=True, rngs=rngs)

  if remat:
    apply = rematerialise(apply)

  def loss_fn(params):
    outputs = apply(params, batch['feature'])
    return loss(outputs, batch['label'], batch['click'], batch['mask'])

  params = state.params
  if layout:
    params = jax.lax.with_sharding_constraint(params, layout[0])
  (total, terms), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  if layout:
    grads = jax.lax.with_sharding_constraint(grads, layout[1])
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


def make_train_step(config, model, optimizer, mesh=None, num_steps=1):
  """Jit `train_step` for a config, the old state's memory reused.

  Args:
    config: of the run.
    model: a models.BackTAL.
    optimizer: of `make_optimizer`.
    mesh: of devices; without it, JAX's default device.
    num_steps: of the whole training.
  """
  weights = ('base', 'supp', 'sparsity', 'click', 'separation', 'embedding')
  loss = functools.partial(
    losses.total,
    weights={name: config.loss[name] for name in weights},
    topk_ratio=config.model.topk_ratio,
    separation_topk_ratio=config.loss.separation_topk_ratio,
    similar_min=config.loss.similar_min,
    different_max=config.loss.different_max,
    label_warmup=config.loss.label_warmup,
    click_trim=config.loss.click_trim,
    click_trim_from=config.loss.click_trim_from,
  )
  layout, out = None, None
  if mesh is not None:
    # Also where the compiler would choose the same: another kind of sharding
    # object coming out than went in is another trace.
    whole, state = sharding.replicated(mesh), state_layout(config, mesh)
    out = state, whole
    if config.train.shard_state:
      layout = whole, state.params
  step = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    loss=loss,
    num_steps=num_steps,
    layout=layout,
    remat=config.train.remat,
  )
  return jax.jit(step, donate_argnums=0, out_shardings=out)


def _new_state(config):
  """Draw the first state of a run."""
  return create_state(
    models.BackTAL(**config.model),
    make_optimizer(config.train),
    seed=config.train.seed,
    num_snippets=config.data.num_snippets,
  )


def state_layout(config, mesh) -> TrainState:
  """Return where each array of the training state lives."""
  shapes = jax.eval_shape(lambda: _new_state(config))
  return sharding.layout(shapes, mesh, config.train.shard_state)


def initial_state(config, manager, mesh):
  """Return the latest state, or a new one, laid out over the mesh."""
  layout = state_layout(config, mesh)
  state = jax.jit(lambda: _new_state(config), out_shardings=layout)()
  restored = checkpoints.restore(manager, state)
  if restored is not None:
    return restored
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
  step_fn = make_train_step(config, model, optimizer, mesh, len(plan))
  with (
    runs.lock(workdir),
    runs.Preemption() as preemption,
    _open(workdir, config, evaluator) as manager,
  ):
    state = initial_state(config, manager, mesh)
    end_of_epoch = make_end_of_epoch(config, workdir, evaluator, manager)
    start, every = int(state.step), config.train.checkpoint_every
    per_epoch = len(plan) // config.train.num_epochs
    loaded_from, complete = source, lambda batch: batch
    if config.data.placement == 'device':
      loaded_from, complete = resident.load(source, mesh, config.model.dtype)
    loaded = pipeline.batches(
      loaded_from, sharding.local_columns(plan[start:]), make_clicks(config)
    )
    with runs.Log(workdir, plan, start, source, config.train.on_nan) as log:
      for step, (on_device, batch) in enumerate(
        sharding.prefetch(loaded, mesh, _TRAIN_KEYS), start + 1
      ):
        state, metrics = step_fn(state, complete(on_device))
        log.add(step, metrics, batch, learning_rate=config.train.learning_rate)
        stop = preemption.reached(step)
        if step % per_epoch == 0:
          end_of_epoch(step // per_epoch, state, log)
        elif stop or (every and step % every == 0):
          log.flush()
          checkpoints.save(manager, state, epoch=step // per_epoch)
        if stop:
          checkpoints.finish(manager)
          log.say(f'asked to end after step {step}; the same command goes on')
          sys.exit(runs.PREEMPTED)
    checkpoints.finish(manager)
  return files.read_json(workdir / 'metrics.json')


@contextlib.contextmanager
def _open(workdir, config, evaluator):
  """Claim the workdir and open its checkpoints."""
  runs.claim(workdir, config)
  evaluator.write_classes(workdir)
  with checkpoints.manager(workdir) as manager:
    yield manager


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
      results = evaluator(sharding.replicate(state.params, evaluator.mesh))
      results.metrics['epoch'] = epoch
      value = evaluate.ranking_value(results.metrics, config.eval.best_metric)
      log.write(int(state.step), evaluate.scalars(results.metrics))
      table = f'epoch {epoch}\n{evaluate.table(results.metrics)}'
      log.say(table)
      log.show(int(state.step), table, evaluator.timelines(results))
      if value > best:
        best = value
        evaluate.write(workdir, results)
    checkpoints.save(manager, state, epoch=epoch, value=value)

  return end_of_epoch


def make_clicks(config):
  """Return (video, epoch) -> [T] labels of config.data.clicks, or None."""
  if not config.data.clicks:
    return None
  root, found = config.data.root, []
  truth = annotations.read_ground_truth(
    files.find(config.data.ground_truth, root)
  )
  for path in config.data.clicks.split(','):
    found += annotations.read_clicks(files.find(path.strip(), root), truth)[0]
  return clicks.labeller(
    found,
    truth,
    config.data.annotator,
    seed=config.train.seed,
    num_snippets=config.data.num_snippets,
  )


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
