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
  evaluate,
  fields,
  files,
  layers,
  losses,
  models,
  staging,
  watch,
)
from backtal_jax.data import annotations, pipeline, sources, splits
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

# Terms of the loss.
_OF_CLICKS = 'click', 'separation', 'embedding'
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


Step = Callable[[TrainState, Arrays], tuple[TrainState, Arrays]]


class Program(NamedTuple):
  """What trains."""

  model: models.BackTAL
  # Samples a first state; of models.standard, what a network standardises by.
  new_state: Callable[..., TrainState]
  layout: TrainState  # where a state's arrays live: their shardings
  # Jitted; reuses the old state's memory.
  step: Step


class Videos(NamedTuple):
  """What is trained on."""

  source: sources.Source
  labelled: np.ndarray  # indices of the videos with a label
  plan: np.ndarray  # [steps, B, 2] of as many epochs as there may be
  truth: annotations.Annotations
  supervision: splits.Supervision


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


def renew(
  config: ml_collections.ConfigDict, layout: TrainState, state: TrainState
) -> TrainState:
  """Return a state with the memory of an optimizer that begins."""
  options = config.train
  optimizer = make_optimizer(
    options.learning_rate, options.weight_decay, options.betas
  )
  begin = jax.jit(optimizer.init, out_shardings=layout.opt_state)
  return state._replace(opt_state=begin(state.params))


