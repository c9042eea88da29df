"""The command line that makes data: python -m backtal_jax.prepare."""

import argparse
import dataclasses
import functools
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any

from backtal_jax import command_line, errors
from backtal_jax.data import annotations, click_tools, clicks, demo, sources
from backtal_jax.prepare import (
  click_statistics,
  convert,
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
    prog='python -m backtal_jax.prepare', description=__doc__
  )
  commands = parser.add_subparsers(required=True, metavar='COMMAND')

  def command(name: str, run: Callable, help: str, **options: Any) -> Any:
    """Add a command that calls a function with the options of its name."""
    added = commands.add_parser(name, help=help)
    for option, how in options.items():
      added.add_argument(f'--{option}', **how)
    added.set_defaults(run=run)
    return added

  needed = lambda help, **how: {'required': True, 'help': help, **how}
  files = {'nargs': '+', 'help': 'files'}
  flag = {'action': 'store_true'}
  seed = {'type': _seed, 'default': 0}
  share = {'type': float, 'metavar': 'SHARE'}
  seconds = {'type': float, 'default': 0.0, 'metavar': 'SECONDS'}
  intervals = {
    'default': '', 'choices': click_tools.INTERVALS[1:],
    'help': "how annotation tools' intervals become clicks",
  }  # fmt: skip

  command(
    'demo', demo.prepare, 'the embedded data set',
    output=needed('the data root'), seed=seed,
  )  # fmt: skip
  command(
    'hapt', hapt.prepare, 'the real recordings of "HAPT Data Set.zip"',
    archive=needed('the zip or its folder'), output=needed('the data root'),
    seed=seed | {'help': 'of the clicks'},
  )  # fmt: skip
  command('video', video.make, 'I3D features of your videos', **video.OPTIONS)
  command(
    'click-stats', click_statistics.write,
    'how click files and ground truth agree',
    ground_truth=needed('of any format'), clicks=files | {'required': True},
    output=needed('the JSON file'), intervals=intervals,
    lenient=flag | {'help': 'leave out clicks that are wrong'},
  )  # fmt: skip
  command(
    'convert-clicks', _convert_clicks, 'click files of one tool for another',
    clicks=files | {'required': True},
    output=needed('a .csv, .json (VIA 3) or a folder (ELAN)'),
    ground_truth={'help': 'to check with; of any format'},
    fps={'type': float, 'help': 'of clicks that are frames'},
    suffix={'default': '.mp4', 'help': 'of the videos'}, intervals=intervals,
  )  # fmt: skip
  command(
    'simulate-clicks', _simulate_clicks, 'clicks sampled from ground truth',
    ground_truth=needed('of any format'), subset=needed('whose videos'),
    output=needed('the click file'), seed=seed,
    gap_share=share | {'default': 1.0, 'help': 'clicked'},
    wrong_share=share | {'default': 0.0, 'help': 'in actions'},
    margin=seconds | {'help': 'kept from actions'},
    min_gap=seconds | {'help': 'shorter gaps get none'},
    actions=flag | {'help': 'click each action, no background'},
  )  # fmt: skip
  for name, defaults in _BENCHMARKS.items():
    help = f'features and files of {name}'
    recipe = {'base': name, 'feature_dim': 2048} | defaults
    _add_recipe(command(name, _custom, help), **recipe)
  help = 'any features, annotations and clicks'
  _add_recipe(command('custom', _custom, help))
  config = needed('of the runs')
  command(
    'check', _check, 'what is in a data root', config=config,
    plot={'metavar': 'VIDEO', 'help': 'draw one video'},
    output={'default': '', 'help': 'the PNG of --plot'},
    videos={'default': '', 'help': 'pictures for --plot'},
  ).add_argument('folder', help='the data root')  # fmt: skip
  command(
    'tfds', _tfds, 'array_record files of a root', config=config,
    output={'help': 'another data root'},
  ).add_argument('folder', help='the data root')  # fmt: skip
  return parser


def _seed(text):
  seed = int(text)
  if seed < 0:
    raise argparse.ArgumentTypeError(f'{seed}, expected 0 or more')
  return seed


def _add_recipe(command, **preset):
  """Add the options that inputs.Recipe declares."""
  for field in dataclasses.fields(inputs.Recipe):
    if field.metadata:
      spellings = {f'--{field.name}', f'--{field.name.replace("_", "-")}'}
      how = inputs.KINDS.get(field.type, {}) | field.metadata
      required = field.default is dataclasses.MISSING
      command.add_argument(
        *sorted(spellings, reverse=True), required=required, **how
      )
    preset.setdefault(field.name, field.default)
  command.set_defaults(**preset)


def _custom(features, clicks, **given):
  convert.prepare(
    inputs.Recipe(features=tuple(features), clicks=tuple(clicks), **given)
  )


def _convert_clicks(ground_truth, output, suffix, **given):
  truth = annotations.read_ground_truth(ground_truth) if ground_truth else None
  paths = given.pop('clicks')
  found, _ = clicks.read(paths, truth, **given)
  if output.endswith('.csv'):
    annotations.write_clicks(output, found)
  elif output.endswith('.json'):
    click_tools.write_via(output, found, suffix)
  else:
    click_tools.write_elan(output, found, suffix)
  print(f'{output}: {len(found)} clicks')


def _simulate_clicks(ground_truth, subset, output, actions, seed, **shares):
  truth = annotations.read_ground_truth(ground_truth)
  simulate = (
    simulated_clicks.simulate_actions
    if actions
    else functools.partial(simulated_clicks.simulate_background, **shares)
  )
  found = simulate(truth, subset, seed=seed)
  annotations.write_clicks(output, found)
  videos = len({click.video for click in found})
  print(f'{output}: {len(found)} clicks on {videos} videos')


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


def _check(folder, config, plot, output, videos):
  from backtal_jax.prepare import check  # matplotlib takes a second

  config = _read_config(config)
  if plot:
    check.plot(folder, *config, plot, output or f'{plot}.png', videos)
  elif check.check(folder, *config):
    sys.exit(1)


def _tfds(folder, config, output):
  from backtal_jax.data import builder  # TFDS takes seconds to import

  _, splits, shape = _read_config(config)
  splits = {s: sources.NpzSource(f'{folder}/{s}', shape) for s in splits}
  builder.prepare(output or folder, splits)


def main(argv: Sequence[str] | None = None) -> None:
  """Run one command; a user error ends in one line and exit status 1."""
  command_line.quiet_tensorflow()
  with errors.one_line():
    options = vars(_parser().parse_args(argv))
    options.pop('run')(**options)


if __name__ == '__main__':
  main()
