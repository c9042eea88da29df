"""Mean average precision of temporal detections, by ActivityNet's protocol.

  python -m backtal_jax.metrics.detection_map --ground_truth gt.json \\
    --predictions predictions.json --subset test --tiou 0.3:0.1:0.7

Section 5 of method.md. Equal scores keep the order of the input (videos by
name), so that the result never depends on the machine.
"""

import argparse
import decimal
import functools
from collections.abc import Sequence

import numpy as np

from backtal_jax import command_line, errors, files
from backtal_jax.metrics import average_precision as precision
from backtal_jax.metrics import matching, scores, segments


def detection_map(
  truth: segments.Truth, predictions: segments.Segments, tiou: Sequence[float]
) -> scores.Metrics:
  """Compute the mean average precision over classes, see matching.match."""
  hits = matching.by_class(truth, predictions, tiou)
  ap = np.stack([average_precision(hit, number) for hit, number in hits])
  return {
    'tiou': [float(t) for t in tiou],
    'mAP': ap.mean(0).tolist(),
    'average_mAP': float(ap.mean()),
    'ap_per_class': dict(zip(truth.labels, ap.tolist(), strict=True)),
  }


def average_precision(hit: np.ndarray, num_truth: int) -> np.ndarray | float:
  """Compute the area under the precision envelope (VOC 2011).

  Args:
    hit: [..., N] bool: which predictions are right, best score first.
    num_truth: Number of ground-truth segments, at least 1.

  Returns:
    [...] average precision, 0 without predictions.
  """
  return (precision.envelope(hit) * hit).sum(-1) / num_truth


def parse_tiou(
  text: str, option: str = '--tiou', most: int = 1000
) -> list[float]:
  """Read '0.3,0.5' or 'start:step:stop' (stop included) as decimal literals.

  Raises:
    errors.InputError: Names `option`: it is neither, has more than `most`
      numbers, or one that is not in (0, 1].
  """
  try:
    if ':' in text:
      start, step, stop = map(decimal.Decimal, text.split(':'))
      count = int((stop - start) / step) + 1
      values = [start + i * step for i in range(min(count, most + 1))]
    else:
      values = [decimal.Decimal(part) for part in text.split(',')]
    values = [float(value) for value in values]
    if 0 < len(values) <= most and all(0 < value <= 1 for value in values):
      return values
  except (ValueError, ArithmeticError):
    pass
  forms = 'numbers in (0, 1]: 0.3,0.5 or 0.5:0.05:0.95'
  raise errors.InputError(
    f'{option} is {text!r}, expected '
    + (forms if most > 1 else 'one number in (0, 1]')
  )


def format_table(result: scores.Metrics, truth: segments.Truth) -> str:
  """Format a result in percent: a line a class, the mean, the average."""
  names = [*truth.labels, 'mAP', 'average mAP']
  width = max(map(len, names))
  rows = [*result['ap_per_class'].values(), result['mAP']]
  rows.append([result['average_mAP']])
  counts = [*np.bincount(truth.segments.label), len(truth.segments.label), '']
  head = ''.join(f'{t:7g}' for t in result['tiou'])
  lines = [f'{"class":{width}} segments{head}']
  for name, count, row in zip(names, counts, rows, strict=True):
    cells = ''.join(f'{100 * x:7.2f}' for x in row)
    lines.append(f'{name:{width}} {count:>8}{cells}')
  return '\n'.join(lines)


def make_parser(text: str) -> command_line.Parser:
  """Make a command line for ground truth and predictions.

  `text` is the docstring of the command's module.
  """
  parser = command_line.Parser(description=text.splitlines()[0])
  add = functools.partial(parser.add_argument, required=True)
  add(
    '--ground_truth',
    type=files.path,
    help='JSON, or the folder of THUMOS14 text files',
  )
  add('--predictions', type=files.path, help='ActivityNet JSON')
  add('--subset', help='the split, e.g. test')
  parser.add_argument('--tiou', default='0.5:0.05:0.95', help='(%(default)s)')
  parser.add_argument(
    '--output', type=files.path, help='JSON file for the result'
  )
  return parser


def parse(
  parser: command_line.Parser, argv: Sequence[str] | None
) -> argparse.Namespace:
  """Parse the command line of a metric."""
  args = parser.parse_args(argv)
  if args.output:
    files.require_ending(args.output, '.json')
  return args


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command line."""
  with errors.one_line():
    args = parse(make_parser(__doc__), argv)
    tiou = parse_tiou(args.tiou)
    truth, found = segments.read(
      args.ground_truth, args.subset, args.predictions
    )
    result = detection_map(truth, found, tiou)
    if args.output:
      files.write_json(args.output, result, indent=1)
    print(format_table(result, truth))


if __name__ == '__main__':
  main()
