"""Files: where users say, whole or absent."""

import json
import pathlib
import re

import pytest

from backtal_jax import files


@pytest.fixture
def home(tmp_path, monkeypatch):
  """Be at home in one folder, at work in another."""
  for name in ('home', 'work'):
    (tmp_path / name).mkdir()
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.chdir(tmp_path / 'work')
  return tmp_path / 'home'


def test_the_home_folder_is_found_wherever_a_path_is_named(home):
  files.write_json(files.path('~/runs/a.json'), [1])
  assert json.loads((home / 'runs/a.json').read_text()) == [1]
  assert files.find('a.json', '~/runs') == files.path(home / 'runs/a.json')
  assert files.find('~/runs/a.json', 'x') == files.path(home / 'runs/a.json')
  assert not list(home.parent.joinpath('work').iterdir())
  # Only the home folder is meant.
  for name in ('x/~', 'gs://bucket/~/x', '~nobody-of-this-name/x'):
    assert str(files.path(name)) == name


def test_nowhere_else_does_text_become_a_path():
  package = pathlib.Path(files.__file__).parent
  found = [
    p.name
    for p in package.rglob('*.py')
    if re.search(
      r'epath\.Path\(|pathlib\.Path\((?!files|__file__)', p.read_text()
    )
  ]
  assert found == ['files.py']
