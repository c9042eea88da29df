"""Which learning rates hold, on raw features and on standardised ones.

  python -m experiments.rates --workdir runs/rates [--hapt data/HAPT] \\
      [--seeds 3] [--set short] [--recipe robust]

Trains small networks on made raw features (`prepare demo --kind raw`), short
videos of 2 classes and long ones of 20, on the demo, and on HAPT without five
of its training people, who are what is evaluated (its test people are not
read). Each with clicks and with video labels alone, at every rate of RATES.
The same command goes on where it was stopped; with `--table` it only shows
what is there. A run's workdir is WORKDIR/SET/RECIPE/FEATURES/CLICKS/RATE/SEED.
"""

import itertools
import runpy
import shutil

from backtal_jax import errors, files
from backtal_jax.data import demo, raw_demo
from backtal_jax.prepare import __main__ as prepare
from backtal_jax.run import sharding
from configs import recipes
from experiments import supervision

RATES = (1e-4, 3e-4, 1e-3, 2e-3, 4e-3)
FEATURES = {'raw': False, 'standardised': True}
CLICKS = ('clicks', 'labels')
_SMALL = {'model.hidden_dim': 128, 'model.reduce_dim': 64}
# Made raw sets, T, and what of a config is changed to be quick.
RAW = {
  'short': (raw_demo.Shape(2, 512, 350, (2.0, 4.0)), 32),
  'long': (raw_demo.Shape(20, 512, 260, (2.0, 180.0)), 100),
}
EPOCHS = {'short': 20, 'long': 20, 'demo': 20, 'hapt': 15}


def make(name, workdir, hapt):
  """Make a set where it is missing; return its root and get_config."""
  root = workdir / 'data' / name
  missing = not (root / 'ground_truth.json').exists()
  if missing and name == 'demo':
    demo.prepare(root)
  elif missing and name == 'hapt':
    supervision.hold_out(hapt, root, 'test')
  elif missing:
    shape, num_snippets = RAW[name]
    made = workdir / 'data' / f'{name}_made'
    raw_demo.prepare(made, shape)
    prepare.main(
      ['custom', '--features', f'{made}/features', '--output', f'{root}',
       '--ground_truth', f'{made}/annotations.json',
       '--clicks', f'{made}/clicks.csv', '--num_snippets', f'{num_snippets}',
       '--fps', f'{raw_demo.FPS}', '--stride', f'{raw_demo.STRIDE}',
       '--window', f'{raw_demo.WINDOW}']
    )  # fmt: skip
  if name in RAW:
    return root, runpy.run_path(str(root / 'config.py'))['get_config']
  return root, supervision.SETS[name][0].get_config


def run(workdir, name, root, get_config, recipe, features, clicks, rate, seed):
  """Train one run, unless it is whole."""
  where = folder(workdir, name, recipe, features, clicks, rate, seed)
  if supervision.is_whole(where):
    return
  fields = {
    'data.root': str(root), 'data.placement': 'device',
    'model.standardize': FEATURES[features],
    'train.learning_rate': rate, 'train.seed': seed,
    'train.num_epochs': EPOCHS[name], 'train.eval_every': EPOCHS[name],
    'eval.watch': True,
  }  # fmt: skip
  if name != 'demo':
    fields |= _SMALL
  if clicks == 'labels':
    fields |= supervision.LABELS_ALONE
  config = get_config(recipe).unlock()
  config.update_from_flattened_dict(fields)
  supervision.train_whole(config.lock(), where)
  metrics = files.read_json(where / 'metrics.json')
  shutil.rmtree(where / 'checkpoints')  # hundreds of runs
  print(where, f'{100 * metrics["average_mAP"]:.1f}', flush=True)


def folder(workdir, name, recipe, features, clicks, rate, seed):
  """Return a run's workdir."""
  return workdir / name / recipe / features / clicks / f'{rate:g}' / str(seed)


def table(workdir, name) -> str:
  """Lay out mean, standard deviation (n − 1) and number of each cell's runs."""
  rows = []
  for row in itertools.product(recipes.NAMES, FEATURES, CLICKS):
    cells = []
    for rate in RATES:
      values = supervision.averages(folder(workdir, name, *row, rate, 0))
      cells.append(supervision.cell(values) if values else '')
    if any(cells):
      rows.append([', '.join(row), *cells])
  return supervision.markdown([name, *(f'{rate:g}' for rate in RATES)], rows)


def main(argv=None):
  """Run what is not whole yet, then print the tables."""
  parser = supervision.make_parser(__doc__, seeds=3)
  add = parser.add_argument
  add('--hapt', type=files.path, help='its prepared data')
  add('--set', choices=EPOCHS, nargs='+', default=[*EPOCHS])
  add('--recipe', choices=recipes.NAMES, nargs='+', default=['robust'])
  add('--features', choices=FEATURES, nargs='+', default=[*FEATURES])
  add('--rates', type=float, nargs='+', default=list(RATES))
  args = parser.parse_args(argv)
  with errors.one_line():
    sharding.use_compilation_cache()
    names = [n for n in args.set if n != 'hapt' or args.hapt is not None]
    for seed in range(0 if args.table else args.seeds):
      # Seeds outside: what is there after a while has every cell.
      for name in names:
        root, get_config = make(name, args.workdir, args.hapt)
        for row in itertools.product(
          args.recipe, args.features, CLICKS, args.rates
        ):
          run(args.workdir, name, root, get_config, *row, seed)
    for name in names:
      print(table(args.workdir, name), end='\n\n')


if __name__ == '__main__':
  main()
