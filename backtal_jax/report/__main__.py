"""The command line of reports.

python -m backtal_jax.report --workdir W          writes W/report.html
python -m backtal_jax.report --compare A B        writes B/compare.html
"""

import argparse
from collections.abc import Sequence

from backtal_jax import command_line, errors, files
from backtal_jax.report import comparison, pages


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command line."""
  parser = command_line.Parser(
    prog='python -m backtal_jax.report',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument('--workdir', type=files.path, help='of a run')
  what.add_argument(
    '--compare', nargs=2, type=files.path, metavar=('A', 'B'), help='workdirs'
  )
  parser.add_argument('--ground_truth', default='', help='if it has moved')
  parser.add_argument(
    '--output', type=files.path, help='another place for the page'
  )
  with errors.one_line():
    args = parser.parse_args(argv)
    if args.workdir:
      print(pages.write(args.workdir, args.output, args.ground_truth))
    else:
      before, after = args.compare
      print(comparison.compare(before, after, args.output, args.ground_truth))


if __name__ == '__main__':
  main()
