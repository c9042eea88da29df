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

import argparse
import functools

import numpy as np

from backtal_jax import command_line, errors, files, predict
from backtal_jax.annotate import queue
from backtal_jax.data import annotations, clicks
from backtal_jax.metrics import scores
from backtal_jax.prepare import click_stats
from backtal_jax.run import sharding
from experiments import supervision

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
  return [click(*open_rooms[i], rng) for i in chosen]


def one_a_gap(truth, number, rng) -> list[annotations.Click]:
  """Click once in each of so many gaps."""
  open_rooms = rooms(truth)
  chosen = rng.choice(len(open_rooms), number, replace=False)
  return [click(*open_rooms[i], rng) for i in chosen]


def click(video, start, end, rng) -> annotations.Click:
  """Click a moment of a room."""
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


def train(root, workdir, found, seed, **widths) -> scores.Metrics:
  """Train with clicks, unless that was done; return metrics.json's content.

  The `widths` are those of the network that are not HAPT's.
  """
  path = ''
  if found:
    path = workdir.with_suffix('.csv')
    annotations.write_clicks(path, found)
  config = supervision.config_of('hapt', root, path, 'robust', seed).unlock()
  config.model.update(widths)
  config.lock()
  supervision.train_whole(config, workdir)
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
  """Lay out {heading: [metrics]}: mean and deviation over seeds, in percent."""
  tiou = 0.3, 0.5, 0.7
  heads = [f'{CLICKS} clicks', *(f'mAP@{t}' for t in tiou), 'average 0.1:0.7']
  rows = []
  for heading, runs in results.items():
    values = [
      [100 * m['mAP'][m['tiou'].index(t)] for t in tiou]
      + [100 * m['average_mAP']]
      for m in runs
    ]
    rows.append([heading, *map(supervision.cell, zip(*values, strict=True))])
  return supervision.markdown(heads, rows)


def parse(argv, about) -> argparse.Namespace:
  """Parse the command line of a study of HAPT's clicks, by its docstring."""
  command_line.quiet_tensorflow()
  parser = command_line.Parser(description=about.split('\n')[0])
  add = functools.partial(parser.add_argument, type=files.path, required=True)
  add('--root', help='of prepared HAPT')
  add('--workdir', help='of the runs')
  return parser.parse_args(argv)


def main(argv=None):
  """Run everything, and print the table after each seed."""
  args = parse(argv, __doc__)
  with errors.one_line():
    sharding.use_compilation_cache()
    root, workdir = args.root, args.workdir
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
