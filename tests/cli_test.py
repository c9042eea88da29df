"""Every flag of main, wrong, empty and of another mode: one clear line."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
# Flags are global: each case runs in a fork of one process, whose end would
# copy all memory to look for garbage in it.
_CODE = """
import gc, json, os, sys
from backtal_jax import main
gc.freeze()
sys.dont_write_bytecode = True  # what configs are compiled to is no output
for i, arguments in enumerate(json.load(sys.stdin)):
  if not os.fork():
    for stream in 1, 2:
      os.dup2(os.open(f'{i}.{stream}', os.O_CREAT | os.O_WRONLY), stream)
    sys.argv = ['main', *arguments]
    main.app.run(main.main, flags_parser=main._parse)
  _, status = os.wait()
  print(os.waitstatus_to_exitcode(status))
"""
_DEMO = '--config=demo.py'
_PREDICT = (_DEMO, '--mode=predict', '--checkpoint=c', '--input=i')
# Arguments, and what the one line says.
_FLAGS = {
  'no config': ([], '--mode train needs --config'),
  'empty config': (['--config='], '--config is empty, expected a file'),
  'no such config': (['--config=x.py'], '--config: no such file: x.py'),
  'config at home': (['--config=~/x.py'], '--config: no such file: /u/me/x'),
  'config without a value': ([_DEMO, '--config'], '--config is empty'),
  'a field without a config': (['--config.mesh=3'], '--config is missing'),
  'field': (
    [_DEMO, '--config.train.lr=1'],
    'config.train.lr: no such field; did you mean config.train.learning_rate?',
  ),
  'field of a negated flag': (
    [_DEMO, '--noconfig.data.generat'],
    'config.data.generat: no such field; did you mean config.data.generate?',
  ),
  'section': (
    [_DEMO, '--config.trian.seed=1'],
    'config.trian.seed: no such field; did you mean config.train.seed?',
  ),
  'all of a section': (
    [_DEMO, '--config.eval=1'],
    'config.eval is a section, expected one of its fields: eval.batch_size',
  ),
  **{
    f'{value!r} for an integer': (
      [_DEMO, f'--config.train.batch_size={value}'],
      f'config.train.batch_size is {value!r}, expected an integer, at least 1',
    ) for value in ('many', '1.5', '1,2', '', 0)
  },
  'negative seed': ([_DEMO, '--config.train.seed=-1'],
                    'config.train.seed is -1, expected an integer, from 0'),
  'no tiou': ([_DEMO, '--config.eval.tiou=()'],
              'config.eval.tiou is (), expected rising numbers'),
  'text for a tuple': ([_DEMO, '--config.eval.tiou=x'],
                       "config.eval.tiou is ('x',), expected rising numbers"),
  'half a tuple': ([_DEMO, '--config.eval.tiou=(0.5,'],
                   "config.eval.tiou is '(0.5,', expected rising numbers"),
  'maybe': ([_DEMO, '--config.data.generate=maybe'],
            "config.data.generate is 'maybe', expected one of False, True"),
  'flag': ([_DEMO, '--wokdir=x'],
           '--wokdir: no such flag; did you mean --workdir?'),
  'flag of a field': ([_DEMO, '--confg.mesh=8'],
                      '--confg.mesh: no such flag; did you mean --config.m'),
  'no flag': ([_DEMO, 'workdir=x'],
              "'workdir=x': expected --flags and nothing else"),
  'mode': ([_DEMO, '--mode=trian'],
           "--mode is 'trian', expected one of train, evaluate, predict, exp"),
  'empty mode': ([_DEMO, '--mode='], "--mode is '', expected one of train"),
  'two modes': ([_DEMO, '--mode=train,evaluate'],
                "--mode is 'train,evaluate', expected one of"),
  'empty workdir': ([_DEMO, '--workdir='], '--workdir is empty'),
  'no checkpoint': ([_DEMO, '--mode=evaluate'],
                    '--mode evaluate needs --checkpoint'),
  'empty checkpoint': ([_DEMO, '--mode=evaluate', '--checkpoint='],
                       '--checkpoint is empty'),
  'checkpoint to train': (
    [_DEMO, '--checkpoint=c'],
    '--checkpoint means nothing in --mode train; training starts from '
    'config.init_checkpoint',
  ),
  'input to train': ([_DEMO, '--input=x'],
                     '--input means nothing in --mode train'),
  'no output': (_PREDICT, '--mode predict needs --output'),
  'nothing to predict': ([_DEMO, '--mode=predict'],
                         'needs --checkpoint and --input and --output'),
  'empty output': ([*_PREDICT, '--output='], '--output is empty'),
  'workdir to predict': ([*_PREDICT, '--output=o', '--workdir=w'],
                         '--workdir means nothing in --mode predict'),
  **{
    f'{value!r} for a duration': (
      [*_PREDICT, f'--duration={value}'],
      f'--duration is {value!r}, expected a non-negative number',
    ) for value in ('long', '-1', '1,2', '')
  },
  'plot what': ([*_PREDICT, '--plot=3'], "--plot is '3', expected"),
  'export what': (['--mode=export'],
                  '--mode export needs --checkpoint and --output'),
  'export with a duration': (
    ['--mode=export', '--checkpoint=c', '--output=o', '--duration=1'],
    '--duration means nothing in --mode export',
  ),
  'no processes': ([_DEMO, '--num_processes=0'],
                   "--num_processes is '0', expected a positive integer"),
  'empty processes': ([_DEMO, '--num_processes='],
                      "--num_processes is '', expected a positive integer"),
  'negative process': ([_DEMO, '--process_id=-2'],
                       "--process_id is '-2', expected a non-negative int"),
  'no time': ([_DEMO, '--startup_timeout=0'],
              "--startup_timeout is '0', expected a positive integer"),
  'empty address': ([_DEMO, '--coordinator_address='],
                    '--coordinator_address is empty'),
}  # fmt: skip
# Lines after `c = demo.get_config()`, and what is said of the file.
_FILES = {
  'c.train.lr = 1': 'line 3: config.lr: no such field; did you mean '
  'config.train.learning_rate?',
  'c.trian.seed = 1': 'line 3: config.trian: no such field; did you mean',
  'c.unlock()\nc.train.lr = 1': 'config.train.lr: no such field; did you mean '
  'config.train.learning_rate?',
  "c.train.batch_size = '16'": 'line 3: batch_size is 16 of type str, '
  'expected an integer, at least 1',
  'c.eval.tiou = 0.5': 'line 3: tiou is 0.5 of type float, '
  'expected rising',
  "c.unlock()\nc.train.batch_size = None": 'config.train.batch_size is None, '
  'expected an integer, at least 1',
  'c.train.seed = -1': 'config.train.seed is -1, expected an integer',
  'c.unlock()\ndel c.train.seed': 'config.train.seed is missing',
  'return 3': "get_config() returns int, expected a ConfigDict",
  '1 / 0': 'line 3: ZeroDivisionError: division by zero',
  'c = (': "line 3: SyntaxError: '(' was never closed",
}  # fmt: skip


@pytest.fixture(scope='module')
def said(tmp_path_factory):
  """Run every case; return {case: its error}."""
  folder = tmp_path_factory.mktemp('cli')
  head = 'from configs import demo\ndef get_config(c=demo.get_config()):'
  cases = {name: arguments for name, (arguments, _) in _FLAGS.items()}
  (folder / 'demo.py').write_text(f'{head}\n  return c')
  for i, lines in enumerate(_FILES):
    body = lines.replace('\n', '\n  ')
    (folder / f'c{i}.py').write_text(f'{head}\n  {body}\n  return c')
    cases[lines] = [f'--config=c{i}.py']
  done = subprocess.run(
    [sys.executable, '-c', _CODE],
    input=json.dumps(list(cases.values())),
    stdout=subprocess.PIPE,
    cwd=folder,
    env=os.environ | {'HOME': '/u/me', 'PYTHONPATH': str(_ROOT)},
    text=True,
    check=True,
  )
  assert done.stdout.split() == ['1'] * len(cases)
  assert not [p for p in folder.iterdir() if p.is_dir()]
  return {name: (folder / f'{i}.2').read_text() for i, name in enumerate(cases)}


@pytest.mark.parametrize('name', _FLAGS)
def test_a_wrong_flag_ends_in_one_line(said, name):
  assert said[name].startswith('error: ') and said[name].count('\n') == 1
  assert _FLAGS[name][1] in said[name]


@pytest.mark.parametrize('lines', _FILES)
def test_a_wrong_config_file_ends_in_one_line(said, lines):
  assert said[lines].startswith('error: ') and said[lines].count('\n') == 1
  assert _FILES[lines] in said[lines]
