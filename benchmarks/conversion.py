"""Memory of `prepare tfds`, which must not depend on the number of videos.

  python -m benchmarks.conversion --folder /big/disk

Writes synthetic videos of ActivityNet's size (T = 100, D = 2048, 0.8 MB each)
into a temporary folder, converts them in a process of its own and prints its
memory. 5,000 videos take 8 GB of disk while it runs. For Linux.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from backtal_jax import IGNORED
from backtal_jax.data import sources

_SHAPE = {'num_snippets': 100, 'feature_dim': 2048, 'num_classes': 100}


def write(folder, count):
  """Write drawn videos, as many as asked for."""
  rng = np.random.default_rng(0)
  for i in range(count):
    spa, tem = rng.random((2, 1024, 100), np.float32)
    sources.write_video(
      folder / f'{i:06}.npz',
      feat_spa=spa,
      feat_tem=tem,
      cls_label=np.eye(100)[i % 100],
      vid_name=f'{i:06}',
      frame_num=3000,
      fps=30.0,
      duration=100.0,
      point_label=np.where(np.arange(100) == i % 100, 100, IGNORED),
    )


def memory(key) -> float:
  """Return VmRSS (now) or VmHWM (its peak) of this process in MiB."""
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{key}:'):
      return int(line.split()[1]) / 1024
  raise KeyError(key)


def convert(root):
  """Convert what `write` wrote into `root/train`; print memory as JSON."""
  from backtal_jax.data import builder

  imported = memory('VmRSS')
  builder.prepare(root, {'train': sources.NpzSource(f'{root}/train', **_SHAPE)})
  print(json.dumps({'imported': imported, 'peak': memory('VmHWM')}))


def measure(folder, count) -> dict:
  """Return MiB after the imports and at the peak, and seconds."""
  with tempfile.TemporaryDirectory(dir=folder) as root:
    write(pathlib.Path(root) / 'train', count)
    start = time.perf_counter()
    done = subprocess.run(
      [sys.executable, '-m', 'benchmarks.conversion', '--convert', root],
      stdout=subprocess.PIPE,
      check=True,
      text=True,
    )
    seconds = time.perf_counter() - start
  return json.loads(done.stdout.splitlines()[-1]) | {'seconds': seconds}


def main():
  """Measure each number of videos and print a table."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--folder', help='on a disk with room; default: /tmp')
  parser.add_argument('--videos', type=int, nargs='+', default=[500, 5000])
  parser.add_argument('--convert', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.convert:
    return convert(args.convert)
  print('| videos | GB | seconds | after the imports | peak | growth |')
  print('| --- | --- | --- | --- | --- | --- |')
  for count in args.videos:
    found = measure(args.folder, count)
    mib = found['imported'], found['peak'], found['peak'] - found['imported']
    cells = (f'{m:.0f} MiB' for m in mib)
    print(
      f'| {count} | {count * 4 * 100 * 2048 / 1e9:.1f} | '
      f'{found["seconds"]:.0f} | {" | ".join(cells)} |',
      flush=True,
    )


if __name__ == '__main__':
  main()
