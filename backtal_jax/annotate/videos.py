"""The folder of videos, and copies of those that browsers cannot play."""

import contextlib
import os
import sys
from collections.abc import Iterator

from etils import epath

from backtal_jax import errors, files
from backtal_jax.annotate import copies
from backtal_jax.video import decode, needs, streams

# Where copies lie, inside the folder.
_COPIES = '.playable'


class Folder:
  """The videos of a folder by name: that of the file without its suffix.

  A name is only ever looked up, so nothing outside of the folder can be
  asked for; a link that leads out of it is left out. What is left out is
  named on stderr.

  Args:
    path: Of the folder; folders in it are not looked into.

  Raises:
    errors.InputError: no such folder, no video in it, or two of one name.
  """

  def __init__(self, path: epath.Path) -> None:
    self.path = files.path(os.path.realpath(path))
    if not self.path.is_dir():
      raise errors.InputError(f'{path}: no such folder')
    self._files: dict[str, str] = {}
    self._lengths: dict[str, float | None] = {}
    for found in streams.find(self.path):
      if problem := self._problem(found.name):
        print(f'left out: {found.name!r} {problem}', file=sys.stderr)
      else:
        self._files[found.stem] = found.name
    if not self._files:
      raise errors.InputError(f'{path}: no video in it is left')

  def __contains__(self, name: object) -> bool:
    return name in self._files

  def __iter__(self) -> Iterator[str]:
    return iter(self._files)

  def __len__(self) -> int:
    return len(self._files)

  def find(self, name: str) -> epath.Path | None:
    """Return the path of a video, rather of its copy; None if it is gone."""
    file = self._files.get(name)
    if file is None or self._problem(file):
      return None
    copy = self._copy(file)
    return copy if copy.is_file() else self.path / file

  def measure(self, name: str) -> float | None:
    """Return the seconds of a video's pictures; None where nothing can tell."""
    if name not in self._lengths:
      path, self._lengths[name] = self.find(name), None
      # No PyAV, or only browsers can read it.
      with contextlib.suppress(errors.InputError, OSError):
        if path is not None:
          self._lengths[name] = decode.read_header(path).duration
    return self._lengths[name]

  def transcode(self) -> None:
    """Make a copy of every video that browsers cannot play.

    Copies are H.264, keep the times of the frames, and lie in `.playable`;
    what is there is not made again. What cannot be copied is named on stderr.

    Raises:
      errors.InputError: PyAV is missing.
    """
    needs('av')
    for file in self._files.values():
      source, copy = self.path / file, self._copy(file)
      try:
        if not copy.exists() and not copies.plays(source):
          print(f'{source}: making {copy}', flush=True)
          copies.make(source, copy)
      except errors.InputError as e:
        print(f'no copy is made: {e}', file=sys.stderr)

  def _problem(self, file):
    """Return why a file cannot be shown, or None."""
    inside = os.path.realpath(self.path / file)
    if os.path.commonpath([inside, self.path]) != str(self.path):
      return 'is a link that leads out of the folder'
    if not os.path.isfile(inside):
      return 'is no file'
    with contextlib.suppress(UnicodeEncodeError):
      file.encode()
      return None
    return 'has a name that is not UTF-8'

  def _copy(self, file):
    return self.path / _COPIES / f'{file}.mp4'
