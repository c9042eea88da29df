"""Training: the step, and all that a config names, opened for the loop."""

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import ml_collections
import optax
from etils import epath

from backtal_jax import (
  epochs,
  evaluate,
  fields,
  files,
  layers,
  loop,
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
  outputs,
  sharding,
  workdirs,
)

# Terms of the loss that learn of clicks.
OF_CLICKS = 'click', 'separation', 'embedding'
Loss = Callable[..., tuple[jax.Array, loop.Arrays]]
# Where the arrays of a tree of parameters live.
Shardings: TypeAlias = 'jax.sharding.Sharding | dict[str, Shardings]'


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
    weights |= dict.fromkeys(OF_CLICKS, 0.0)
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


def _differentiate(loss_fn, params, layout):
  """Return (loss, terms) and the gradients, laid out as `train_step` says."""
  if layout:
    params = jax.lax.with_sharding_constraint(params, layout[0])
  value, grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  if layout:
    grads = jax.lax.with_sharding_constraint(grads, layout[1])
  return value, grads


def train_step(
  state: loop.TrainState,
  batch: loop.Arrays,
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
) -> tuple[loop.TrainState, loop.Arrays]:
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
  apply = functools.partial(model.apply, train=True, rngs={'dropout': rng})
  network = rematerialise(apply) if remat else apply

  def loss_fn(params):
    outputs = network({'params': params}, batch['feature'])
    return loss(outputs, batch['label'], batch['click'], batch['mask'])

  (total, terms), grads = _differentiate(loss_fn, state.params, layout)
  norm = optax.tree.norm(grads)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  metrics = {f'loss/{name}': term for name, term in terms.items()}
  if num_steps and rate_warmup:
    share = jnp.minimum((done + 1) / max(rate_warmup * num_steps, 1), 1.0)
    updates = jax.tree.map(lambda update: share * update, updates)
    metrics['learning_rate'] = share * rate
  new = state._replace(
    params=optax.apply_updates(state.params, updates), opt_state=opt_state
  )
  if model.standardize:  # given: without a gradient, there is decay to undo
    new.params['standard'] = state.params['standard']
  finite = jnp.isfinite(total) & jnp.isfinite(norm)
  new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
  metrics |= {'loss/total': total, 'gradient_norm': norm, 'finite': finite}
  return new._replace(step=state.step + 1), metrics


def build(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  num_steps: int | None = None,
  first_step: int = 0,
  clicks: bool = True,
) -> loop.Program:
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
    return loop.TrainState(step, params, optimizer.init(params), rng)

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
  sample = jax.jit(sample, out_shardings=layout)

  def new_state(measured=None):
    channels = models.standard(*measured) if measured else None
    # The key is an argument: what is compiled, and kept, serves every seed.
    return sample(rng, channels)

  # Shardings also where the compiler would choose the same: another kind of
  # sharding object coming out than went in is another trace.
  step = jax.jit(step, donate_argnums=0, out_shardings=(layout, whole))
  return loop.Program(model, new_state, layout, step)


def stage_options(config: ml_collections.ConfigDict) -> staging.Options:
  """Unpack config.stages."""
  options, epochs = config.stages, config.train.num_epochs
  again = options.retrain and max(1, round(options.retrain * epochs))
  clicks = any(config.loss[name] for name in OF_CLICKS)
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


def _ends(config, workdir, videos, mesh, draw):
  """Make what is done at the end of an epoch, of a config's values."""
  model = models.BackTAL(**config.model)
  trained = watch.Trained(
    model, videos.source, videos.labelled, videos.supervision.labeller, mesh,
    config.eval.batch_size,
  )  # fmt: skip
  evaluator = evaluate.Evaluator(
    config, model, videos.evaluated, videos.truth, mesh,
    (videos.source, videos.supervision),
  )  # fmt: skip
  stages = staging.Stages(
    trained, workdir, stage_options(config), dict(config.localization),
    config.train.seed,
  )  # fmt: skip
  watched = trained if config.eval.watch else None
  return epochs.Epochs(
    workdir, evaluator, stages, config.train.eval_every, watched, draw
  )


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
  workdir, options = files.path(workdir), config.train
  root = files.path(config.data.root)
  given = files.path(config.init_checkpoint) if config.init_checkpoint else None
  mesh, plain = sharding.make_mesh(config.mesh), fields.plain(config)
  # From here on nothing is written before all is found to be right.
  videos = opening.training(config, root)
  if hosts.is_main_process():
    print(*videos.lines, sep='\n')
  size = sharding.batch_size(options.batch_size, mesh)
  per_epoch = pipeline.num_steps(len(videos.labelled), size)
  num_steps = per_epoch * options.num_epochs
  ends = _ends(config, workdir, videos, mesh, draw)
  program = build(config, mesh, num_steps)
  if config.model.standardize:
    measure = functools.partial(
      sources.measure_channels, videos.source, videos.labelled
    )
    new_state = functools.partial(program.new_state, hosts.by_one(measure))
    program = program._replace(new_state=new_state)
  outputs.check_classes(workdir, videos.truth)
  on_device = config.data.placement == 'device'
  plan = functools.partial(
    pipeline.train_plan, videos.labelled, size, seed=options.seed
  )
  feed = functools.partial(
    feeding.batches, videos.source, mesh, videos.supervision.labeller,
    config.model.dtype if on_device else None,
  )  # fmt: skip
  with (
    workdirs.lock(workdir, plain),
    hosts.preemption() as preempted,
    checkpoints.manager(workdir) as manager,
  ):
    state = checkpoints.initial_state(manager, program.new_state(), given)
    outputs.begin(workdir, videos.truth.classes, videos.supervision.held)
    ends.best = checkpoints.best_value(manager)
    run = loop.Run(
      workdir, videos.source.names, plan, per_epoch, num_steps, feed, program,
      functools.partial(build, config, mesh), options.learning_rate,
      options.checkpoint_every, options.on_nan, manager, preempted, ends,
    )  # fmt: skip
    loop.train(run, state)
    checkpoints.finish(manager)
  return files.read_json(workdir / 'metrics.json')