def open_training(
  config: ml_collections.ConfigDict,
  root: epath.Path,
  mesh: jax.sharding.Mesh,
  num_epochs: int,
) -> Videos:
  """Open the training split and what supervises it; say whom clicks reach.

  The `root` is config.data's; the plan is of `num_epochs`.

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
    num_epochs=num_epochs,
  )
  truth = annotations.find_ground_truth(data.ground_truth, root)
  splits.check_labels(source, truth)
  supervision = evaluate.supervise(config, root, source, labelled, truth)
  if hosts.is_main_process():
    print(supervision.line)
    if line := splits.inseparable(source.labels()[labelled], truth.classes):
      print(line)
  return Videos(source, labelled, plan, truth, supervision)


def _measure_channels(videos):
  """Return the models.standard of the training split, of all processes one."""
  measured = []
  if hosts.is_main_process():
    found = sources.measure_channels(videos.source, videos.labelled)
    measured.append(found)
  return models.standard(*hosts.gather_objects(measured)[0][0])


def load(
  config: ml_collections.ConfigDict,
  source: sources.Videos,
  plan: np.ndarray,
  mesh: jax.sharding.Mesh,
  clicks: sources.Labeller | None = None,
  targets: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[tuple[Arrays, pipeline.Batch]]:
  """Yield the batches of a plan, as `train_step` takes them and on this host.

  Where the features wait, config.data.placement says. With `targets`, labels
  and weights [N, T] of the snippets of all videos, these come along.
  """
  keys = _TRAIN_KEYS
  if targets is not None:
    keys += 'snippet_label', 'snippet_weight'
  complete = lambda batch: batch
  if config.data.placement == 'device':
    source, complete = resident.load(source, mesh, config.model.dtype)
  loaded = pipeline.batches(source, sharding.local_columns(plan), clicks)
  if targets is not None:
    # Rows that fill the batch are masked, whatever they hold.
    loaded = (
      batch
      | {key: rows[batch['video_index']] for key, rows in zip(
        keys[-2:], targets, strict=True
      )}
      for batch in loaded
    )  # fmt: skip
  for on_device, batch in sharding.prefetch(loaded, mesh, keys):
    yield complete(on_device), batch


EndOfEpoch = Callable[[int, TrainState, log.Log, staging.Part], float]


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
  mesh: jax.sharding.Mesh
  videos: Videos
  per_epoch: int  # steps
  manager: ocp.CheckpointManager
  preempted: Callable[[], bool]
  end_of_epoch: EndOfEpoch


def make_end_of_epoch(
  config: ml_collections.ConfigDict,
  workdir: epath.Path,
  evaluator: evaluate.Evaluator,
  best: float,
  draw: Draw | None,
  trained: watch.Trained,
  stages: staging.Stages,
) -> EndOfEpoch:
  """Return what evaluates an epoch when due, and gives its value.

  The results of the best epoch, that of the largest value, are written before
  its checkpoint: a run that dies between the two evaluates that epoch again
  when it resumes. So is what follows from a part at its last epoch. Epochs of
  later parts are better.
  """

  def end_of_epoch(epoch, state, run_log, part):
    nonlocal best
    last, head, final = epoch == part.last, None, False
    if epoch % config.train.eval_every and not last:
      return checkpoints.UNKNOWN
    if last:
      final, head = stages.finish(part, state.params, run_log.say)
    results, step = evaluator(state.params, epoch, head), int(state.step)
    if config.eval.watch:
      measured = watch.watch(trained, state.params)
      results.metrics['training'] = measured
      run_log.say(watch.told(measured))
      line = watch.warning(measured)
      if last and line:
        run_log.say(line)
    run_log.write(step, scores.scalars(results.metrics))
    table = f'epoch {epoch}\n{scores.table(results.metrics)}'
    run_log.say(table)
    if draw and final and hosts.is_main_process():
      run_log.show(step, table, draw(evaluator.truth, results))
    value = evaluator.value(results) + part.number
    if value > best:
      best = value
      outputs.write(workdir, results)
    return value

  return end_of_epoch


def _train_part(
  run: Run,
  config: ml_collections.ConfigDict,
  part: staging.Part,
  step_fn: Step,
  state: TrainState,
) -> TrainState:
  """Train a part from a state within it, to its end; exit where asked to."""
  options, per_epoch = config.train, run.per_epoch
  start, end = int(state.step), per_epoch * part.last
  source, plan = run.videos.source, run.videos.plan[:end]
  batches = load(
    config,
    source,
    plan[start:],
    run.mesh,
    run.videos.supervision.labeller,
    part.targets,
  )
  with log.Log(
    run.workdir, plan, start, source.names, options.on_nan
  ) as run_log:
    for step, (on_device, batch) in enumerate(batches, start + 1):
      state, metrics = step_fn(state, on_device)
      run_log.add(step, metrics, batch, learning_rate=options.learning_rate)
      epoch, rest = divmod(step, per_epoch)
      stop, value = run.preempted(), checkpoints.UNKNOWN
      every = options.checkpoint_every
      if not rest or stop or (every and step % every == 0):
        run_log.flush()
        if not rest:
          value = run.end_of_epoch(epoch, state, run_log, part)
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
  draw: Draw | None = None,
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
  workdir, mesh = files.path(workdir), sharding.make_mesh(config.mesh)
  root = files.path(config.data.root)
  first = files.path(config.init_checkpoint) if config.init_checkpoint else None
  options = stage_options(config)
  videos = open_training(config, root, mesh, options.most_epochs)
  outputs.check_classes(workdir, videos.truth)
  per_epoch = len(videos.plan) // options.most_epochs
  num_steps = per_epoch * config.train.num_epochs
  model, new_state, layout, step_fn = build(config, mesh, num_steps)
  if config.model.standardize:
    new_state = functools.partial(new_state, _measure_channels(videos))
  evaluator = evaluate.Evaluator(
    config,
    model,
    evaluate.open_evaluated(config, root),
    videos.truth,
    mesh,
    (videos.source, videos.supervision),
  )
  trained = watch.Trained(
    model,
    videos.source,
    videos.labelled,
    videos.supervision.labeller,
    mesh,
    config.eval.batch_size,
  )
  stages = staging.Stages(
    trained,
    workdir,
    options,
    dict(config.localization),
    config.train.seed,
  )
  with (
    workdirs.lock(workdir, fields.plain(config)),
    hosts.preemption() as preempted,
    checkpoints.manager(workdir) as manager,
  ):
    outputs.write_classes(workdir, videos.truth.classes)
    outputs.write_held(workdir, videos.supervision.held)
    state = checkpoints.initial_state(manager, new_state(), first)
    best = checkpoints.best_value(manager)
    end_of_epoch = make_end_of_epoch(
      config, workdir, evaluator, best, draw, trained, stages
    )
    run = Run(
      workdir, mesh, videos, per_epoch, manager, preempted, end_of_epoch
    )
    for part in stages.parts():
      begin, end = per_epoch * part.first, per_epoch * part.last
      if int(state.step) >= end:
        continue
      if part.number:
        # What goes on from parameters is past all warm-ups.
        since = begin if part.targets is None else begin - num_steps
        *_, step_fn = build(config, mesh, num_steps, since, part.clicks)
        if int(state.step) == begin and part.targets is None:
          state = new_state()._replace(step=state.step)
        elif int(state.step) == begin:
          state = renew(config, layout, state)
      state = _train_part(run, config, part, step_fn, state)
    checkpoints.finish(manager)
  return files.read_json(workdir / 'metrics.json')
