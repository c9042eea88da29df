"""Training: state, step and loop."""

import contextlib
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import orbax.checkpoint as ocp
from etils import epath

from backtal_jax import errors, evaluate, fields, files, layers, losses, models
from backtal_jax.data import annotations, pipeline, splits
from backtal_jax.metrics import scores
from backtal_jax.run import (
  checkpoints,
  hosts,
  log,
  outputs,
  resident,
  sharding,
  workdirs,
)

_TRAIN_KEYS = ('feature', 'label', 'click', 'mask', 'video_index')


class TrainState(NamedTuple):
  """All that training changes."""

  step: jax.Array
  params: Any
  opt_state: Any
  rng: jax.Array


def make_optimizer(
  learning_rate: float, weight_decay: float, betas: Sequence[float]
) -> optax.GradientTransformation:
  """Make torch's Adam: the decay is added to the gradient, not decoupled."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.adam(learning_rate, *betas, eps=1e-8),
  )


def make_loss(topk_ratio: float, **options: Any) -> Callable:
  """Return losses.total of a config's numbers.

  Args:
    topk_ratio: config.model.topk_ratio.
    options: config.loss.
  """
  weights = {name: options.pop(name) for name in losses.TERMS}
  return functools.partial(
    losses.total, weights=weights, topk_ratio=topk_ratio, **options
  )


def create_state(
  model: models.BackTAL,
  optimizer: optax.GradientTransformation,
  rng: jax.Array,
  *,
  num_snippets: int,
) -> TrainState:
  """Sample the parameters from a key."""
  params = models.init(model, rng, num_snippets)
  return TrainState(
    jnp.zeros((), jnp.int32), params, optimizer.init(params), rng
  )


def rematerialise(apply: Callable) -> Callable:
  """Keep of the network only the layers' outputs for the gradient."""
  keep = jax.checkpoint_policies.save_only_these_names(layers.KEPT)
  return jax.checkpoint(apply, policy=keep)


