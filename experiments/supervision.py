"""What supervision is worth: video labels, clicks, wrong clicks, three recipes.

  python -m backtal_jax.prepare hapt --archive "HAPT Data Set.zip" \\
      --output data/HAPT
  python -m experiments.supervision --set hapt --root data/HAPT \\
      --workdir runs/supervision [--seeds 5] [--only robust]

Trains on HAPT or on the demo with every kind of clicks in CONDITIONS, under
every recipe. A seed chooses the clicks, the network's start and the order. The
same command goes on where it was stopped; with `--table` it only shows what is
there. A run's workdir, WORKDIR/SET/RECIPE/CONDITION/SEED, is that of any run:
`python -m backtal_jax.report --compare A B` takes two of them.
"""

import os
import zlib

import numpy as np
from etils import epath

from backtal_jax import command_line, errors, files, train
from backtal_jax.data import annotations
from backtal_jax.prepare import simulate_clicks
from backtal_jax.run import sharding
from configs import demo, hapt, recipes

# Condition: the share of background gaps clicked, the share of those clicks
# that are wrong, and whether every action is clicked.
CONDITIONS = {
  'video labels': (0.0, 0.0, False),
  '25 % of the gaps': (0.25, 0.0, False),
  '50 % of the gaps': (0.5, 0.0, False),
  '100 % of the gaps': (1.0, 0.0, False),
  '10 % of the clicks wrong': (1.0, 0.1, False),
  '20 % of the clicks wrong': (1.0, 0.2, False),
  '40 % of the clicks wrong': (1.0, 0.4, False),
  'action clicks': (0.0, 0.0, True),
  'both kinds of clicks': (1.0, 0.0, True),
}
# The config, and where its clicks may be: seconds from actions, shortest gap.
SETS = {'hapt': (hapt, 0.25, 1.0), 'demo': (demo, 0.0, 0.0)}
SUBSET = 'train'
# What of a config is changed to learn from video labels alone.
LABELS_ALONE = {f'loss.{name}': 0.0 for name in train.OF_CLICKS}
# The five people of HAPT's training split whom other studies evaluate on.
PEOPLE = 3, 8, 16, 22, 27


def write_clicks(path, truth, name, condition, seed):
  """Write a condition's clicks, sampled from the ground truth of a set.

  Returns:
    The path, or '' where the condition has no clicks.
  """
  gap_share, wrong_share, actions = CONDITIONS[condition]
  _, margin, min_gap = SETS[name]
  if not gap_share and not actions:
    return ''
  found = simulate_clicks.simulate_background(
    truth, SUBSET, seed=seed, gap_share=gap_share, wrong_share=wrong_share,
    margin=margin, min_gap=min_gap,
  )  # fmt: skip
  if actions:
    found += simulate_clicks.simulate_actions(truth, SUBSET, seed=seed)
  annotations.write_clicks(path, found)
  return path


def hold_out(root, output, split='held') -> None:
  """Link HAPT's training clips into `train` and, of PEOPLE, another split."""
  truth = files.read_json(root / 'ground_truth.json')
  users = tuple(f'user{number:02d}' for number in PEOPLE)
  database = {}
  for path in files.listed(root / SUBSET, '.npz'):
    subset = split if path.stem.split('_')[1] in users else SUBSET
    database[path.stem] = truth['database'][path.stem] | {'subset': subset}
    link = output / subset / path.name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
      os.symlink(os.path.abspath(path), link)
  files.write_json(output / 'ground_truth.json', truth | {'database': database})


def folder(workdir, name, recipe, condition, seed) -> epath.Path:
  """Return a run's workdir."""
  words = condition.replace('%', 'percent').replace(' ', '_')
  return workdir / name / recipe / words / str(seed)


def config_of(name, root, clicks, recipe, seed):
  """Return the config of a run; without click files all click terms are off."""
  config = SETS[name][0].get_config(recipe).unlock()
  config.data.root, config.data.clicks = str(root), str(clicks)
  if not clicks:
    config.update_from_flattened_dict(LABELS_ALONE)
  config.train.seed = seed
  config.train.eval_every = config.train.num_epochs  # only the last is shown
  return config.lock()


def is_whole(workdir) -> bool:
  """Return whether a run has ended; of stages no epoch tells it."""
  return (workdir / 'whole').exists()


def train_whole(config, workdir):
  """Train a run to its end, unless it is whole."""
  if not is_whole(workdir):
    train.train_and_evaluate(config, workdir)
    (workdir / 'whole').touch()


