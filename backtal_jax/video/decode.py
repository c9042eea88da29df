"""Video files to frames on an even grid of time, one after the other.

One rule for damaged files everywhere: a video is used whole or refused. What
cannot be decoded, or ends before its header says, is an error.
"""

import fractions
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from etils import epath

from backtal_jax import errors
from backtal_jax.video import needs

SUFFIXES = frozenset(
  '.3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm '
  '.wmv'.split()
)
# Seconds by which the last frame may end before or after the header's end.
_APART = 0.5


class Header(NamedTuple):
  """What a file says about its video.

  Attributes:
    duration: Seconds, of the video stream.
    fps: Its own frames a second, on average.
  """

  duration: float
  fps: fractions.Fraction


def is_video(path) -> bool:
  """Return whether a file is a video by its name."""
  return epath.Path(path).suffix.lower() in SUFFIXES


def find(folder) -> list[epath.Path]:
  """List the videos of a folder by name, or the one video itself.

  Raises:
    errors.InputError: There is none, or two have the same stem.
  """
  folder = epath.Path(folder)
  if folder.is_file():
    return [folder]
  if not folder.is_dir():
    raise errors.InputError(f'{folder}: no such file or folder')
  found = sorted(
    p for p in folder.iterdir() if is_video(p) and not p.name.startswith('.')
  )
  if not found:
    raise errors.InputError(f'{folder}: no video in it ({" ".join(sorted(SUFFIXES))})')
  stems = {}
  for path in found:
    if path.stem in stems:
      raise errors.InputError(
        f'{path}: {stems[path.stem].name} is video {path.stem!r}, too'
      )
    stems[path.stem] = path
  return found


def _open(path):
  """Return the container and its video stream."""
  av = needs('av')
  try:
    container = av.open(str(path), metadata_errors='ignore')
  except (av.error.FFmpegError, OSError) as e:
    raise errors.InputError(f'{path}: no video file: {e.strerror}') from e
  cover = av.stream.Disposition.attached_pic
  streams = [s for s in container.streams.video if not s.disposition & cover]
  if not streams:
    kinds = ', '.join(sorted({s.type for s in container.streams})) or 'none'
    container.close()
    raise errors.InputError(f'{path}: no video stream in it, only {kinds}')
  stream = streams[0]
  if stream.codec_context is None:
    container.close()
    raise errors.InputError(f'{path}: nothing here decodes its video codec')
  stream.codec_context.thread_type = 'AUTO'
  return container, stream


def read_header(path) -> Header:
  """Read duration and frame rate.

  Where the header has no duration of the video stream, its last packet tells.

  Raises:
    errors.InputError: No video file, no video stream, or zero frames.
  """
  av = needs('av')
  container, stream = _open(path)
  with container:
    try:
      duration = stream.duration or _last_end(container, stream)
    except av.error.FFmpegError as e:
      raise errors.InputError(f'{path}: damaged: {e.strerror}') from e
    fps = stream.average_rate or stream.guessed_rate
    if not duration or not fps:
      raise errors.InputError(f'{path}: no frames in it')
    return Header(float(duration * stream.time_base), fractions.Fraction(fps))


def _last_end(container, stream):
  """Return when the last packet ends, in the stream's time base."""
  ends = [
    p.pts + (p.duration or 0) - (stream.start_time or 0)
    for p in container.demux(stream)
    if p.pts is not None
  ]
  return max(ends, default=0)


def read_frames(path, *, fps, size) -> Iterator[np.ndarray]:
  """Decode a video.

  Args:
    path: Of the file.
    fps: Frames a second of the grid, chosen by presentation time; None is the
      video's own rate on average.
    size: (width, height) in pixels, or (s,) for a short side of s.

  Yields:
    [height, width, 3] uint8 RGB, upright, scaled by bilinear weights.

  Raises:
    errors.InputError: Something cannot be decoded, or is missing at the end.
  """
  av, header = needs('av'), read_header(path)
  fps, count = fractions.Fraction(fps or header.fps).limit_denominator(1 << 16), 0
  container, stream = _open(path)
  with container:
    try:
      for count, frame in enumerate(_filter(container, stream, fps, size), 1):
        yield frame
    except av.error.FFmpegError as e:
      raise errors.InputError(
        f'{path}: damaged at {count / fps:.2f} s of {header.duration:.2f} s: '
        f'{e.strerror}'
      ) from e
  apart = abs(count / fps - header.duration)
  if not count or apart > max(_APART, 2 / header.fps):
    raise errors.InputError(
      f'{path}: its frames end at {count / fps:.2f} s, expected '
      f'{header.duration:.2f} s as its header says: is it truncated?'
    )


def _filter(container, stream, fps, size):
  """Put decoded frames through FFmpeg's filters and turn them upright."""
  av = needs('av')
  graph = turns = None
  for frame in _until_end(container.decode(stream)):
    if graph is None and frame is not None:
      turns = round(frame.rotation / 90) % 4  # counterclockwise
      graph = _make_graph(stream, frame, fps, size, swapped=turns % 2)
    if graph is None:
      return
    graph.vpush(frame)
    while True:
      try:
        filtered = graph.vpull()
      except (av.error.BlockingIOError, av.error.EOFError):
        break
      yield np.rot90(filtered.to_ndarray(), turns)


def _until_end(frames):
  """Yield frames, then None, which is what ends a filter graph."""
  yield from frames
  yield None


def _make_graph(stream, frame, fps, size, *, swapped):
  """Return the graph: even times, then size, then RGB."""
  av = needs('av')
  if len(size) == 1:
    scale = size[0] / min(frame.width, frame.height)
    size = [max(size[0], round(n * scale)) for n in (frame.width, frame.height)]
  elif swapped:
    size = size[::-1]
  graph = av.filter.Graph()
  nodes = [
    graph.add_buffer(
      width=frame.width, height=frame.height, format=frame.format,
      time_base=stream.time_base,
    ),
    graph.add('fps', f'fps={fps}:round=near'),
    graph.add('scale', f'{size[0]}:{size[1]}:flags=bilinear+accurate_rnd'),
    graph.add('format', 'rgb24'),
    graph.add('buffersink'),
  ]  # fmt: skip
  graph.link_nodes(*nodes).configure()
  return graph
