"""Training: state, step and loop."""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from etils import epath

from backtal_jax import evaluate, fields, files, layers, losses, models
from backtal_jax.data import annotations, clicks, pipeline, sources, splits
from backtal_jax.metrics import scores, segments
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

# By name, on the devices: a batch, or scalars.
Arrays = dict[str, jax.Array]
Loss = Callable[..., tuple[jax.Array, Arrays]]
# Where the arrays of a tree of parameters live.
Shardings: TypeAlias = 'jax.sharding.Sharding | dict[str, Shardings]'
# (truth, results) -> {name: image [height, width, 3] uint8}.
Draw = Callable[[segments.Truth, outputs.Results], dict[str, np.ndarray]]


class TrainState(NamedTuple):
  """All that training changes."""

  step: jax.Array
  params: models.Params
  opt_state: optax.OptState
  rng: jax.Array


class Program(NamedTuple):
  """What trains."""

  model: models.BackTAL
  new_state: Callable[[], TrainState]  # samples a first state
  layout: TrainState  # where a state's arrays live: their shardings
  # Jitted; reuses the old state's memory.
  step: Callable[[TrainState, Arrays], tuple[TrainState, Arrays]]


class Videos(NamedTuple):
  """What is trained on."""

  source: sources.Source
  plan: np.ndarray  # [steps, B, 2] of the whole run
  truth: annotations.Annotations
  clicks: sources.Labeller | None


def make_optimizer(
  learning_rate: float, weight_decay: float, betas: Sequence[float]
) -> optax.GradientTransformation:
  """Make torch's Adam: the decay is added to the gradient, not decoupled."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.adam(learning_rate, *betas, eps=1e-8),
  )


def make_loss(config: ml_collections.ConfigDict) -> Loss:
  """Return losses.total with the numbers of a config."""
  options = dict(config.loss)
  weights = {name: options.pop(name) for name in losses.TERMS}
  model = config.model
  return functools.partial(
    losses.total, weights=weights, topk_ratio=model.topk_ratio,
    topk_by=model.topk_by, **options,
  )  # fmt: skip


def rematerialise(
  apply: Callable[..., models.Outputs],
) -> Callable[..., models.Outputs]:
  """Keep of the network only the layers' outputs for the gradient."""
  keep = jax.checkpoint_policies.save_only_these_names(layers.KEPT)
  return jax.checkpoint(apply, policy=keep)


def train_step(
  state: TrainState,
  batch: Arrays,
  *,
  model: models.BackTAL,
  optimizer: optax.GradientTransformation,
  loss: Loss,
  num_steps: int | None = None,
  layout: tuple[Shardings, Shardings] | None = None,
  remat: bool = False,
) -> tuple[TrainState, Arrays]:
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
) -> Program:
  """Unpack a config into what trains for `num_steps` steps."""
  model, options = models.BackTAL(**config.model), config.train
  loss = make_loss(config)
  optimizer = make_optimizer(
    options.learning_rate, options.weight_decay, options.betas
  )

  def sample(rng):
    params = models.init(model, rng)
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), rng)

  rng, whole = jax.random.key(options.seed), sharding.replicated(mesh)
  shapes = jax.eval_shape(sample, rng)
  layout = sharding.layout(shapes, mesh, options.shard_state)
  step = functools.partial(
    train_step,
    model=model,
    optimizer=optimizer,
    loss=loss,
    num_steps=num_steps,
    layout=(whole, layout.params) if options.shard_state else None,
    remat=options.remat,
  )
  # The key is an argument: what is compiled, and kept, serves every seed.
  new_state = functools.partial(jax.jit(sample, out_shardings=layout), rng)
  # Shardings also where the compiler would choose the same: another kind of
  # sharding object coming out than went in is another trace.
  step = jax.jit(step, donate_argnums=0, out_shardings=(layout, whole))
  return Program(model, new_state, layout, step)


def open_training(
  config: ml_collections.ConfigDict, root: epath.Path, mesh: jax.sharding.Mesh
) -> Videos:
  """Open the training split and what supervises it; say whom clicks reach.

  The `root` is config.data's.

  Raises:
    errors.InputError: The split, its labels or the clicks cannot be used.
  """
  data, options = config.data, config.train
  source = evaluate.make_source(config, root, data.train_split)
  labelled = splits.labelled(source, root / data.train_split)
  plan = pipeline.train_plan(
    labelled,
    sharding.batch_size(options.batch_size, mesh),
    seed=options.seed,
    num_epochs=options.num_epochs,
  )
  truth = annotations.find_ground_truth(data.ground_truth, root)
  splits.check_labels(source, truth)
  labeller, line = splits.make_clicks(
    source,
    labelled,
    clicks.find(data.clicks, root),
    truth,
    annotator=data.annotator,
    seed=options.seed,
    num_snippets=data.num_snippets,
  )
  if hosts.is_main_process():
    print(line)
  return Videos(source, plan, truth, labeller)


def load(
  config: ml_collections.ConfigDict,
  source: sources.Videos,
  plan: np.ndarray,
  mesh: jax.sharding.Mesh,
  clicks: sources.Labeller | None = None,
) -> Iterator[tuple[Arrays, pipeline.Batch]]:
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
  workdir: epath.Path,
  evaluator: evaluate.Evaluator,
  best: float,
  draw: Draw | None,
) -> Callable[[int, TrainState, log.Log], float]:
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
    run_log.write(step, scores.scalars(results.metrics))
    table = f'epoch {epoch}\n{scores.table(results.metrics)}'
    run_log.say(table)
    if draw and last and hosts.is_main_process():
      run_log.show(step, table, draw(evaluator.truth, results))
    value = evaluator.value(results)
    if value > best:
      best = value
      outputs.write(workdir, results)
    return value

  return end_of_epoch


def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: epath.PathLike,
  draw: Draw | None = None,
) -> scores.Metrics:
  """Train from the latest checkpoint in `workdir`, or from the start.

  The workdir gets config.json, metrics.jsonl, TensorBoard events, checkpoints,
  and the results of the best epoch, whose metrics are returned. At the end
  TensorBoard gets the images that `draw` makes.

  Raises:
    errors.InputError: A user error, or a loss that is not finite.
  """
  fields.check(config)
  sharding.keep_memory()
  options = config.train
  workdir, mesh = files.path(workdir), sharding.make_mesh(config.mesh)
  root = files.path(config.data.root)
  first = files.path(config.init_checkpoint) if config.init_checkpoint else None
  source, plan, truth, labeller = open_training(config, root, mesh)
  outputs.check_classes(workdir, truth)
  model, new_state, _, step_fn = build(config, mesh, len(plan))
  eval_source = evaluate.make_source(config, root, config.data.eval_split)
  evaluator = evaluate.Evaluator(config, model, eval_source, truth, mesh)
  with (
    workdirs.lock(workdir, fields.plain(config)),
    hosts.preemption() as preempted,
    checkpoints.manager(workdir) as manager,
  ):
    outputs.write_classes(workdir, truth.classes)
    state = checkpoints.initial_state(manager, new_state(), first)
    best, start = checkpoints.best_value(manager), int(state.step)
    end_of_epoch = make_end_of_epoch(config, workdir, evaluator, best, draw)
    batches = load(config, source, plan[start:], mesh, labeller)
    per_epoch, every = len(plan) // options.num_epochs, options.checkpoint_every
    with log.Log(workdir, plan, start, source.names, options.on_nan) as run_log:
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
