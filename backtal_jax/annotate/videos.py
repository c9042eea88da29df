"""The folder of videos, and copies of those that browsers cannot play."""

import contextlib
import fractions
import os
import sys
from typing import Any

from etils import epath

from backtal_jax import errors, files

# Where copies lie, inside the folder.
_COPIES = '.playable'
# What every browser plays: suffixes, and codecs with 8 bits a colour.
_PLAYABLE = {
  ('.mp4', '.m4v', '.mov'): ('h264', 'vp9', 'av1'),
  ('.webm',): ('vp8', 'vp9', 'av1'),
}


class Folder:
  """The videos of a folder by name: that of the file without its suffix.

  A name is only ever looked up, so nothing outside of the folder can be
  asked for; a link that leads out of it is left out.

  Args:
    path: Path of the folder; folders in it are not looked into.

  Raises:
    errors.InputError: no such folder, no video in it, or two of one name.
  """

  def __init__(self, path: epath.PathLike) -> None:
    self.path = os.path.realpath(path)
    if not os.path.isdir(self.path):
      raise errors.InputError(f'{path}: no such folder')
    self._files = {}
    with os.scandir(self.path) as entries:
      entries = sorted(entries, key=lambda entry: entry.name)
    for entry in entries:
      file = entry.name
      name, suffix = os.path.splitext(file)
      if suffix.lower() not in files.VIDEO_SUFFIXES or file.startswith('.'):
        continue
      plain = entry.is_file(follow_symlinks=False) and file.isprintable()
      if not plain and (problem := self._problem(file)):
        print(f'left out: {file!r} {problem}', file=sys.stderr)
        continue
      if name in self._files:
        raise errors.InputError(
          f'{path}: {self._files[name]!r} and {file!r} are both video {name!r}'
        )
      self._files[name] = file
    if not self._files:
      raise errors.InputError(
        f'{path}: no video in it, expected files that end in '
        f'{", ".join(files.VIDEO_SUFFIXES)}'
      )

  def __contains__(self, name):
    return name in self._files

  def __iter__(self):
    return iter(self._files)

  def __len__(self):
    return len(self._files)

  def find(self, name: str) -> str | None:
    """Return the path of a video, rather of its copy; None if it is gone."""
    file = self._files.get(name)
    if file is None or self._problem(file):
      return None
    copy = self._copy(file)
    return copy if os.path.isfile(copy) else os.path.join(self.path, file)

  def transcode(self) -> Any:
    """Make a copy of every video that browsers cannot play.

    Copies are H.264, keep the times of the frames, and lie in `.playable`;
    what is there is not made again.

    Raises:
      errors.InputError: PyAV is missing, or a video cannot be decoded.
    """
    try:
      import av
    except ImportError as e:
      raise errors.InputError(
        "--transcode needs PyAV: pip install 'backtal-jax[video]'"
      ) from e
    for name, file in self._files.items():
      source, copy = os.path.join(self.path, file), self._copy(file)
      try:
        if not os.path.exists(copy) and not _plays(av, source):
          print(f'{source}: making {copy}', flush=True)
          _copy(av, source, copy)
      except av.FFmpegError as e:
        raise errors.InputError(
          f'{source}: video {name!r} cannot be decoded: {e}'
        ) from e

  def _problem(self, file):
    """Return why a file cannot be shown, or None."""
    path = os.path.join(self.path, file)
    inside = os.path.realpath(path)
    if os.path.commonpath([inside, self.path]) != self.path:
      return 'is a link that leads out of the folder'
    if not os.path.isfile(inside):
      return 'is no file'
    with contextlib.suppress(UnicodeEncodeError):
      file.encode()
      return None
    return 'has a name that is not UTF-8'

  def _copy(self, file):
    return os.path.join(self.path, _COPIES, f'{file}.mp4')


def _plays(av, path):
  with av.open(path) as container:
    if not container.streams.video:
      raise errors.InputError(f'{path}: no video stream in it')
    context = container.streams.video[0].codec_context
    suffix = os.path.splitext(path)[1].lower()
    return context.pix_fmt in ('yuv420p', 'yuvj420p', None) and any(
      suffix in suffixes and context.name.removeprefix('lib') in codecs
      for suffixes, codecs in _PLAYABLE.items()
    )


def _copy(av, source, path):
  """Encode a video as H.264 in mp4, its first frame at 0 s."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with (
    av.open(source) as old,
    files.atomic(path) as f,
    av.open(f, 'w', format='mp4') as new,
  ):
    taken = old.streams.video[0]
    taken.thread_type = 'AUTO'
    made = new.add_stream('libx264', rate=taken.average_rate or 25)
    # H.264 halves the colours' resolution: even sizes.
    made.width, made.height = taken.width // 2 * 2, taken.height // 2 * 2
    made.pix_fmt, made.options = 'yuv420p', {'crf': '20', 'g': '50'}
    base = made.codec_context.time_base = fractions.Fraction(1, 90000)
    first = None
    for frame in old.decode(taken):
      if frame.time is None:
        continue
      first = frame.time if first is None else first
      frame = frame.reformat(made.width, made.height, 'yuv420p')
      frame.pts, frame.time_base = round((frame.time - first) / base), base
      frame.pict_type = 0
      new.mux(made.encode(frame))
    new.mux(made.encode())
    if first is None:
      raise errors.InputError(f'{source}: no frame in it can be decoded')
