"""What the order of videos is worth: by the model, or by chance.

  python -m backtal_jax.prepare hapt --archive "HAPT Data Set.zip" \
      --output data/HAPT
  python -m experiments.video_order --root data/HAPT --workdir runs/order

A simulated annotator of HAPT's training clips, who never errs, goes from clip
to clip and clicks once in every gap, in ROUNDS rounds of CLICKS clicks each
(train, order, click, train). The clips not visited yet come at random, or as
the click page orders them: those first whose labels the model is least sure
of. The network is a narrow one. Three seeds choose moments, the random order
and the network's start. What is whole is not run again.
"""

import numpy as np

from backtal_jax import errors, predict
from backtal_jax.annotate import queue
from backtal_jax.data import annotations
from backtal_jax.metrics import scores
from backtal_jax.run import sharding
from experiments import proposals, supervision

SEEDS = 0, 1, 2
CLICKS, ROUNDS = 60, 3
WAYS = 'random', 'model'
_WIDTHS = {'hidden_dim': 64, 'reduce_dim': 32, 'embedding_dim': 16}


def order_by_model(root, workdir, truth) -> list[str]:
  """Return the training clips, first what the model is least sure of."""
  model = predict.load(workdir)
  paths = sorted((root / proposals.SUBSET).glob('*.npz'))
  sure = {}
  for found in model.predict_videos(map(model.read, paths)):
    name = found.video.name
    labels = {s.label for s in truth.videos[name].segments}
    sure[name] = queue.sureness(found.segments, labels)
  return queue.order(sure, {}, sure)


def visit(rooms, names, number, rng) -> list[annotations.Click]:
  """Click once in every gap of one clip after the other.

  Args:
    rooms: (video, start, end) of what may be clicked.
    names: Of the clips that were not visited yet, in order; those that are
      visited are taken out.
    number: Of clicks to make, exactly, if there are so many gaps.
    rng: Chooses the moments.
  """
  made = []
  while names and len(made) < number:
    name = names.pop(0)
    for video, start, end in rooms:
      if video == name and len(made) < number:
        made.append(proposals.click(video, start, end, rng))
  return made


def run(root, workdir, truth, way, seed) -> list[scores.Metrics]:
  """Return the metrics of every round of one way and seed."""
  rng = np.random.default_rng([seed, WAYS.index(way)])
  rooms, found = proposals.rooms(truth), []
  left = sorted({video for video, _, _ in rooms})
  where = workdir / f'none_{seed}'
  metrics = [proposals.train(root, where, [], seed, **_WIDTHS)]
  for number in range(1, ROUNDS + 1):
    if way == 'model':
      ranked = order_by_model(root, where, truth)
      left.sort(key=ranked.index)
    else:
      rng.shuffle(left)
    found += visit(rooms, left, CLICKS, rng)
    where = workdir / f'{way}_{seed}_{number}'
    metrics.append(proposals.train(root, where, found, seed, **_WIDTHS))
  return metrics


def table(results) -> str:
  """Lay out mean, standard deviation and seeds of the average mAP by round.

  The results are {way: [metrics of every round, of each seed]}.
  """
  heads = ['average mAP@0.1:0.7', *(
    f'{CLICKS * n} clicks' for n in range(ROUNDS + 1)
  ), 'last, each seed']  # fmt: skip
  rows = []
  for way, runs in results.items():
    values = 100 * np.array([[m['average_mAP'] for m in r] for r in runs])
    cells = [supervision.cell(list(column)) for column in values.T]
    rows.append([way, *cells, ', '.join(f'{x:.1f}' for x in values[:, -1])])
  return supervision.markdown(heads, rows)


def main(argv=None):
  """Run everything, and print the table after each seed."""
  args = proposals.parse(argv, __doc__)
  with errors.one_line():
    sharding.use_compilation_cache()
    truth = annotations.read_ground_truth(args.root / 'ground_truth.json')
    results = {way: [] for way in WAYS}
    for seed in SEEDS:
      for way in WAYS:
        results[way].append(run(args.root, args.workdir, truth, way, seed))
      print(table(results), flush=True)


if __name__ == '__main__':
  main()
