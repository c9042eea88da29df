"""The command line of the benchmarks; see the package."""

import functools

from backtal_jax import command_line, errors, files
from benchmarks import (
  clicking,
  evaluation,
  flow,
  loading,
  measure,
  network,
  video,
)

BENCHMARKS = {
  'train_step': functools.partial(network.run, 'train_step'),
  'inference': functools.partial(network.run, 'inference'),
  'localization': evaluation.run_localization,
  'detection_map': evaluation.run_detection_map,
  'input': loading.run_input,
  'epoch': loading.run_epoch,
  'i3d': video.run,
  'flow': flow.run,
  'click': clicking.run,
  'review': clicking.run_review,
}


def main():
  """Measure what is asked for; write JSON, print a Markdown table."""
  command_line.quiet_tensorflow()
  parser = command_line.Parser(prog='python -m benchmarks')
  parser.add_argument(
    '--only', action='append', choices=BENCHMARKS, help='May be repeated.'
  )
  parser.add_argument(
    '--output', type=files.path, required=True, help='A JSON file.'
  )
  args = parser.parse_args()
  results = {}
  with errors.one_line():
    files.require_ending(args.output, '.json')
    for name in args.only or BENCHMARKS:
      print(f'{name} …', flush=True)
      results[name] = BENCHMARKS[name]()
      files.write_json(args.output, results, indent=1)
    print(measure.table(results))


if __name__ == '__main__':
  main()
