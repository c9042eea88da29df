"""The command line that makes data: python -m backtal_jax.data.prepare."""

import argparse
import dataclasses
import os
import runpy
import sys
from collections.abc import Sequence

# TFDS says much when it is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

from backtal_jax import command_line, errors
from backtal_jax.data import annotations, click_tools, sources
from backtal_jax.data.prepare import (
  click_statistics,
  convert,
  demo,
  hapt,
  inputs,
  simulated_clicks,
  video,
)

_BENCHMARKS = {  # what differs from inputs.Recipe's defaults
  'thumos14': {
    'train_split': 'val', 'eval_split': 'test', 'num_snippets': 750,
  },
  'activitynet12': {},
  'hacs': {'num_snippets': 200},
}  # fmt: skip


def _parser():
  parser = command_line.Parser(
    prog='python -m backtal_jax.data.prepare', description=__doc__
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')

  command = commands.add_parser('demo', help='the embedded data set')
  command.add_argument('--output', required=True, help='the data root')
  command.add_argument('--seed', type=_seed, default=0)
  command.set_defaults(
    run=lambda args: demo.prepare(args.output, seed=args.seed)
  )

  command = commands.add_parser(
    'hapt', help='the real recordings of "HAPT Data Set.zip"'
  )
  command.add_argument('--archive', required=True, help='the zip or its folder')
  command.add_argument('--output', required=True, help='the data root')
  command.add_argument('--seed', type=_seed, default=0, help='of the clicks')
  command.set_defaults(
    run=lambda args: hapt.prepare(args.archive, args.output, seed=args.seed)
  )

  video.add_command(commands)
  _add_click_commands(commands)
  for name, defaults in _BENCHMARKS.items():
    command = commands.add_parser(name, help=f'features and files of {name}')
    _add_recipe(command, base=name, feature_dim=2048, **defaults)
  command = commands.add_parser(
    'custom', help='any features, annotations and clicks'
  )
  _add_recipe(command)
  _add_folder_commands(commands)
  return parser


def _add_click_commands(commands):
  """Add what counts and simulates clicks."""
  command = commands.add_parser(
    'click-stats', help='how click files and ground truth agree'
  )
  command.add_argument('--ground_truth', required=True, help='of any format')
  command.add_argument('--clicks', required=True, nargs='+', help='files')
  command.add_argument('--output', required=True, help='the JSON file')
  command.add_argument(
    '--lenient', action='store_true', help='leave out clicks that are wrong'
  )
  _add_intervals(command)
  command.set_defaults(
    run=lambda args: click_statistics.write(
      args.ground_truth, args.clicks, args.output, args.lenient, args.intervals
    )
  )

  command = commands.add_parser(
    'convert-clicks', help='click files of one tool for another'
  )
  command.add_argument('--clicks', required=True, nargs='+', help='files')
  command.add_argument(
    '--output', required=True, help='a .csv, .json (VIA 3) or a folder (ELAN)'
  )
  command.add_argument('--ground_truth', help='to check with; of any format')
  command.add_argument('--fps', type=float, help='of clicks that are frames')
  command.add_argument('--suffix', default='.mp4', help='of the videos')
  _add_intervals(command)
  command.set_defaults(run=_convert_clicks)

  command = commands.add_parser(
    'simulate-clicks', help='clicks sampled from ground truth'
  )
  command.add_argument('--ground_truth', required=True, help='of any format')
  command.add_argument('--subset', required=True, help='whose videos')
  command.add_argument('--output', required=True, help='the click file')
  command.add_argument('--seed', type=_seed, default=0)
  share = {'type': float, 'metavar': 'SHARE'}
  seconds = {'type': float, 'default': 0.0, 'metavar': 'SECONDS'}
  command.add_argument('--gap_share', default=1.0, **share, help='clicked')
  command.add_argument('--wrong_share', default=0.0, **share, help='in actions')
  command.add_argument('--margin', **seconds, help='kept from actions')
  command.add_argument('--min_gap', **seconds, help='shorter gaps get none')
  command.add_argument(
    '--actions', action='store_true', help='click each action, no background'
  )
  command.set_defaults(run=_simulate_clicks)


def _add_intervals(command):
  command.add_argument(
    '--intervals',
    default='',
    choices=click_tools.INTERVALS[1:],
    help="how annotation tools' intervals become clicks",
  )


def _convert_clicks(args):
  truth, found = None, []
  if args.ground_truth:
    truth = annotations.read_ground_truth(args.ground_truth)
  for path in args.clicks:
    found += annotations.read_clicks(
      path, truth, fps=args.fps, intervals=args.intervals
    )[0]
  if args.output.endswith('.csv'):
    annotations.write_clicks(args.output, found)
  elif args.output.endswith('.json'):
    click_tools.write_via(args.output, found, args.suffix)
  else:
    click_tools.write_elan(args.output, found, args.suffix)
  print(f'{args.output}: {len(found)} clicks')


def _seed(text):
  seed = int(text)
  if seed < 0:
    raise argparse.ArgumentTypeError(f'{seed}, expected 0 or more')
  return seed


def _simulate_clicks(args):
  truth = annotations.read_ground_truth(args.ground_truth)
  if args.actions:
    found = simulated_clicks.simulate_actions(
      truth, args.subset, seed=args.seed
    )
  else:
    found = simulated_clicks.simulate_background(
      truth,
      args.subset,
      seed=args.seed,
      gap_share=args.gap_share,
      margin=args.margin,
      wrong_share=args.wrong_share,
      min_gap=args.min_gap,
    )
  annotations.write_clicks(args.output, found)
  videos = len({click.video for click in found})
  print(f'{args.output}: {len(found)} clicks on {videos} videos')


def _add_recipe(command, **preset):
  """Add the options that inputs.Recipe declares."""
  for field in dataclasses.fields(inputs.Recipe):
    if field.metadata:
      spellings = {f'--{field.name}', f'--{field.name.replace("_", "-")}'}
      required = field.default is dataclasses.MISSING
      command.add_argument(
        *sorted(spellings, reverse=True), required=required, **field.metadata
      )
    preset.setdefault(field.name, field.default)
  command.set_defaults(run=_custom, **preset)


def _custom(args):
  given = {
    field.name: getattr(args, field.name)
    for field in dataclasses.fields(inputs.Recipe)
  }
  lists = {key: tuple(given[key]) for key in ('features', 'clicks')}
  convert.prepare(inputs.Recipe(**given | lists))


def _add_folder_commands(commands):
  """Add what is done to a prepared folder."""
  command = commands.add_parser('check', help='what is in a data root')
  command.add_argument('folder', help='the data root')
  command.add_argument('--config', required=True, help='of the runs')
  command.add_argument('--plot', metavar='VIDEO', help='draw one video')
  command.add_argument('--output', default='', help='the PNG of --plot')
  command.add_argument('--videos', default='', help='pictures for --plot')
  command.set_defaults(run=_check)
  command = commands.add_parser('tfds', help='array_record files of a root')
  command.add_argument('folder', help='the data root')
  command.add_argument('--config', required=True, help='of the runs')
  command.add_argument('--output', help='another data root')
  command.set_defaults(run=_tfds)


def _read_config(path):
  """Return (config.data, splits, (T, D, C)) of a config file[:recipe]."""
  path, *recipe = path.split(':', 1)
  try:
    config = runpy.run_path(path)['get_config'](*recipe)
    data, model = config.data, config.model
    shape = data.num_snippets, model.feature_dim, model.num_classes
    return data, (data.train_split, data.eval_split), shape
  except Exception as e:  # it runs any code
    raise errors.InputError(f'{path}: no config file: {e!r}') from e


def _check(args):
  from backtal_jax.data.prepare import check  # matplotlib takes a second

  config = _read_config(args.config)
  if args.plot:
    output = args.output or f'{args.plot}.png'
    check.plot(args.folder, *config, args.plot, output, args.videos)
  elif check.check(args.folder, *config):
    sys.exit(1)


def _tfds(args):
  from backtal_jax.data import builder  # TFDS takes seconds to import

  _, splits, shape = _read_config(args.config)
  names = ('num_snippets', 'feature_dim', 'num_classes')
  shape = dict(zip(names, shape, strict=True))
  builder.prepare(
    args.output or args.folder,
    {s: sources.NpzSource(f'{args.folder}/{s}', **shape) for s in splits},
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Run one command; a user error ends in one line and exit status 1."""
  with errors.one_line():
    args = _parser().parse_args(argv)
    args.run(args)


if __name__ == '__main__':
  main()
