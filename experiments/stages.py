"""One training video through the stages of a staged run, as a picture.

  python -m experiments.stages --run runs/hapt --root data/HAPT \\
      --video exp09_user05 --output stages.png

The ground truth is drawn, and nothing else is made of it.
"""

import functools

import numpy as np

from backtal_jax import IGNORED, command_line, errors, files, predict, staging
from backtal_jax.data import annotations

_SHOWN = 12  # segments of the largest scores


def segments_of(run, path, head):
  """Return the best segments of a video file, and what was read and found."""
  config = predict.config_of(run).unlock()
  config.stages.quality = head
  model = predict.load(run, config=config)
  (found,) = model.predict_videos([model.read(path)])
  best = sorted(found.segments, key=lambda s: -s['score'])[:_SHOWN]
  return best, found


def named_segments(run, config, root, path, duration):
  """List what the stages named in a training video: (start, end, label)."""
  classes = files.read_json(run / 'classes.json')
  names = sorted(p.stem for p in (root / config.data.train_split).iterdir())
  named = staging.read_named(run / 'stages/names.npz')
  own = named.video == names.index(path.stem)
  seconds = duration / named.snippet_label.shape[1]
  return [
    (*(ends * seconds), classes[label])
    for ends, label in zip(named.run[own], named.label[own], strict=True)
    if label < len(classes)
  ]


def draw(run, root, name, output):
  """Draw truth, clicks, foreground, named segments, and what is found."""
  from matplotlib import figure as figures

  config = predict.config_of(run)
  (path,) = (root / config.data.train_split).glob(f'{name}.*')
  without, _ = segments_of(run, path, False)
  best, found = segments_of(run, path, True)
  truth = annotations.read_ground_truth(root / 'ground_truth.json')
  video = found.video
  known = truth.videos[name].segments
  listed = lambda rows: [(*row['segment'], row['label']) for row in rows]
  rows = {
    'ground truth': [(s.start, s.end, s.label) for s in known],
    'found and named': named_segments(run, config, root, path, video.duration),
    'then found': listed(without),
    'judged and moved': listed(best),
  }
  classes = sorted({label for row in rows.values() for *_, label in row})
  colors = {label: f'C{i}' for i, label in enumerate(classes)}
  figure = figures.Figure(figsize=(10, 3.6), layout='constrained')
  axes = figure.subplots()
  for y, row in enumerate(rows.values()):
    for start, end, label in row[::-1]:
      axes.broken_barh([(start, end - start)], (y - 0.35, 0.7),
                       color=colors[label], edgecolor='white')  # fmt: skip
  at = (np.arange(len(video.click)) + 0.5) * video.duration / len(video.click)
  weight = found.curves['foreground']
  axes.plot(at, len(rows) + 0.35 - 0.7 * weight, color='black', lw=0.8)
  clicked = video.click != IGNORED
  axes.plot(at[clicked], [0.5] * clicked.sum(), 'kx', ms=4)
  axes.set_yticks([0.5, *range(len(rows) + 1)],
                  ['clicks', *rows, 'foreground weight'])  # fmt: skip
  axes.set(xlabel='seconds', xlim=(0, video.duration))
  axes.set_ylim(len(rows) + 0.5, -0.5)
  handles = [axes.barh(0, 0, color=c, label=n) for n, c in colors.items()]
  figure.legend(handles=handles, loc='outside upper center', ncols=5)
  with files.atomic(output) as f:
    figure.savefig(f, format='png', dpi=120)


def main(argv=None):
  """Draw the picture."""
  command_line.quiet_tensorflow()
  parser = command_line.Parser(description=__doc__.split('\n')[0])
  add = functools.partial(parser.add_argument, required=True)
  add('--run', type=files.path, help='workdir of a staged run')
  add('--root', type=files.path, help='its data')
  add('--video', help='name of a training video')
  add('--output', type=files.path, help='the picture')
  args = parser.parse_args(argv)
  with errors.one_line():
    draw(args.run, args.root, args.video, args.output)


if __name__ == '__main__':
  main()
