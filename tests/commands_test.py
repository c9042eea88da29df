"""Every flag of every command: wrong, empty, several and given twice."""

import importlib
import json
import re

import processes
import pytest
from detection_map_test import database, predict
from report_test import make_workdir

from backtal_jax import command_line, files
from backtal_jax.data import annotation_formats

MODULES = (
  'backtal_jax.annotate.__main__',
  'backtal_jax.prepare.__main__',
  'backtal_jax.metrics.detection_map',
  'backtal_jax.metrics.diagnosis',
  'backtal_jax.report.__main__',
)


class Caught(Exception):
  """Holds the parser of a command."""


def parser_of(module):
  """Return the main function of a module, and its parser."""

  def catch(parser, argv=None):
    raise Caught(parser)

  main = importlib.import_module(module).main
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(command_line.Parser, 'parse_args', catch)
    with pytest.raises(Caught) as caught:
      main([])
  return main, caught.value.args[0]


def walk(parser, names=()):
  """Yield (names of the commands, option) of all options that take values."""
  for action in parser._actions:
    if action.nargs == 0:
      continue
    if isinstance(action.choices, dict):
      for name, command in action.choices.items():
        yield from walk(command, (*names, name))
    elif action.option_strings:
      yield names, action


CASES = [
  pytest.param(module, [*names, option], action,
               id=f'{module.split(".")[2]} {" ".join(names)} {option}')
  for module in MODULES
  for names, action in walk(parser_of(module)[1])
  for option in action.option_strings[:1]
]  # fmt: skip


def test_rates_may_be_fractions():
  parser = command_line.Parser(prog='x')
  parser.add_argument('--fps', type=annotation_formats.rate)
  assert parser.parse_args(['--fps=30000/1001']).fps == 30000 / 1001
  for wrong in ('1/0', '1/', '/2', '1/2/3', 'inf/2', 'nan', 'a/b'):
    with pytest.raises(SystemExit, match='--fps: invalid rate'):
      parser.parse_args([f'--fps={wrong}'])


def fails(main, argv):
  """Run a command that must end in one line of error; return the line."""
  with pytest.raises(SystemExit) as told:
    main(argv)
  line = told.value.code
  assert isinstance(line, str) and line.startswith('error: '), line
  assert '\n' not in line
  return line


@pytest.mark.parametrize('module, argv, action', CASES)
def test_every_option(module, argv, action):
  main, option = importlib.import_module(module).main, argv[-1]
  assert f'{option}: empty' in fails(main, [*argv, ''])
  assert f'{option}: empty' in fails(main, [*argv[:-1], f'{option}='])
  if action.nargs:  # a list: the first would be lost
    twice = [*argv, '1', option, '2']
    assert f'{option}: given twice' in fails(main, twice)
  free = action.type in (None, files.path)
  wrong = [] if free else ['x', '1,2', '1 2', '0x1']
  wrong += ['nan', 'inf', '1e400'] if action.type is float else []
  for value in [*wrong, *(['x'] if action.choices else [])]:
    assert option in fails(main, [*argv, value])


@pytest.fixture
def metric(tmp_path):
  """Arguments with which detection_map and diagnosis run."""
  truth = database({'v': [('a', 1, 2)]})
  found = {'results': predict({'v': [('a', 1, 2, 1)]})}
  (tmp_path / 'g.json').write_text(json.dumps(truth))
  (tmp_path / 'p.json').write_text(json.dumps(found))
  return {
    '--ground_truth': str(tmp_path / 'g.json'),
    '--predictions': str(tmp_path / 'p.json'),
    '--subset': 'test',
    '--output': str(tmp_path / 'o.json'),
  }


WRONG = {
  '--ground_truth': ['no/such', '.', '{p}', 'a,b'],
  '--predictions': ['no/such', '.', '{g}'],
  '--subset': ['x', 'test,val', '*'],
  '--tiou': ['x', '0', '50', '0.3 0.5', '0.3;0.5', ',', '0.1:0.1', 'nan',
             '0.000001:0.000001:1', '1e-99:1e-99:1'],
  '--theta': ['x', '0', '50', '0.3,0.5', '0.3:0.1:0.5', 'nan', '1e-400'],
  '--output': ['.', '{g}/x'],
}  # fmt: skip


@pytest.mark.parametrize('name', ['detection_map', 'diagnosis'])
@pytest.mark.parametrize('option', WRONG)
def test_wrong_values_of_the_metrics(metric, name, option, tmp_path):
  main = importlib.import_module(f'backtal_jax.metrics.{name}').main
  if option == '--theta' and name == 'detection_map':
    pytest.skip('has no such option')
  for value in WRONG[option]:
    value = value.format(p=metric['--predictions'], g=metric['--ground_truth'])
    given = metric | {option: value}
    line = fails(main, [x for pair in given.items() for x in pair])
    assert 'theta' in line if option == '--theta' else 'theta' not in line
    assert value.removesuffix('/x') in line or option in line, line
    assert not (tmp_path / 'o.json').exists()
  more = [x for pair in metric.items() for x in pair]
  assert 'b' in fails(main, [*more[:2], 'b', *more[2:]])  # several values
  main(more)
  assert (tmp_path / 'o.json').exists()


@pytest.mark.usefixtures('undrawn')
def test_wrong_values_of_the_report(tmp_path):
  main = importlib.import_module('backtal_jax.report.__main__').main
  workdir = str(make_workdir(tmp_path / 'w', num_videos=2))
  assert 'no/such' in fails(main, ['--workdir', 'no/such'])
  assert '--compare' in fails(main, ['--compare', workdir])
  assert 'not allowed' in fails(
    main, ['--workdir', workdir, '--compare', workdir, workdir]
  )
  assert 'no/such' in fails(main, ['--compare', workdir, 'no/such'])
  truth = ['--workdir', workdir, '--ground_truth']
  assert 'no/such' in fails(main, [*truth, 'no/such'])
  assert '"database"' in fails(main, [*truth, f'{workdir}/metrics.json'])
  assert 'a folder' in fails(main, ['--workdir', workdir, '--output', '.'])
  main(['--workdir', workdir, '--output', str(tmp_path / 'page.html')])
  assert (tmp_path / 'page.html').exists()
  assert not (tmp_path / 'w' / 'report.html').exists()


ARCHITECTURE = (processes.ROOT / 'docs' / 'architecture.md').read_text()
PINNED = {*re.findall(r'python -m ([\w.]+)', ARCHITECTURE)}
OLD = 'backtal_jax.data.prepare'


@pytest.mark.parametrize('module', sorted({*PINNED, OLD}))
def test_names_that_users_type(module):
  assert len(PINNED) >= 4
  done = processes.python('-m', module, '--help')
  assert done.returncode == (1 if module == 'backtal_jax.main' else 0)  # absl
  assert '--' in done.stdout
  moved = f'python -m {OLD} is now python -m backtal_jax.prepare\n'
  assert done.stderr.count(moved) == (module == OLD)
