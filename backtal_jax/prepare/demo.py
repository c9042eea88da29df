"""The command `prepare demo`: the embedded data set, and made raw features."""

import argparse
from typing import Any

from etils import epath

from backtal_jax import command_line, errors, files
from backtal_jax.data import demo, raw_demo

# Of made raw features, by default: short videos of two classes.
_RAW = raw_demo.Shape(2, 1024, 350, (2.0, 4.0))


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  add('--output', type=files.path, required=True, help='the data root')
  add('--seed', type=command_line.at_least(0), default=0)
  add('--kind', choices=('classic', 'raw'), default='classic',
      help='the data root of configs/demo.py; or raw features, annotations and '
      'clicks for `prepare custom`, to which the options below belong'
  )  # fmt: skip
  for name, low in (('classes', 1), ('channels', 1), ('videos', 4)):
    default = getattr(_RAW, name)
    add(
      f'--{name}', type=command_line.at_least(low), help=f'by default {default}'
    )
  add('--seconds', type=float, nargs=2, metavar=('SHORTEST', 'LONGEST'),
      help='videos last so long; by default 2 4')  # fmt: skip


def run(output: epath.Path, seed: int, kind: str, **given: Any) -> None:
  """Write the data set."""
  files.require_ending(output)
  given = {key: value for key, value in given.items() if value is not None}
  if kind == 'classic':
    if given:
      raise errors.InputError(f'--{min(given)} means nothing to --kind classic')
    demo.prepare(output, seed)
    return
  shape = _RAW._replace(**given)
  shortest, longest = shape.seconds
  if not 1 <= shortest <= longest <= 3600:
    raise errors.InputError(
      f'--seconds is {shortest:g} {longest:g}, expected two rising numbers '
      'from 1 to 3600'
    )
  raw_demo.prepare(output, shape._replace(seconds=(shortest, longest)), seed)
  print(command_line.command(
    '-m', 'backtal_jax.prepare', 'custom', '--features', output / 'features',
    '--ground_truth', output / 'annotations.json',
    '--clicks', output / 'clicks.csv', '--fps', f'{raw_demo.FPS:g}',
    '--stride', raw_demo.STRIDE, '--window', raw_demo.WINDOW,
    '--num_snippets', 32, '--output', output / 'root',
  ))  # fmt: skip
