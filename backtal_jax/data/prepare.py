"""The command line that makes data: python -m backtal_jax.data.prepare."""

import argparse

from backtal_jax import errors
from backtal_jax.data import demo, hapt


def _parser():
  parser = argparse.ArgumentParser(
    prog='python -m backtal_jax.data.prepare', description=__doc__
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')

  command = commands.add_parser('demo', help='the embedded data set')
  command.add_argument('--output', required=True, help='the data root')
  command.add_argument('--seed', type=int, default=0)
  command.set_defaults(
    run=lambda args: demo.prepare(args.output, seed=args.seed)
  )

  command = commands.add_parser(
    'hapt', help='the real recordings of "HAPT Data Set.zip"'
  )
  command.add_argument('--archive', required=True, help='the zip or its folder')
  command.add_argument('--output', required=True, help='the data root')
  command.add_argument('--seed', type=int, default=0, help='of the clicks')
  command.set_defaults(
    run=lambda args: hapt.prepare(args.archive, args.output, seed=args.seed)
  )
  return parser


def main(argv=None):
  """Run one command; a user error ends in one line and exit status 1."""
  args = _parser().parse_args(argv)
  with errors.one_line():
    args.run(args)


if __name__ == '__main__':
  main()
