"""Video files to frames on an even grid of time, one after the other.

One rule for damaged files everywhere: a video is used whole or refused. What
cannot be decoded, or ends before its header says, is an error.
"""

import collections
import contextlib
import fractions
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from backtal_jax import errors, files
from backtal_jax.video import needs

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


def is_video(path: epath.PathLike) -> bool:
  """Return whether a file is a video by its name."""
  return files.path(path).suffix.lower() in files.VIDEO_SUFFIXES


def find(folder: epath.PathLike) -> list[epath.Path]:
  """List the videos of a folder by name, or the one video itself.

  Raises:
    errors.InputError: There is none, or two have the same stem.
  """
  folder = files.path(folder)
  if folder.is_file():
    return [folder]
  if not folder.is_dir():
    raise errors.InputError(f'{folder}: no such file or folder')
  found = sorted(
    p for p in folder.iterdir() if is_video(p) and not p.name.startswith('.')
  )
  if not found:
    raise errors.InputError(
      f'{folder}: no video ({" ".join(files.VIDEO_SUFFIXES)}) in it'
    )
  stems = {}
  for path in found:
    if path.stem in stems:
      raise errors.InputError(
        f'{path}: {stems[path.stem].name} is video {path.stem!r}, too'
      )
    stems[path.stem] = path
  return found


@contextlib.contextmanager
def _open(path):
  """Open a file and its video stream; whatever FFmpeg says is the user's."""
  av = needs('av')
  try:
    with av.open(str(path), metadata_errors='ignore') as container:
      yield container, _find_stream(path, container)
  except av.error.FFmpegError as e:
    raise errors.InputError(f'{path}: no whole video file: {e.strerror}') from e


def _find_stream(path, container):
  """Return the first video stream that is no cover picture."""
  cover = needs('av').stream.Disposition.attached_pic
  for stream in container.streams.video:
    if stream.disposition & cover:
      continue
    if stream.codec_context is None:
      raise errors.InputError(f'{path}: nothing here decodes its video codec')
    stream.codec_context.thread_type = 'AUTO'
    return stream
  kinds = ', '.join(sorted({s.type for s in container.streams})) or 'nothing'
  raise errors.InputError(f'{path}: no video stream in it, only {kinds}')


def read_header(path: epath.PathLike) -> Header:
  """Read duration and frame rate.

  Where the header has no duration of the video stream, its packets tell.

  Raises:
    errors.InputError: No video file, no video stream, or zero frames.
  """
  with _open(path) as (container, stream):
    fps = stream.average_rate or stream.guessed_rate
    if stream.duration is None:
      duration = _demux(path, container, stream)
    else:
      duration = float(stream.duration * stream.time_base)
  if not duration or not fps:
    raise errors.InputError(f'{path}: no frames in it')
  return Header(duration, fractions.Fraction(fps))


def _demux(path, container, stream):
  """Return the seconds from the first to the end of the last packet."""
  start, ends = stream.start_time or 0, collections.defaultdict(float)
  for p in container.demux():
    if p.pts is not None:
      end = float((p.pts + (p.duration or 0)) * p.time_base)
      ends[p.stream.index] = max(ends[p.stream.index], end)
  last = max(ends.values(), default=0.0)
  expected = (container.duration or 0) / 1e6
  if expected - last > _APART:
    raise errors.InputError(_truncated(path, last, expected))
  return max(0.0, ends[stream.index] - float(start * stream.time_base))


def _truncated(path, end, expected):
  return (
    f'{path}: its frames end at {end:.2f} s, expected {expected:.2f} s as its '
    'header says: is it truncated?'
  )


def read_strip(
  path: epath.PathLike, count: int = 10, height: int = 72
) -> list[np.ndarray]:
  """Return the middle frames of `count` equal parts of a video, small."""
  header = read_header(path)
  rate = 2 * count / header.duration
  frames = list(read_frames(path, fps=rate, size=(height,)))
  return frames[1::2][:count] or frames


def read_frames(
  path: epath.PathLike, *, fps: Any, size: tuple[int, ...]
) -> Iterator[np.ndarray]:
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
  header, count = read_header(path), 0
  fps = fractions.Fraction(fps or header.fps).limit_denominator(1 << 16)
  with _open(path) as (container, stream):
    for frame in _filter(container, stream, fps, size):
      count += 1
      yield frame
  end = count / float(fps)
  if not count or abs(end - header.duration) > max(
    _APART, 2 / float(header.fps)
  ):
    raise errors.InputError(_truncated(path, end, header.duration))


def _filter(container, stream, fps, size):
  """Put decoded frames through FFmpeg's filters and turn them upright."""
  av = needs('av')
  graph = turns = None
  for frame in _until_end(container, stream):
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
      yield np.ascontiguousarray(np.rot90(filtered.to_ndarray(), turns))


def _until_end(container, stream):
  """Yield frames, then None, which is what ends a filter graph."""
  is_avi, time = container.format.name == 'avi', 0
  for frame in container.decode(stream):
    # AVI has no presentation times; frames come in their order, though.
    told, after = frame.dts if is_avi else frame.pts, time + frame.duration
    frame.pts = time = after if told is None else told
    yield frame
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
