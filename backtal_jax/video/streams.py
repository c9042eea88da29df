"""Video files, and the stream of each that players show."""

import contextlib
import fractions
import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from etils import epath

from backtal_jax import errors, files
from backtal_jax.video import needs

if TYPE_CHECKING:  # of the extra `video`
  import av
  import av.container


def is_video(path: epath.Path) -> bool:
  """Return whether a file is a video by its name."""
  return path.suffix.lower() in files.VIDEO_SUFFIXES


def find(folder: epath.Path) -> list[epath.Path]:
  """List the videos of a folder by name, or the one video itself.

  What else is in the folder is named on stderr, but for hidden files.

  Raises:
    errors.InputError: There is none, or two have the same stem.
  """
  if folder.is_file():
    return [folder]
  if not folder.is_dir():
    raise errors.InputError(f'{folder}: no such file or folder')
  visible = sorted(p for p in folder.iterdir() if not p.name.startswith('.'))
  found = [path for path in visible if is_video(path)]
  if not found:
    raise errors.InputError(
      f'{folder}: no video ({" ".join(files.VIDEO_SUFFIXES)}) in it'
    )
  stems = {}
  for path in found:
    if (other := stems.setdefault(path.stem, path)) is not path:
      raise errors.InputError(
        f'{path}: {other.name} is video {path.stem!r}, too'
      )
  if others := [path.name for path in visible if not is_video(path)]:
    print(
      f'{folder}: left out, not named as videos: {errors.few(others)}',
      file=sys.stderr,
    )
  return found


@contextlib.contextmanager
def open_video(
  path: epath.Path,
) -> Iterator[tuple['av.container.InputContainer', 'av.VideoStream']]:
  """Open a file and the video stream of it that players show.

  Raises:
    errors.InputError: Whatever FFmpeg says while it is open; no video stream.
  """
  av = needs('av')
  # Before PyAV 19, tags that are not UTF-8 are errors without this.
  is_old = int(av.__version__.partition('.')[0]) < 19
  options = {'metadata_errors': 'ignore'} if is_old else {}
  try:
    with av.open(str(path), **options) as container:
      yield container, _find_stream(path, container)
  except av.error.FFmpegError as e:
    raise errors.InputError(f'{path}: no whole video file: {e.strerror}') from e


def _find_stream(path, container):
  """Return the video stream that browsers show, never a cover picture.

  Of several, Chromium shows the first that is switched on in mp4 and mov, the
  first whatever its flags in others.
  """
  flags = needs('av').stream.Disposition
  streams = [
    s for s in container.streams.video if not s.disposition & flags.attached_pic
  ]
  if not streams:
    kinds = ', '.join(sorted({s.type for s in container.streams})) or 'nothing'
    raise errors.InputError(f'{path}: no video stream in it, only {kinds}')
  on = [s for s in streams if s.disposition & flags.default]
  stream = (on if on and kind(container) == 'mov' else streams)[0]
  if len(streams) > 1:
    _tell_once(
      f'{path}: {len(streams)} video streams in it, the one that browsers show '
      f'is used, stream {stream.index}'
    )
  if stream.codec_context is None:
    raise errors.InputError(f'{path}: nothing here decodes its video codec')
  stream.codec_context.thread_type = 'AUTO'
  return stream


@functools.cache
def _tell_once(text):
  print(text, file=sys.stderr)


def kind(container: 'av.container.InputContainer') -> str:
  """Return FFmpeg's name of a container, the first of several."""
  return container.format.name.partition(',')[0]


def exact(rational: fractions.Fraction | None) -> fractions.Fraction:
  """Return a Fraction for PyAV's rates, which are inexact from 19 on."""
  assert rational is not None  # as every stream that is open has one
  return fractions.Fraction(rational.numerator, rational.denominator)
