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
import orbax.checkpoint as ocp
from etils import epath

from backtal_jax import (
  epochs,
  evaluate,
  fields,
  files,
  layers,
  losses,
  models,
  opening,
  staging,
  watch,
)
from backtal_jax.data import pipeline, sources
from backtal_jax.metrics import scores
from backtal_jax.run import (
  checkpoints,
  feeding,
  hosts,
  log,
  outputs,
  parameters,
  sharding,
  workdirs,
)

# Terms of the loss.
_OF_CLICKS = 'click', 'separation', 'embedding'

# By name, on the devices: a batch, or scalars.
Arrays = dict[str, jax.Array]
Loss = Callable[..., tuple[jax.Array, Arrays]]
# Where the arrays of a tree of parameters live.
Shardings: TypeAlias = 'jax.sharding.Sharding | dict[str, Shardings]'


class TrainState(NamedTuple):
  """All that training changes."""

  step: jax.Array
  params: models.Params
  opt_state: optax.OptState
  rng: jax.Array


Step = Callable[[TrainState, Arrays], tuple[TrainState, Arrays]]


class Program(NamedTuple):
  """What trains."""

  model: models.BackTAL
  # Samples a first state; of models.standard, what a network standardises by.
  new_state: Callable[..., TrainState]
  layout: TrainState  # where a state's arrays live: their shardings
  # Jitted; reuses the old state's memory.
  step: Step