def run(name, root, workdir, recipe, condition, seed):
  """Train one run, unless it is whole."""
  where = folder(workdir, name, recipe, condition, seed)
  if is_whole(where):
    return
  truth = annotations.read_ground_truth(root / 'ground_truth.json')
  # The same clicks for all recipes, and beside the runs.
  kind = zlib.crc32(condition.encode())
  clicks = workdir / name / f'{kind:08x}_{seed}.csv'
  clicks = write_clicks(clicks, truth, name, condition, seed)
  print(f'{name}, {recipe}, {condition}, seed {seed}', flush=True)
  config = config_of(name, root, clicks, recipe, seed)
  train_whole(config, where)


def averages(workdir) -> list[float]:
  """Return the average mAP in percent of the whole runs beside a workdir."""
  whole = [path for path in sorted(workdir.parent.glob('*')) if is_whole(path)]
  metrics = [files.read_json(path / 'metrics.json') for path in whole]
  return [100 * m['average_mAP'] for m in metrics]


def read(name, workdir) -> dict:
  """Return {(recipe, condition): average mAP in percent of the whole runs}."""
  return {
    (recipe, condition): averages(folder(workdir, name, recipe, condition, 0))
    for recipe in recipes.NAMES
    for condition in CONDITIONS
  }


def table(found) -> str:
  """Lay out mean and standard deviation (n − 1) over the seeds."""
  return markdown(
    ['clicks', *recipes.NAMES],
    [
      [condition, *(cell(found[name, condition]) for name in recipes.NAMES)]
      for condition in CONDITIONS
    ],
  )


def markdown(head, rows) -> str:
  """Lay out a table of texts."""
  rows = [head, ['---'] * len(head), *rows]
  return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def cell(values) -> str:
  """Lay out mean, standard deviation and number of a cell's runs."""
  if not values:
    return 'not run'
  spread = f' ± {np.std(values, ddof=1):.1f}' if len(values) > 1 else ''
  return f'{np.mean(values):.1f}{spread} ({len(values)})'


def draw(found, path):
  """Draw every run, and the 95 % interval of the mean (t) from three on."""
  from matplotlib import figure as figures  # not needed to train
  from scipy import stats

  figure = figures.Figure(figsize=(8, 4.5), layout='constrained')
  axes = figure.subplots()
  for shift, color, recipe in zip(
    (-0.2, 0, 0.2), ('C7', 'C0', 'C1'), recipes.NAMES, strict=True
  ):
    for y, condition in enumerate(CONDITIONS):
      values = found[recipe, condition]
      if not values:
        continue
      axes.plot(values, [y + shift] * len(values), '.', color=color, alpha=0.5)
      mean, count = np.mean(values), len(values)
      half = 0.0
      if count > 2:
        error = np.std(values, ddof=1) / count**0.5
        half = error * stats.t.ppf(0.975, count - 1)
      axes.errorbar(mean, y + shift, xerr=half, fmt='o', color=color, capsize=3,
                    label=recipe if y == 0 else None)  # fmt: skip
  axes.set_yticks(range(len(CONDITIONS)), CONDITIONS)
  axes.set(xlabel='average mAP@0.1:0.7, %', xlim=(-2, 102))
  axes.set_ylim(len(CONDITIONS) - 0.5, -0.5)
  axes.grid(alpha=0.3)
  figure.legend(loc='outside upper center', ncols=3)
  with files.atomic(path) as f:
    figure.savefig(f, format='png', dpi=120)


def make_parser(about, seeds) -> command_line.Parser:
  """Return the command line of a study of several seeds, by its docstring."""
  command_line.quiet_tensorflow()
  parser = command_line.Parser(description=about.split('\n')[0])
  add = parser.add_argument
  add('--workdir', type=files.path, required=True, help='of the runs')
  add('--seeds', type=int, default=seeds)
  add('--table', action='store_true', help='run nothing')
  return parser


def main(argv=None):
  """Run what is not whole yet, then print the table and draw it."""
  parser = make_parser(__doc__, seeds=5)
  add = parser.add_argument
  add('--set', choices=SETS, required=True)
  add('--root', type=files.path, required=True, help='prepared data')
  add('--output', type=files.path, help='a picture of the table')
  add('--only', choices=recipes.NAMES, help='one recipe')
  add('--condition', choices=CONDITIONS, help='one condition')
  args = parser.parse_args(argv)
  with errors.one_line():
    sharding.use_compilation_cache()
    # Seeds outside: what is there after a while has every condition.
    for seed in range(0 if args.table else args.seeds):
      for recipe in (args.only,) if args.only else recipes.NAMES:
        for condition in (args.condition,) if args.condition else CONDITIONS:
          run(args.set, args.root, args.workdir, recipe, condition, seed)
    found = read(args.set, args.workdir)
    print(table(found))
    if args.output:
      draw(found, args.output)


if __name__ == '__main__':
  main()
