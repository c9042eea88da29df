"""Training: state, step and loop."""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
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


def make_loss(config: ml_collections.ConfigDict) -> Callable:
  """Return losses.total with the numbers of a config."""
  options = dict(config.loss)
  weights = {name: options.pop(name) for name in losses.TERMS}
  model = config.model
  return functools.partial(
    losses.total, weights=weights, topk_ratio=model.topk_ratio,
    topk_by=model.topk_by, **options,
  )  # fmt: skip


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
) -> tuple[TrainState, dict]:
  """Do one step of Adam.

  Args:
    batch: feature [B, T, D], label [B, C], click [B, T], mask [B].
    num_steps: Steps of the whole training, for a loss that changes over it.
    layout: (of use, of storage) shardings of the parameters, where they
      differ; the compiler gathers the ones and scatters the gradients.
    remat: Whether to compute what is wide between layers again.

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

  def loss_fn(params):
    network = rematerialise(apply) if remat else apply
    outputs = network(params, batch['feature'])
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


def build(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  num_steps: int | None = None,
) -> Any:
  """Unpack a config into what trains for `num_steps` steps.

  Returns:
    The models.BackTAL; a function that samples a first state; where a state's
    arrays live; and the jitted step, which reuses the old state's memory.
  """
  model, options = models.BackTAL(**config.model), config.train
  optimizer = make_optimizer(
    options.learning_rate, options.weight_decay, options.betas
  )

  def sample(rng):
    params = models.init(model, rng, config.data.num_snippets)
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), rng)

  rng, whole = jax.random.key(options.seed), sharding.replicated(mesh)
  shapes = jax.eval_shape(sample, rng)
  layout = sharding.layout(shapes, mesh, options.shard_state)
  step = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    loss=make_loss(config),
    num_steps=num_steps,
    layout=(whole, layout.params) if options.shard_state else None,
    remat=options.remat,
  )
  # The key is an argument: what is compiled, and kept, serves every seed.
  new_state = functools.partial(jax.jit(sample, out_shardings=layout), rng)
  # Shardings also where the compiler would choose the same: another kind of
  # sharding object coming out than went in is another trace.
  step = jax.jit(step, donate_argnums=0, out_shardings=(layout, whole))
  return model, new_state, layout, step


def initial_state(
  new_state: Callable,
  manager: ocp.CheckpointManager,
  init_checkpoint: epath.PathLike = '',
) -> TrainState:
  """Return the latest state of a run or, of a new one, what `build` samples.

  The parameters of the latter come from `init_checkpoint`, if there is one,
  see checkpoints.restore_params.
  """
  state = new_state()
  restored = checkpoints.restore(manager, state)
  if restored is not None:
    return restored
  if init_checkpoint:
    params, _ = checkpoints.restore_params(
      files.path(init_checkpoint), state.params
    )
    state = state._replace(params=params)
  return state


def make_plan(
  source: Any, where: object, batch_size: int, *, seed: int, num_epochs: int
) -> np.ndarray:
  """Return the index plan [steps, B, 2] of a run, over the labelled videos.

  B is over all devices; `where` is what errors call the source.
  """
  labelled = np.flatnonzero(source.labels().any(axis=1))
  if len(labelled) < len(source):
    print(f'{len(source) - len(labelled)} videos without a label are dropped')
  if not len(labelled):
    raise errors.InputError(f'{where}: no video has a label')
  return pipeline.train_plan(
    labelled, batch_size, seed=seed, num_epochs=num_epochs
  )


def open_training(
  config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
) -> tuple[Any, np.ndarray, annotations.Annotations, Callable | None]:
  """Open the training split and what supervises it; say whom clicks reach.

  Returns:
    The source, the index plan of the whole run, the ground truth, and
    config.data.clicks as pipeline.batches takes them.

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


