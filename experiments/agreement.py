"""What click agreement is worth: does it rank runs as mAP does?

  python -m backtal_jax.prepare demo --output data/demo
  python -m backtal_jax.prepare hapt --archive "HAPT Data Set.zip" \\
      --output data/HAPT
  python -m experiments.agreement --demo data/demo --hapt data/HAPT \\
      --workdir runs/agreement [--seeds 3] \\
      [--output docs/pictures/agreement.png]

Trains narrow networks by good and bad recipes, with simulated background clicks
of which a share is wrong. A quarter of each video's clicks is kept aside, wrong
ones like the others, and the segments found in the training videos are held
against them, and against the clicks of a second annotator who does not err;
average mAP is measured on other videos: the demo's test split, and of HAPT five
of the 21 training people (its test people are not touched). Neither chooses
anything here. Four checkpoints of a run are four points, which share the run's
start, clicks and order. What is whole is not run again; with `--table` it only
shows what is there.
"""

import itertools
from typing import NamedTuple

import numpy as np

from backtal_jax import errors, evaluate, files, opening, train
from backtal_jax.data import annotations, pipeline, splits
from backtal_jax.metrics import agreement, segments
from backtal_jax.prepare import simulate_clicks
from backtal_jax.run import feeding, sharding
from experiments import supervision

EPOCHS = {'demo': 16, 'hapt': 20}
WRONG = 0.0, 0.1, 0.2, 0.4
# Recipe: that of configs.recipes, and what is changed.
RECIPES = {
  'robust': ('robust', {}),
  'published': ('published', {}),
  'robust, a tenth of the rate': ('robust', {'train.learning_rate': 2e-4}),
  'robust, clicks not used': ('robust', supervision.LABELS_ALONE),
}
_ASIDE = 0.25
_SECOND = 1000  # added to the seed: of the second annotator's clicks
_CHECKPOINTS = 4


class Point(NamedTuple):
  """A checkpoint of a run: what was measured."""

  dataset: str
  recipe: str
  wrong: float
  seed: int
  epoch: int
  agreement: float  # with the clicks kept aside
  average_map: float
  second: float  # with a second annotator's, who does not err


def config_of(name, root, clicks, recipe, seed):
  """Return the config of a run."""
  epochs, (base, changes) = EPOCHS[name], RECIPES[recipe]
  config = supervision.SETS[name][0].get_config(base)
  with config.unlocked():
    config.update_from_flattened_dict(
      {
        'data.root': str(root), 'data.clicks': str(clicks),
        'data.clicks_aside': _ASIDE, 'data.generate': False,
        'data.eval_split': 'held' if name == 'hapt' else 'test',
        'model.hidden_dim': 64, 'model.reduce_dim': 32,
        'model.embedding_dim': 16, 'train.num_epochs': epochs,
        'train.eval_every': epochs // _CHECKPOINTS, 'train.seed': seed,
      } | changes
    )  # fmt: skip
  return config


def result(workdir, name, recipe, wrong, seed):
  """Return the file of what was measured of a run."""
  words = recipe.replace(',', '').replace(' ', '_')
  return workdir / name / words / f'wrong_{wrong:g}' / f'{seed}.json'


def run(name, root, workdir, recipe, wrong, seed, steps) -> None:
  """Train one run, unless it is whole, and write what Point has, from epoch on.

  `steps` keeps what is compiled of each recipe.
  """
  where = result(workdir, name, recipe, wrong, seed)
  _, margin, min_gap = supervision.SETS[name]
  if where.exists():
    return
  truth = annotations.read_ground_truth(root / 'ground_truth.json')
  paths = []
  for who, share in ((seed, wrong), (_SECOND + seed, 0.0)):
    found = simulate_clicks.simulate_background(
      truth, 'train', seed=who, gap_share=1.0, wrong_share=share,
      margin=margin, min_gap=min_gap,
    )  # fmt: skip
    paths.append(workdir / name / f'clicks_{share:g}_{who}.csv')
    annotations.write_clicks(paths[-1], found)
  print(f'{name}, {recipe}, {wrong:.0%} wrong, seed {seed}', flush=True)
  config = config_of(name, root, paths[0], recipe, seed)
  rows = _train(config, root, paths, steps, (name, recipe))
  files.write_json(where, rows)


