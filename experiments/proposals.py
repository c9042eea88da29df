"""What proposals are worth: the same number of clicks, placed three ways.

  python -m backtal_jax.prepare hapt --archive "HAPT Data Set.zip" \
      --output data/HAPT
  python -m experiments.proposals --root data/HAPT --workdir runs/proposals

A simulated annotator, who knows the ground truth of HAPT's training clips and
never errs, makes CLICKS background clicks: at random moments of background;
one in each of so many gaps, chosen at random; or by proposals, in ROUNDS rounds
(train, propose, click, train). Three seeds each, which choose the clicks and
the network's start. What is whole is not run again.
"""

import pathlib
import subprocess
import sys

import numpy as np

from backtal_jax import command_line, errors, files
from backtal_jax.annotate import queue
from backtal_jax.data import annotations, clicks
from backtal_jax.prepare import click_stats

SEEDS = 0, 1, 2
CLICKS, ROUNDS = 300, 3
WAYS = 'random moments', 'one a gap', 'proposals'
SUBSET, ANNOTATOR = 'train', 'simulated'
# Seconds that a click keeps from actions: half a snippet of HAPT.
_MARGIN = 0.25


def rooms(truth) -> list[tuple[str, float, float]]:
  """Return (video, start, end) of all background that may be clicked."""
  return [
    (name, start + _MARGIN, end - _MARGIN)
    for name, video in sorted(truth.subset(SUBSET).items())
    for start, end in click_stats.gaps(video)
    if end - start > 2 * _MARGIN
  ]


def at_random(truth, number, rng) -> list[annotations.Click]:
  """Click moments of background, each second as likely as any other."""
  open_rooms = rooms(truth)
  lengths = np.array([end - start for _, start, end in open_rooms])
  chosen = rng.choice(len(lengths), number, p=lengths / lengths.sum())
  return [_click(*open_rooms[i], rng) for i in chosen]


def one_a_gap(truth, number, rng) -> list[annotations.Click]:
  """Click once in each of so many gaps."""
  open_rooms = rooms(truth)
  chosen = rng.choice(len(open_rooms), number, replace=False)
  return [_click(*open_rooms[i], rng) for i in chosen]


def _click(video, start, end, rng):
  time = float(rng.uniform(start, end))
  return annotations.Click(video, time, annotations.BACKGROUND, ANNOTATOR)


def answer(truth, proposed, answers, number) -> list[annotations.Click]:
  """Answer proposals until so many background clicks are made.

  Args:
    truth: Annotations.
    proposed: [(value, video, time)].
    answers: clicks, and notes without a label of moments that are action;
      gets the new ones.
    number: of background clicks to make.

  Returns:
    The clicks; fewer, where the proposals do not suffice.
  """
  made = []
  for _, name, time in sorted(proposed, key=lambda p: (-p[0], p[1:])):
    if len(made) == number:
      break
    is_action = any(
      start - _MARGIN < time < end + _MARGIN
      for start, end in click_stats.actions(truth.videos[name])
    )
    label = '' if is_action else annotations.BACKGROUND
    answers.append(annotations.Click(name, time, label, ANNOTATOR))
    made += [] if is_action else answers[-1:]
  return made


def propose(root, workdir, answers) -> list[tuple[float, str, float]]:
  """Return (value, video, time) of what a trained model proposes."""
  from backtal_jax import predict  # JAX takes seconds

  model, found = predict.load(workdir), []
  spoken = clicks.by_video(answers)
  for path in sorted((root / SUBSET).glob('*.npz')):
    video = model.read(path)
    found += [
      (value, video.name, time)
      for time, reason, value in queue.proposals(
        model, video, spoken.get(video.name, [])
      )
      if reason == queue.UNCLICKED
    ]
  return found


def train(root, workdir, found, seed) -> dict:
  """Train with clicks, unless that was done; return metrics.json's content."""
  if not (workdir / 'report.html').exists():
    if found:
      path = workdir.with_suffix('.csv')
      annotations.write_clicks(path, found)
      options = [f'--config.data.clicks={path}']
    else:  # video labels alone
      terms = 'click', 'separation', 'embedding'
      options = [f'--config.loss.{term}=0' for term in terms]
    subprocess.run(
      [sys.executable, '-m', 'backtal_jax.main', '--config=configs/hapt.py',
       f'--workdir={workdir}', f'--config.data.root={root}',
       f'--config.train.seed={seed}', *options],
      check=True,
    )  # fmt: skip
  return files.read_json(workdir / 'metrics.json')


def by_proposals(root, workdir, truth, seed) -> tuple[dict, int]:
  """Train, propose and click in rounds.

  Returns:
    metrics.json's content of the last training; how many proposals were asked.
  """
  found, answers = [], []
  rng = np.random.default_rng([seed, 2])
  for number in range(ROUNDS + 1):
    where = workdir / f'proposals_{seed}_{number}'
    metrics = train(root, where, found, seed)
    if number < ROUNDS:
      share = CLICKS * (number + 1) // ROUNDS - len(found)
      proposed = propose(root, where, answers)
      made = answer(truth, proposed, answers, share)
      print(f'{where}: {len(proposed)} proposals, {len(made)} clicks')
      # Where the model has no more to propose, the rest is as good as random.
      found += made + at_random(truth, share - len(made), rng)
  return metrics, len(answers)


def table(results) -> str:
  """Lay out mean and standard deviation over seeds, in percent.

  Args:
    results: {heading: [metrics of each seed]}.
  """
  lines = [
    f'| {CLICKS} clicks | seeds | mAP@0.3 | mAP@0.5 | mAP@0.7 | '
    'average 0.1:0.7 |',
    '| --- | --- | --- | --- | --- | --- |',
  ]
  for heading, runs in results.items():
    values = 100 * np.array(
      [
        [m['mAP'][m['tiou'].index(t)] for t in (0.3, 0.5, 0.7)]
        + [m['average_mAP']]
        for m in runs
      ]
    )
    spread = values.std(0, ddof=1) if len(runs) > 1 else 0 * values[0]
    cells = [f'{a:.1f} ± {b:.1f}' for a, b in zip(values.mean(0), spread)]  # noqa: B905
    lines.append(f'| {heading} | {len(runs)} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def main(argv=None):
  """Run everything, and print the table after each seed."""
  command_line.quiet_tensorflow()
  parser = command_line.Parser(description=__doc__.split('\n')[0])
  parser.add_argument('--root', required=True, help='of prepared HAPT')
  parser.add_argument('--workdir', required=True, help='of the runs')
  args = parser.parse_args(argv)
  with errors.one_line():
    root, workdir = (
      pathlib.Path(path).absolute() for path in (args.root, args.workdir)
    )
    truth = annotations.read_ground_truth(root / 'ground_truth.json')
    results = {}
    for seed in SEEDS:
      runs = {
        'no clicks': train(root, workdir / f'proposals_{seed}_0', [], seed)
      }
      for number, place in enumerate((at_random, one_a_gap)):
        found = place(truth, CLICKS, np.random.default_rng([seed, number]))
        where = workdir / f'{place.__name__}_{seed}'
        runs[WAYS[number]] = train(root, where, found, seed)
      runs[WAYS[2]], asked = by_proposals(root, workdir, truth, seed)
      print(f'seed {seed}: {asked} proposals answered')
      for heading, metrics in runs.items():
        results.setdefault(heading, []).append(metrics)
      print(table(results), flush=True)


if __name__ == '__main__':
  main()