def train_step(
  state: TrainState,
  batch: dict,
  *,
  model: Any,
  optimizer: optax.GradientTransformation,
  loss: Callable,
  num_steps: int | None = None,
  layout: Any = None,
  remat: bool = False,
) -> tuple:
  """Do one step of Adam.

  Args:
    state: a TrainState.
    batch: feature [B, T, D], label [B, C], click [B, T], mask [B].
    model: a models.BackTAL.
    optimizer: What `make_optimizer` returns.
    loss: outputs, label, click, mask -> (sum, terms), see losses.total.
    num_steps: Steps of the whole training, for a loss that changes over it.
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


def make_train_step(
  model: Any,
  optimizer: optax.GradientTransformation,
  loss: Callable,
  *,
  num_steps: int | None = None,
  layout: Any = None,
  mesh: jax.sharding.Mesh | None = None,
  remat: bool = False,
) -> Any:
  """Jit `train_step`, the old state's memory reused.

  Args:
    model: A models.BackTAL.
    optimizer: What `make_optimizer` returns.
    loss: What `make_loss` returns.
    num_steps: Steps of the whole training, for a loss that changes over it.
    layout: Where the state's arrays live, see sharding.layout; without it, on
      JAX's default device.
    mesh: Devices of the layout.
    remat: Whether to compute what is wide between layers again.
  """
  params, out = None, None
  if layout is not None and mesh is not None:
    # Also where the compiler would choose the same: another kind of sharding
    # object coming out than went in is another trace.
    whole = sharding.replicated(mesh)
    out = layout, whole
    if not all(s.is_fully_replicated for s in jax.tree.leaves(layout)):
      params = whole, layout.params
  step = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    loss=loss,
    num_steps=num_steps,
    layout=params,
    remat=remat,
  )
  return jax.jit(step, donate_argnums=0, out_shardings=out)


def initial_state(
  new_state: Callable,
  manager: ocp.CheckpointManager,
  init_checkpoint: epath.PathLike = '',
) -> TrainState:
  """Return the latest state, or a new one, laid out over the devices.

  Args:
    new_state: Returns a state, see `build`.
    manager: Checkpoints of the workdir.
    init_checkpoint: Where the parameters of a new state come from, if not
      sampled; see checkpoints.restore_params.
  """
  state = new_state()
  restored = checkpoints.restore(manager, state)
  if restored is not None:
    return restored
  if init_checkpoint:
    params, _ = checkpoints.restore_params(init_checkpoint, state.params)
    state = state._replace(params=params)
  return state


def build(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  num_steps: int | None = None,
) -> Any:
  """Unpack a config into what trains.

  Args:
    config: A whole config.
    mesh: Devices.
    num_steps: Steps of the whole training.

  Returns:
    The models.BackTAL; a function that samples a first state; where a state's
    arrays live; and the jitted step.
  """
  model, options = models.BackTAL(**config.model), config.train
  optimizer = make_optimizer(
    options.learning_rate, options.weight_decay, options.betas
  )
  sample = functools.partial(
    create_state, model, optimizer, num_snippets=config.data.num_snippets
  )
  rng = jax.random.key(options.seed)
  shapes = jax.eval_shape(sample, rng)
  layout = sharding.layout(shapes, mesh, options.shard_state)
  # The key is an argument: what is compiled, and kept, serves every seed.
  new_state = functools.partial(jax.jit(sample, out_shardings=layout), rng)
  loss = make_loss(config.model.topk_ratio, **config.loss)
  step = make_train_step(
    model,
    optimizer,
    loss,
    num_steps=num_steps,
    layout=layout,
    mesh=mesh,
    remat=options.remat,
  )
  return model, new_state, layout, step


def load(
  source: Any,
  plan: np.ndarray,
  mesh: jax.sharding.Mesh,
  *,
  clicks: Callable | None = None,
  placement: str = 'host',
  dtype: Any = 'float32',
) -> Any:
  """Yield the plan's batches, as `train_step` takes them and on this host.

  Args:
    source: Videos.
    plan: [steps, B, 2] of (epoch, video).
    mesh: Devices.
    clicks: See pipeline.batches.
    placement: Where the features wait, on the 'host' or on every 'device'.
    dtype: What they are on a device.
  """
  complete = lambda batch: batch
  if placement == 'device':
    source, complete = resident.load(source, mesh, dtype)
  loaded = pipeline.batches(source, sharding.local_columns(plan), clicks)
  for on_device, batch in sharding.prefetch(loaded, mesh, _TRAIN_KEYS):
    yield complete(on_device), batch


def open_training(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> tuple[Any, np.ndarray, annotations.Annotations, Callable | None]:
  """Open the training split and what supervises it; say whom clicks reach.

  Args:
    config: A whole config.
    mesh: Devices.

  Returns:
    The source, the index plan of the whole run, the ground truth, and
    config.data.clicks as `load` takes them.

  Raises:
    errors.InputError: The split, its labels or the clicks cannot be used.
  """
  data, options = config.data, config.train
  source = evaluate.make_source(config, data.train_split)
  plan = make_plan(
    source,
    f'{data.root}/{data.train_split}',
    sharding.batch_size(options.batch_size, mesh),
    seed=options.seed,
    num_epochs=options.num_epochs,
  )
  truth = annotations.find_ground_truth(data.ground_truth, data.root)
  splits.check_labels(source, truth)
  clicks, line = splits.make_clicks(
    source,
    data.clicks,
    truth,
    data.root,
    annotator=data.annotator,
    seed=options.seed,
    num_snippets=data.num_snippets,
  )
  if hosts.is_main_process():
    print(line)
  return source, plan, truth, clicks


def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: epath.PathLike,
  draw: Callable | None = None,
) -> Any:
  """Train from the latest checkpoint in `workdir`, or from the start.

  Args:
    config: Config of the run.
    workdir: Gets config.json, metrics.jsonl, TensorBoard events, checkpoints,
      and predictions.json and metrics.json of the best epoch.
    draw: A function of segments.Truth and outputs.Results that returns the
      images that TensorBoard gets at the end, {name: [height, width, 3] uint8}.

  Returns:
    The metrics of the best epoch.

  Raises:
    errors.InputError: a user error, or a loss that is not finite.
  """
  fields.check(config)
  workdir, mesh = files.path(workdir), sharding.make_mesh(config.mesh)
  data, options = config.data, config.train
  source, plan, truth, clicks = open_training(config, mesh)
  outputs.check_classes(workdir, truth)
  model, new_state, _, step_fn = build(config, mesh, len(plan))
  eval_source = evaluate.make_source(config, data.eval_split)
  evaluator = evaluate.make_evaluator(config, model, eval_source, truth, mesh)
  with (
    workdirs.lock(workdir),
    hosts.Preemption() as preemption,
    _open(workdir, config, evaluator) as manager,
  ):
    state = initial_state(new_state, manager, config.init_checkpoint)
    end_of_epoch = make_end_of_epoch(
      workdir,
      evaluator,
      manager,
      num_epochs=options.num_epochs,
      eval_every=options.eval_every,
      best_metric=config.eval.best_metric,
      draw=draw,
    )
    start, every = int(state.step), options.checkpoint_every
    per_epoch = len(plan) // options.num_epochs
    batches = load(
      source,
      plan[start:],
      mesh,
      clicks=clicks,
      placement=data.placement,
      dtype=config.model.dtype,
    )
    with log.Log(workdir, plan, start, source, options.on_nan) as run_log:
      for step, (on_device, batch) in enumerate(batches, start + 1):
        state, metrics = step_fn(state, on_device)
        run_log.add(step, metrics, batch, learning_rate=options.learning_rate)
        stop = preemption.reached(step)
        if step % per_epoch == 0:
          end_of_epoch(step // per_epoch, state, run_log)
        elif stop or (every and step % every == 0):
          run_log.flush()
          checkpoints.save(manager, state, epoch=step // per_epoch)
        if stop:
          checkpoints.finish(manager)
          run_log.say(
            f'asked to end after step {step}; the same command goes on'
          )
          sys.exit(hosts.PREEMPTED)
    checkpoints.finish(manager)
  return files.read_json(workdir / 'metrics.json')


@contextlib.contextmanager
def _open(workdir, config, evaluator):
  """Claim the workdir and open its checkpoints."""
  workdirs.claim(workdir, config)
  outputs.write_classes(workdir, evaluator.classes)
  with checkpoints.manager(workdir) as manager:
    yield manager


def make_end_of_epoch(
  workdir: epath.PathLike,
  evaluator: Any,
  manager: ocp.CheckpointManager,
  *,
  num_epochs: int,
  eval_every: int,
  best_metric: str,
  draw: Callable | None,
) -> Callable:
  """Return what follows an epoch: evaluation when due, and a checkpoint.

  The results of the best epoch are written before its checkpoint: a run that
  dies between the two evaluates that epoch again when it resumes.

  Args:
    workdir: Gets the results of the best epoch.
    evaluator: An evaluate.Evaluator.
    manager: Checkpoints of the workdir.
    num_epochs: After the last of them, evaluation is due.
    eval_every: Epochs between evaluations.
    best_metric: What epochs are ranked by, see scores.ranking_value.
    draw: See `train_and_evaluate`.

  Returns:
    A function of epoch, state and log.
  """
  best = manager.best_step()
  best = checkpoints.UNKNOWN if best is None else manager.metrics(best)['value']

  def end_of_epoch(epoch, state, run_log):
    nonlocal best
    run_log.flush()
    value, last = checkpoints.UNKNOWN, epoch == num_epochs
    if epoch % eval_every == 0 or last:
      params = sharding.replicate(state.params, evaluator.mesh)
      results = evaluator(params, epoch)
      value = scores.ranking_value(results.metrics, best_metric)
      run_log.write(int(state.step), scores.scalars(results.metrics))
      table = f'epoch {epoch}\n{scores.table(results.metrics)}'
      run_log.say(table)
      if draw and last and hosts.is_main_process():
        images = draw(evaluator.truth, results)
        run_log.show(int(state.step), table, images)
      if value > best:
        best = value
        outputs.write(workdir, results)
    checkpoints.save(manager, state, epoch=epoch, value=value)

  return end_of_epoch


def make_plan(
  source: Any, where: object, batch_size: int, *, seed: int, num_epochs: int
) -> np.ndarray:
  """Return the index plan of the whole run, over the labelled videos.

  Args:
    source: Videos.
    where: What errors call the source.
    batch_size: B over all devices.
    seed: Of the order.
    num_epochs: How many.
  """
  labelled = np.flatnonzero(source.labels().any(axis=1))
  if len(labelled) < len(source):
    print(f'{len(source) - len(labelled)} videos without a label are dropped')
  if not len(labelled):
    raise errors.InputError(f'{where}: no video has a label')
  return pipeline.train_plan(
    labelled, batch_size, seed=seed, num_epochs=num_epochs
  )