def load(
  config: ml_collections.ConfigDict,
  source: Any,
  plan: np.ndarray,
  mesh: jax.sharding.Mesh,
  clicks: Callable | None = None,
) -> Iterator[tuple[dict, dict]]:
  """Yield the batches of a plan, as `train_step` takes them and on this host.

  Where the features wait, config.data.placement says.
  """
  complete = lambda batch: batch
  if config.data.placement == 'device':
    source, complete = resident.load(source, mesh, config.model.dtype)
  loaded = pipeline.batches(source, sharding.local_columns(plan), clicks)
  for on_device, batch in sharding.prefetch(loaded, mesh, _TRAIN_KEYS):
    yield complete(on_device), batch


def make_end_of_epoch(
  config: ml_collections.ConfigDict,
  workdir: epath.PathLike,
  evaluator: evaluate.Evaluator,
  best: float,
  draw: Callable | None,
) -> Callable:
  """Return what evaluates an epoch when due: (epoch, state, log) -> its value.

  The results of the best epoch, that of the largest value, are written before
  its checkpoint: a run that dies between the two evaluates that epoch again
  when it resumes.
  """

  def end_of_epoch(epoch, state, run_log):
    nonlocal best
    last = epoch == config.train.num_epochs
    if epoch % config.train.eval_every and not last:
      return checkpoints.UNKNOWN
    results, step = evaluator(state.params, epoch), int(state.step)
    value = scores.ranking_value(results.metrics, config.eval.best_metric)
    run_log.write(step, scores.scalars(results.metrics))
    table = f'epoch {epoch}\n{scores.table(results.metrics)}'
    run_log.say(table)
    if draw and last and hosts.is_main_process():
      run_log.show(step, table, draw(evaluator.truth, results))
    if value > best:
      best = value
      outputs.write(workdir, results)
    return value

  return end_of_epoch


def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: epath.PathLike,
  draw: Callable | None = None,
) -> dict:
  """Train from the latest checkpoint in `workdir`, or from the start.

  The workdir gets config.json, metrics.jsonl, TensorBoard events, checkpoints,
  and the results of the best epoch, whose metrics are returned. At the end
  TensorBoard gets what `draw` makes of a segments.Truth and an outputs.Results:
  {name: image [height, width, 3] uint8}.

  Raises:
    errors.InputError: A user error, or a loss that is not finite.
  """
  fields.check(config)
  sharding.keep_memory()
  options = config.train
  workdir, mesh = files.path(workdir), sharding.make_mesh(config.mesh)
  source, plan, truth, clicks = open_training(config, mesh)
  outputs.check_classes(workdir, truth)
  model, new_state, _, step_fn = build(config, mesh, len(plan))
  eval_source = evaluate.make_source(config, config.data.eval_split)
  evaluator = evaluate.Evaluator(config, model, eval_source, truth, mesh)
  with (
    workdirs.lock(workdir, config),
    hosts.preemption() as preempted,
    checkpoints.manager(workdir) as manager,
  ):
    outputs.write_classes(workdir, truth.classes)
    state = initial_state(new_state, manager, config.init_checkpoint)
    best, start = checkpoints.best_value(manager), int(state.step)
    end_of_epoch = make_end_of_epoch(config, workdir, evaluator, best, draw)
    batches = load(config, source, plan[start:], mesh, clicks)
    per_epoch, every = len(plan) // options.num_epochs, options.checkpoint_every
    with log.Log(workdir, plan, start, source, options.on_nan) as run_log:
      for step, (on_device, batch) in enumerate(batches, start + 1):
        state, metrics = step_fn(state, on_device)
        run_log.add(step, metrics, batch, learning_rate=options.learning_rate)
        epoch, rest = divmod(step, per_epoch)
        stop, value = preempted(), checkpoints.UNKNOWN
        if not rest or stop or (every and step % every == 0):
          run_log.flush()
          if not rest:
            value = end_of_epoch(epoch, state, run_log)
          checkpoints.save(manager, state, epoch=epoch, value=value)
        if stop:
          checkpoints.finish(manager)
          ended = f'asked to end after step {step}; the same command goes on'
          run_log.say(ended)
          sys.exit(hosts.PREEMPTED)
    checkpoints.finish(manager)
  return files.read_json(workdir / 'metrics.json')
