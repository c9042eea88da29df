"""The command line that makes data: python -m backtal_jax.prepare."""

import functools
from collections.abc import Sequence

from backtal_jax import command_line, errors
from backtal_jax.prepare import (
  agreement,
  check,
  click_stats,
  convert_clicks,
  convert_segments,
  custom,
  demo,
  hapt,
  simulate_clicks,
  tfds,
  video,
)

# Each is a module with `add_options` and `run`.
_COMMANDS = {
  'demo': (demo, 'the embedded data set'),
  'hapt': (hapt, 'the real recordings of "HAPT Data Set.zip"'),
  'video': (video, 'I3D features of your videos'),
  'click-stats': (click_stats, 'how click files and ground truth agree'),
  'agreement': (agreement, 'do annotators agree, and where not'),
  'convert-clicks': (convert_clicks, 'click files of one tool for another'),
  'convert-segments': (convert_segments, 'segments of one form in another'),
  'simulate-clicks': (simulate_clicks, 'clicks sampled from ground truth'),
  'custom': (custom, 'any features, annotations and clicks'),
  'check': (check, 'what is in a data root'),
  'tfds': (tfds, 'array_record files of a root'),
}


def _parser():
  parser = command_line.Parser(
    prog='python -m backtal_jax.prepare', description=__doc__
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  for name, (module, help) in _COMMANDS.items():
    command = commands.add_parser(name, help=help)
    module.add_options(command)
    command.set_defaults(run=module.run)
  for name in custom.BENCHMARKS:
    command = commands.add_parser(name, help=f'features and files of {name}')
    custom.add_options(command, benchmark=name)
    command.set_defaults(run=functools.partial(custom.run, benchmark=name))
  return parser


def main(argv: Sequence[str] | None = None) -> None:
  """Run one command; a user error ends in one line and exit status 1."""
  command_line.quiet_tensorflow()
  with errors.one_line():
    options = vars(_parser().parse_args(argv))
    options.pop('run')(**options)


if __name__ == '__main__':
  main()
