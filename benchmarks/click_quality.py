"""What clicks are worth: the table of docs/data.md.

  python -m benchmarks.click_quality --root data/HAPT --workdir runs/clicks

Trains on HAPT with a share of the background gaps clicked, and with wrong
clicks, three seeds each (they draw the clicks, too). What is whole is not run
again.
"""

import argparse
import pathlib
import subprocess
import sys

import numpy as np

from backtal_jax import files

SEEDS = 0, 1, 2
_CLICK_TERMS = 'click', 'separation', 'embedding'
SETTINGS = {  # heading of the row: options of prepare simulate-clicks
  'no clicks': None,
  '50 % of gaps': ('--gap_share=0.5',),
  '100 % of gaps': (),
  '100 % of gaps, 20 % of clicks wrong': ('--wrong_share=0.2',),
}


def run(root, workdir, options, seed):
  """Draw clicks, train with them and return metrics.json's content."""
  if not (workdir / 'report.html').exists():
    clicks = workdir.with_suffix('.csv')
    module = [sys.executable, '-m']
    used = [f'--config.data.clicks={clicks}']
    if options is None:  # without clicks these terms are 0
      used = [f'--config.loss.{k}=0' for k in _CLICK_TERMS]
    subprocess.run(
      [*module, 'backtal_jax.data.prepare', 'simulate-clicks',
       f'--ground_truth={root}/ground_truth.json', '--subset=train',
       '--margin=0.25', '--min_gap=1', f'--seed={seed}',
       f'--output={clicks}', *(options or ())],
      check=True,
    )  # fmt: skip
    subprocess.run(
      [*module, 'backtal_jax.main', '--config=configs/hapt.py',
       f'--workdir={workdir}', f'--config.data.root={root}',
       *used, f'--config.train.seed={seed}'],
      check=True,
    )  # fmt: skip
  return files.read_json(workdir / 'metrics.json')


def table(results) -> str:
  """Lay out mean and standard deviation over seeds, in percent.

  Args:
    results: {heading: [metrics of each seed]}.
  """
  lines = [
    '| clicks | mAP@0.3 | mAP@0.5 | mAP@0.7 | average 0.1:0.7 |',
    '| --- | --- | --- | --- | --- |',
  ]
  for heading, runs in results.items():
    values = [
      [m['mAP'][m['tiou'].index(t)] for t in (0.3, 0.5, 0.7)]
      + [m['average_mAP']]
      for m in runs
    ]
    mean, std = 100 * np.mean(values, 0), 100 * np.std(values, 0, ddof=1)
    cells = [f'{a:.1f} ± {b:.1f}' for a, b in zip(mean, std, strict=True)]
    lines.append(f'| {heading} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def main():
  """Run everything and print the table."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--root', required=True, help='of prepared HAPT')
  parser.add_argument('--workdir', required=True, help='of the runs')
  args = parser.parse_args()
  workdir = pathlib.Path(args.workdir).absolute()
  results = {heading: [] for heading in SETTINGS}
  for seed in SEEDS:
    for number, (heading, options) in enumerate(SETTINGS.items()):
      where = workdir / f'{number}_{seed}'
      results[heading].append(run(args.root, where, options, seed))
  print(table(results))


if __name__ == '__main__':
  main()