def make_optimizer(
  learning_rate: float, weight_decay: float, betas: Sequence[float]
) -> optax.GradientTransformation:
  """Make torch's Adam: the decay is added to the gradient, not decoupled."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.adam(learning_rate, *betas, eps=1e-8),
  )


def make_loss(config: ml_collections.ConfigDict, clicks: bool = True) -> Loss:
  """Return losses.total with the numbers of a config; `clicks` may be off."""
  options = dict(config.loss)
  weights = {name: options.pop(name) for name in losses.TERMS}
  if not clicks:
    weights |= dict.fromkeys(_OF_CLICKS, 0.0)
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
  first_step: int = 0,
  layout: tuple[Shardings, Shardings] | None = None,
  remat: bool = False,
  rate: float = 0.0,
  rate_warmup: float = 0.0,
) -> tuple[TrainState, Arrays]:
  """Do one step of Adam.

  Args:
    batch: feature [B, T, D], label [B, C], click [B, T], mask [B]; and, where
      they are learned, snippet_label and snippet_weight [B, T].
    num_steps: Steps of the whole training, for a loss that changes over it.
    first_step: Step from which these count.
    layout: (of use, of storage) shardings of the parameters, where they
      differ; the compiler gathers the ones and scatters the gradients.
    remat: Whether to compute what is wide between layers again.
    rate: Rate of the optimizer, which is only told in the scalars.
    rate_warmup: Share of the training over which it grows from nothing.

  Returns:
    The new state (all but its step is the old one where the loss or the
    gradient is not finite), and scalars: each term, the sum, the gradient's
    norm, `finite` and, where it changes, the rate.
  """
  rng = jax.random.fold_in(state.rng, state.step)
  if num_steps:
    done = state.step - first_step if first_step else state.step
    loss = functools.partial(loss, progress=done / num_steps)
  if 'snippet_label' in batch:
    snippets = batch['snippet_label'], batch['snippet_weight']
    loss = functools.partial(loss, snippets=snippets)

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
  warming = {}
  if num_steps and rate_warmup:
    share = jnp.minimum((done + 1) / max(rate_warmup * num_steps, 1), 1.0)
    updates = jax.tree.map(lambda update: share * update, updates)
    warming['learning_rate'] = share * rate
  new = state._replace(
    params=optax.apply_updates(state.params, updates), opt_state=opt_state
  )
  if model.standardize:  # given: without a gradient, there is decay to undo
    new.params['standard'] = state.params['standard']
  finite = jnp.isfinite(total) & jnp.isfinite(norm)
  new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
  metrics = {f'loss/{name}': term for name, term in terms.items()}
  metrics |= {'loss/total': total, 'gradient_norm': norm, 'finite': finite}
  metrics |= warming
  return new._replace(step=state.step + 1), metrics


def build(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  num_steps: int | None = None,
  first_step: int = 0,
  clicks: bool = True,
) -> Program:
  """Unpack a config into what trains for `num_steps` steps from the first.

  `clicks` says whether they count.
  """
  model, options = models.BackTAL(**config.model), config.train
  loss = make_loss(config, clicks)
  optimizer = make_optimizer(
    options.learning_rate, options.weight_decay, options.betas
  )

  def sample(rng, channels=None):
    params = models.init(model, rng)
    if channels is not None:
      params['standard'] = {'channels': channels}
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
    first_step=first_step,
    layout=(whole, layout.params) if options.shard_state else None,
    remat=options.remat,
    rate=options.learning_rate,
    rate_warmup=options.rate_warmup,
  )
  # The key is an argument: what is compiled, and kept, serves every seed.
  new_state = functools.partial(jax.jit(sample, out_shardings=layout), rng)
  # Shardings also where the compiler would choose the same: another kind of
  # sharding object coming out than went in is another trace.
  step = jax.jit(step, donate_argnums=0, out_shardings=(layout, whole))
  return Program(model, new_state, layout, step)


def stage_options(config: ml_collections.ConfigDict) -> staging.Options:
  """Unpack config.stages."""
  options, epochs = config.stages, config.train.num_epochs
  again = options.retrain and max(1, round(options.retrain * epochs))
  clicks = any(config.loss[name] for name in _OF_CLICKS)
  return staging.Options(
    epochs,
    clicks,
    # What was trained without clicks is not done so again.
    options.without_clicks_below if clicks else 0.0,
    options.names,
    options.every_instance,
    int(again),
    options.quality,
  )


class Run(NamedTuple):
  """What all parts of a training share."""

  workdir: epath.Path
  names: Sequence[str]  # of the videos, for errors
  plan: np.ndarray  # [steps, B, 2] of as many epochs as there may be
  per_epoch: int  # steps
  num_steps: int  # of the first part
  # (rows of the plan, targets=labels and weights of snippets) -> batches.
  feed: Callable[..., Iterator[tuple[Arrays, pipeline.Batch]]]
  step: Step  # of the first part
  new_state: Callable[[], TrainState]
  build: Callable[..., Program]  # (num_steps, first_step, clicks) -> of others
  learning_rate: float
  checkpoint_every: int  # steps, 0 for epochs alone
  on_nan: str  # see config.train
  manager: ocp.CheckpointManager
  preempted: Callable[[], bool]
  epochs: epochs.Epochs


def _begin(
  run: Run, part: staging.Part, state: TrainState
) -> tuple[Step, TrainState]:
  """Return the step of a part, and the state that it goes on from."""
  if not part.number:
    return run.step, state
  first = run.per_epoch * part.first
  # What goes on from parameters is past all warm-ups.
  since = first if part.targets is None else first - run.num_steps
  step = run.build(run.num_steps, since, part.clicks).step
  if int(state.step) == first:
    fresh = run.new_state()._replace(step=state.step)
    if part.targets is not None:
      fresh = fresh._replace(params=state.params)
    state = fresh
  return step, state


def _train_part(run: Run, part: staging.Part, state: TrainState) -> TrainState:
  """Train a part from a state within it, to its end; exit where asked to."""
  step_fn, state = _begin(run, part, state)
  start, plan = int(state.step), run.plan[: run.per_epoch * part.last]
  every, batches = run.checkpoint_every, run.feed(plan[start:], part.targets)
  with log.Log(run.workdir, plan, start, run.names, run.on_nan) as run_log:
    for step, (on_device, batch) in enumerate(batches, start + 1):
      state, metrics = step_fn(state, on_device)
      run_log.add(step, metrics, batch, learning_rate=run.learning_rate)
      epoch, rest = divmod(step, run.per_epoch)
      stop, value = run.preempted(), parameters.UNKNOWN
      if not rest or stop or (every and step % every == 0):
        run_log.flush()
        if not rest:
          value = run.epochs.end(epoch, state, run_log, part)
        checkpoints.save(run.manager, state, epoch=epoch, value=value)
      if stop:
        checkpoints.finish(run.manager)
        ended = f'asked to end after step {step}; the same command goes on'
        run_log.say(ended)
        sys.exit(hosts.PREEMPTED)
  return state


def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: epath.PathLike,
  draw: epochs.Draw | None = None,
) -> scores.Metrics:
  """Train from the latest checkpoint in `workdir`, or from the start.

  The workdir gets config.json, metrics.jsonl, TensorBoard events, checkpoints,
  what stages make, and the results of the best epoch, whose metrics are
  returned. At the end TensorBoard gets the images that `draw` makes.

  Raises:
    errors.InputError: A user error, or a loss that is not finite.
  """
  fields.check(config)
  sharding.keep_memory()
  workdir, root = files.path(workdir), files.path(config.data.root)
  given = files.path(config.init_checkpoint) if config.init_checkpoint else None
  mesh, plain = sharding.make_mesh(config.mesh), fields.plain(config)
  # From here on nothing is written before all is found to be right.
  videos = opening.training(config, root)
  if hosts.is_main_process():
    print(*videos.lines, sep='\n')
  channels = None
  if config.model.standardize:
    measure = lambda: sources.measure_channels(videos.source, videos.labelled)
    channels = models.standard(*hosts.by_one(measure))
  options, parts = config.train, stage_options(config)
  size = sharding.batch_size(options.batch_size, mesh)
  per_epoch = pipeline.num_steps(len(videos.labelled), size)
  num_steps = per_epoch * options.num_epochs
  model, sample, _, step = build(config, mesh, num_steps)
  new_state = functools.partial(sample, channels)
  outputs.check_classes(workdir, videos.truth)
  labeller = videos.supervision.labeller
  trained = watch.Trained(
    model,
    videos.source,
    videos.labelled,
    labeller,
    mesh,
    config.eval.batch_size,
  )
  stages = staging.Stages(
    trained, workdir, parts, dict(config.localization), options.seed
  )
  evaluator = evaluate.Evaluator(
    config, model, videos.evaluated, videos.truth, mesh,
    (videos.source, videos.supervision),
  )  # fmt: skip
  feed = functools.partial(
    feeding.batches, videos.source, mesh, labeller,
    config.model.dtype if config.data.placement == 'device' else None,
  )  # fmt: skip
  with (
    workdirs.lock(workdir, plain),
    hosts.preemption() as preempted,
    checkpoints.manager(workdir) as manager,
  ):
    state = checkpoints.initial_state(manager, new_state(), given)
    outputs.begin(workdir, videos.truth.classes, videos.supervision.held)
    ends = epochs.Epochs(
      workdir, evaluator, stages, options.eval_every,
      checkpoints.best_value(manager), trained if config.eval.watch else None,
      draw,
    )  # fmt: skip
    plan = pipeline.train_plan(
      videos.labelled, size, seed=options.seed, num_epochs=parts.most_epochs
    )
    run = Run(
      workdir, videos.source.names, plan, per_epoch, num_steps, feed, step,
      new_state, functools.partial(build, config, mesh), options.learning_rate,
      options.checkpoint_every, options.on_nan, manager, preempted, ends,
    )  # fmt: skip
    for part in stages.parts():
      if int(state.step) < per_epoch * part.last:
        state = _train_part(run, part, state)
    checkpoints.finish(manager)
  return files.read_json(workdir / 'metrics.json')