def _train(config, root, paths, steps, key):
  """Train as train.train_and_evaluate does, keeping no checkpoint on disk."""
  mesh, epochs = sharding.make_mesh(config.mesh), config.train.num_epochs
  videos = opening.training(config, root)
  print(*videos.lines, sep='\n')
  plan = pipeline.train_plan(
    videos.labelled,
    sharding.batch_size(config.train.batch_size, mesh),
    seed=config.train.seed,
    num_epochs=epochs,
  )
  program = train.build(config, mesh, len(plan))
  step = steps.setdefault(key, program.step)
  measure = _measure(config, root, paths, videos, program.model, mesh)
  state, rows = program.new_state(), []
  per_epoch = len(plan) // epochs
  dtype = config.model.dtype if config.data.placement == 'device' else None
  batches = feeding.batches(
    videos.source, mesh, videos.supervision.labeller, dtype, plan
  )
  for done, (on_device, _) in enumerate(batches, 1):
    state, _ = step(state, on_device)
    epoch, rest = divmod(done, per_epoch)
    if not rest and epoch % config.train.eval_every == 0:
      rows.append([epoch, *measure(state.params)])
  return rows


def _measure(config, root, paths, videos, model, mesh):
  """Return what measures parameters: agreement, mAP, agreement with others."""
  truth, source, trained = videos.truth, videos.source, videos.supervision
  evaluator = evaluate.Evaluator(config, model, videos.evaluated, truth, mesh)
  find = evaluate.Finder(
    model, truth.classes, mesh, dict(config.localization),
    config.eval.batch_size, source,
  )  # fmt: skip
  columns = segments.unannotated(truth, config.data.train_split)
  second = splits.make_clicks(
    source, videos.labelled, paths[:1], truth, annotator='all', seed=0,
    num_snippets=config.data.num_snippets, others=paths[1:],
  )  # fmt: skip

  def measure(params):
    found = segments.make_predictions(
      find(params).found, truth.classes, columns
    )
    own, others = (
      agreement.summarize(agreement.by_video(columns, found, held))['value']
      for held in (trained.held, second.held)
    )
    average = evaluator(params, 0).metrics['average_mAP']
    return own, average, others

  return measure


def read(workdir) -> list[Point]:
  """Return the points of all whole runs."""
  points = []
  for name, recipe, wrong in itertools.product(EPOCHS, RECIPES, WRONG):
    parent = result(workdir, name, recipe, wrong, 0).parent
    for path in files.listed(parent, '.json'):
      points += [
        Point(name, recipe, wrong, int(path.stem), *row)
        for row in files.read_json(path)
      ]
  return points


def _spearman(points, by='agreement'):
  """Return the rank correlation of a measure and mAP over points."""
  from scipy import stats

  if len(points) < 3:
    return np.nan
  pairs = ((getattr(p, by), p.average_map) for p in points)
  a, b = zip(*pairs, strict=True)
  return stats.spearmanr(a, b).statistic


def _last(points):
  last = max(point.epoch for point in points)
  return [point for point in points if point.epoch == last]


def _lost(groups) -> str:
  """Lay out the mean mAP lost by choosing in each group, and by chance."""
  if not groups:
    return 'not run'
  lost, chance = [], []
  for group in groups:
    best = max(p.average_map for p in group)
    chosen = max(group, key=lambda p: p.agreement)
    lost.append(best - chosen.average_map)
    chance.append(best - np.mean([p.average_map for p in group]))
  lost, chance = 100 * np.mean(lost), 100 * np.mean(chance)
  return f'{lost:.1f}, at random {chance:.1f} ({len(groups)} choices)'


def _groups(points, *keys, alone=False):
  """Group points by some of their fields; those of one `alone` may stay."""
  found = {}
  for point in points:
    key = tuple(getattr(point, name) for name in keys)
    found.setdefault(key, []).append(point)
  return [group for group in found.values() if alone or len(group) > 1]


def _correlated(points) -> str:
  """Lay out the rank correlation, and where 95 % of 1000 draws of runs lie."""
  runs = _groups(points, 'recipe', 'wrong', 'seed', alone=True)
  if len(runs) < 3:
    return f'{_spearman(points):.2f}'
  rng = np.random.default_rng(0)
  draws = rng.integers(0, len(runs), (1000, len(runs)))
  values = [_spearman([p for i in d for p in runs[i]]) for d in draws]
  low, high = np.nanquantile(values, [0.025, 0.975])
  return f'{_spearman(points):.2f} ({low:.2f} to {high:.2f})'


