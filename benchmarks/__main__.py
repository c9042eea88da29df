"""The command line of the benchmarks; see the package."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import argparse
import functools
import pathlib

from backtal_jax import errors, files
from benchmarks import document, evaluation, growth, loading, network, video

BENCHMARKS = {
  'train_step': functools.partial(network.run, 'train_step'),
  'inference': functools.partial(network.run, 'inference'),
  'localization': evaluation.run_localization,
  'detection_map': evaluation.run_detection_map,
  'input': loading.run_input,
  'epoch': loading.run_epoch,
  'growth': growth.run,
  'i3d': video.run,
}


def main():
  """Run what is asked for, print a table, write JSON."""
  parser = argparse.ArgumentParser(prog='python -m benchmarks')
  parser.add_argument(
    '--only', action='append', choices=BENCHMARKS, help='May be repeated.'
  )
  parser.add_argument('--output', required=True, help='A JSON file.')
  parser.add_argument('--document', help='Folder of performance.md to renew.')
  args = parser.parse_args()
  results = {}
  with errors.one_line():
    for name in args.only or BENCHMARKS:
      print(f'{name} …', flush=True)
      results[name] = BENCHMARKS[name]()
      files.write_json(args.output, results, indent=1)
    print(document.table(results))
    if args.document:
      document.write(results, pathlib.Path(args.document))


if __name__ == '__main__':
  main()
