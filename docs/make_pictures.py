"""Make the pictures of the README from four runs.

  for set in demo hapt; do
    python -m backtal_jax.main --config configs/$set.py --workdir runs/$set
    python -m backtal_jax.main --config configs/$set.py \\
      --workdir runs/${set}_labels --config.loss.click=0 \\
      --config.loss.separation=0 --config.loss.embedding=0
  done
  python docs/make_pictures.py --demo runs/demo_labels runs/demo \\
    --hapt runs/hapt_labels runs/hapt
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

from backtal_jax import errors, files
from backtal_jax.metrics import average_precision, diagnosis
from backtal_jax.report import figures, style, timelines
from backtal_jax.run import outputs

_NAMES = 'video labels', 'with clicks'


def save(path, figure):
  """Write a figure as PNG of few colours."""
  image = Image.fromarray(style.image(figure, dpi=144))
  image.quantize(64).save(path, optimize=True)
  print(path)


def main(argv=None):
  """Write errors.png, and timeline_SET_{labels,clicks}.png of one video."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ('demo', 'hapt'):
    parser.add_argument(
      f'--{name}', nargs=2, type=files.path, metavar=('LABELS', 'CLICKS'),
      required=True,
    )  # fmt: skip
  default = pathlib.Path(__file__).parent / 'pictures'
  parser.add_argument('--output', type=pathlib.Path, default=default)
  args = parser.parse_args(argv)
  args.output.mkdir(parents=True, exist_ok=True)
  counts = {}
  with errors.one_line():
    for name in ('demo', 'hapt'):
      runs = [outputs.read(workdir) for workdir in getattr(args, name)]
      # A video in the middle, by what the run with clicks makes of it.
      ap = average_precision.video_ap(
        runs[1].truth, runs[1].predictions, timelines.THETA
      )
      order = np.argsort(-ap, kind='stable')[: np.isfinite(ap).sum()]
      video = order[len(order) // 2]
      for run, word in zip(runs, _NAMES, strict=True):
        found = diagnosis.diagnose(
          run.truth, run.predictions, run.metrics['tiou'], theta=timelines.THETA
        )
        counts[f'{run.config["data"]["name"]}, {word}'] = found['count']
        kinds = diagnosis.error_kinds(
          run.truth, run.predictions, [timelines.THETA]
        )[0]
        figure = timelines.draw_column(
          run.truth, run.predictions, run.curves, video, kinds,
          f'{run.truth.videos[video]}, {word}',
        )  # fmt: skip
        path = f'timeline_{name}_{word.split()[-1]}.png'
        save(args.output / path, figure)
    save(args.output / 'errors.png', figures.shares(counts))


if __name__ == '__main__':
  main()