def _column(own) -> dict[str, str]:
  """Return what the table says of a data set, by heading."""
  last, epochs = _last(own), ('recipe', 'wrong', 'seed')
  maps = [100 * point.average_map for point in last]
  cells = {
    'runs': str(len(last)),
    'average mAP of the last epochs, %': f'{min(maps):.1f} to {max(maps):.1f}',
    'ρ, last epochs': _correlated(last),
    f'ρ, all {_CHECKPOINTS} checkpoints of each': _correlated(own),
  }
  for by, heading in (
    ('agreement', 'ρ, last epochs, {:.0%} of the clicks wrong'),
    ('second', 'ρ with a second annotator, {:.0%} of the trained wrong'),
  ):
    for wrong in WRONG:
      part = [point for point in last if point.wrong == wrong]
      value = f'{_spearman(part, by):.2f} ({len(part)} runs)'
      cells[heading.format(wrong)] = value
  robust = [point for point in own if point.recipe == 'robust']
  groups = _groups(own, *epochs)
  cells['lost: choosing a recipe, of the same clicks'] = _lost(
    _groups(last, 'wrong', 'seed')
  )
  cells['lost: choosing an epoch of a run'] = _lost(groups)
  cells['the same, robust recipe alone'] = _lost(_groups(robust, *epochs))
  kept = [
    max(p.average_map for p in group) - _last(group)[0].average_map
    for group in groups
  ]
  cells['lost: taking the last epoch'] = f'{100 * np.mean(kept):.1f}'
  return cells


def table(points) -> str:
  """Lay out rank correlations, and the mAP lost where agreement chooses."""
  found = {
    name: _column(own)
    for name in EPOCHS
    if (own := [point for point in points if point.dataset == name])
  }
  rows = [
    [key, *(found.get(name, {}).get(key, 'not run') for name in EPOCHS)]
    for key in next(iter(found.values()), {})
  ]
  return supervision.markdown(['', 'demo', 'HAPT'], rows)


def draw(points, path) -> None:
  """Draw every checkpoint: agreement along, average mAP upwards."""
  from matplotlib import figure as figures

  figure = figures.Figure(figsize=(9, 4), layout='constrained')
  for axes, name in zip(figure.subplots(1, 2), EPOCHS, strict=True):
    for color, wrong in zip(('C0', 'C2', 'C1', 'C3'), WRONG, strict=True):
      for marker, recipe in zip('os^x', RECIPES, strict=True):
        own = [p for p in points if (p.dataset, p.recipe, p.wrong) ==
               (name, recipe, wrong)]  # fmt: skip
        label = None
        if recipe == 'robust':
          label = f'{wrong:.0%} of the clicks wrong'
        elif not wrong:
          label = recipe
        axes.scatter(
          [100 * p.agreement for p in own], [100 * p.average_map for p in own],
          s=14, marker=marker, color=color, alpha=0.7, label=label,
        )  # fmt: skip
    axes.set(title=name, xlabel='click agreement, %')
    axes.grid(alpha=0.3)
  figure.axes[0].set_ylabel('average mAP@0.1:0.7, %')
  handles, labels = figure.axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside upper center', ncols=4,
                fontsize='small')  # fmt: skip
  with files.atomic(path) as f:
    figure.savefig(f, format='png', dpi=110)


def main(argv=None):
  """Run what is not whole yet, then print the table and draw it."""
  parser = supervision.make_parser(__doc__, seeds=3)
  add = parser.add_argument
  add('--demo', type=files.path, help='prepared demo')
  add('--hapt', type=files.path, help='prepared HAPT')
  add('--output', type=files.path, help='a picture')
  args = parser.parse_args(argv)
  with errors.one_line():
    sharding.use_compilation_cache()
    roots = {}
    if args.demo:
      roots['demo'] = args.demo
    if args.hapt:
      roots['hapt'] = args.workdir / 'hapt_folds'
      supervision.hold_out(args.hapt, roots['hapt'])
    # Seeds outside: what is there after a while has every condition.
    steps = {}
    for seed in range(0 if args.table else args.seeds):
      for wrong, name, recipe in itertools.product(WRONG, roots, RECIPES):
        run(name, roots[name], args.workdir, recipe, wrong, seed, steps)
    points = read(args.workdir)
    print(table(points))
    if args.output:
      draw(points, args.output)


if __name__ == '__main__':
  main()
