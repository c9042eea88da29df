"""Video files to frames on an even grid of time, one after the other.

One clock: seconds are counted from the first picture, see video.md. One rule
for damaged files everywhere: a video is used whole or refused. What cannot be
decoded, or ends before its header says, is an error.
"""

import collections
import contextlib
import fractions
import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from etils import epath

from backtal_jax import errors
from backtal_jax.video import needs, streams

if TYPE_CHECKING:  # of the extra `video`
  import av
  import av.container

# Seconds by which the last frame may end before or after it is said to.
_APART = 0.5
# Of longer files only the last seconds are read to find where they end.
_WHOLE, _LAST = 60, 20
# How far beside a right angle a turn may be.
_ASKEW = 0.01
# Containers that browsers play, on the clock that stands in the file.
_OF_BROWSERS = 'mov', 'matroska', 'ogg'


class Header(NamedTuple):
  """What a file says about its pictures.

  Attributes:
    duration: Seconds from the first picture to the end of the last.
    fps: Its own frames a second, on average.
    first_picture: Seconds on the clock of players at which the first stands.
  """

  duration: float
  fps: fractions.Fraction
  first_picture: float


class Orientation(NamedTuple):
  """How pixels as stored become those that a player shows.

  Attributes:
    swapped: Rows become columns, before anything else.
    rows, columns: Whether their order is turned round.
  """

  swapped: bool = False
  rows: bool = False
  columns: bool = False

  def turn(self, pixels: np.ndarray) -> np.ndarray:
    """Return pixels [Y, X, channels] as they are shown, contiguous."""
    if self.swapped:
      pixels = pixels.swapaxes(0, 1)
    steps = (-1 if turned else 1 for turned in (self.rows, self.columns))
    rows, columns = (slice(None, None, step) for step in steps)
    return np.ascontiguousarray(pixels[rows, columns])


def read_header(path: epath.Path) -> Header:
  """Read where the pictures of a video lie in time, and their rate.

  The times are those of the pictures: what a header calls duration is an end
  in some containers, a length in others, and may be another stream's. It
  tells only whether the file is whole.

  Raises:
    errors.InputError: No video file, no video stream, zero frames, or a file
      that ends before its header says.
  """
  header, reached, promised = _measure(path, whole=False)
  if promised - reached > _APART:
    header, reached, promised = _measure(path, whole=True)
  if promised - reached > _APART:
    raise errors.InputError(_truncated(path, reached, promised))
  return header


def _measure(path, *, whole):
  """Return a Header, and the seconds that are reached and promised."""
  with streams.open_video(path) as (container, stream):
    base, kind = streams.exact(stream.time_base), streams.kind(container)
    fps = stream.average_rate or stream.guessed_rate
    first, packets = _find_first(container, stream)
    if first is None or not fps:
      raise errors.InputError(f'{path}: no frames in it')
    fps = streams.exact(fps)
    unit = 1 / fps / base
    told = stream.duration
    promised = (container.duration or 0) / 1e6 if told is None else told * base
    if not whole and promised > _WHOLE:
      # Where the promise is an end that lies beyond; seeking stops in time.
      since = promised - _LAST + (first * base if told else 0)
      with contextlib.suppress(needs('av').error.FFmpegError):
        container.seek(int(since / base), stream=stream)
    packets = itertools.chain(packets, container.demux())
    end, decoding, latest, step = _read_on(stream, packets, unit, kind)
    start = fractions.Fraction(container.start_time or 0, 10**6)
    has_index = bool(stream.frames and told)
  # An index counts every frame, also the last one's length, which FFmpeg may
  # guess; AVI has nothing but counts.
  if has_index and (kind == 'avi' or abs(first + told - end) <= step):
    end = first + told
  # What has an index promises a length, in decoding times; others, that or
  # an end, of whatever stream if it is the container that promises.
  reached = decoding * base
  if told is None:
    reached = max(reached, latest)
  elif not has_index:
    reached = max(reached, end * base)
  shown = first * base - (0 if kind in _OF_BROWSERS else start)
  header = Header(float((end - first) * base), fps, float(shown))
  return header, float(reached), float(promised)


def _find_first(container, stream):
  """Return when the first picture is shown, and the packets read for it."""
  packets = []

  def noted():
    for packet in container.demux():
      packets.append(packet)
      yield packet

  frame = next(_decode(container, stream, noted()), None)
  return frame and (frame.pts or 0), packets


def _decode(container, stream, packets):
  """Yield the frames of a stream, from the first packet on that has a time."""
  # AVI has no presentation times; frames come in their order, though.
  is_avi, order = streams.kind(container) == 'avi', collections.deque()
  begun = False
  for packet in packets:
    if packet.stream.index != stream.index:
      continue
    begun = begun or packet.pts is not None or packet.dts is not None
    if not begun:
      continue
    if is_avi:
      order.append(packet.dts)
    for frame in packet.decode():
      if is_avi:
        frame.pts = order.popleft() if order else None
      yield frame


def _read_on(stream, packets, unit, kind):
  """Read packets to their end.

  Returns the end of the picture that is shown last and how long decoding
  lasts, both in units of the stream, of which a frame takes `unit` where it
  does not say; the last end of any stream, in seconds; and how long the
  packet lasts that is decoded last.
  """
  shown, decoding, latest = (-math.inf, 0), (math.inf, -math.inf), 0.0
  step = unit
  for packet in packets:
    times = [t for t in (packet.pts, packet.dts) if t is not None]
    if not times:
      continue
    lasts = packet.duration or 0
    if packet.stream.index == stream.index:
      if not packet.is_discard:
        shown = max(shown, (times[0], lasts or unit))
      start, end = decoding
      decoding = min(start, times[-1]), max(end, times[-1] + lasts)
      step = lasts or unit
    latest = max(latest, (times[0] + lasts) * float(packet.time_base))
  begin, lasts = shown
  end = begin + _last_length(kind, lasts, step)
  return end, decoding[1] - decoding[0], latest, step


def _last_length(kind, lasts, step):
  """Return how long the picture lasts that is shown last.

  Lengths in mp4 and mov are those of decoding, so that of a picture that is
  decoded before others may be that of a still; then what is decoded last tells.
  """
  return min(lasts, step) if kind == 'mov' and step else lasts


def _truncated(path, end, expected):
  return (
    f'{path}: its frames end at {end:.2f} s, expected {expected:.2f} s as its '
    'header says: is it truncated?'
  )


def read_strip(
  path: epath.Path, count: int = 10, height: int = 72
) -> list[np.ndarray]:
  """Return what is shown in the middle of `count` equal parts, small."""
  rate = 2 * count / read_header(path).duration
  frames = list(read_frames(path, fps=rate, size=(height,), rounding='up'))
  return frames[1::2][:count] or frames


def read_frames(
  path: epath.Path,
  *,
  fps: float | None,
  size: tuple[int, ...],
  rounding: str = 'near',
) -> Iterator[np.ndarray]:
  """Decode a video.

  Args:
    path: Of the file.
    fps: Frames a second of the grid, chosen by presentation time; None is the
      video's own rate on average.
    size: (width, height) in pixels, or (s,) for a short side of s.
    rounding: Of times, to the nearest of the grid or, 'up', to the next one.
      Of several frames the last one stays, so 'up' gives what is shown then.

  Yields:
    [height, width, 3] uint8 RGB, upright, scaled by bilinear weights. The
    first is the first picture, at 0 s.

  Raises:
    errors.InputError: Something cannot be decoded, or is missing at the end.
  """
  header, graph, begin, end = read_header(path), None, 0, 0
  rate = fractions.Fraction(fps or header.fps).limit_denominator(1 << 16)
  with streams.open_video(path) as (container, stream):
    base = streams.exact(stream.time_base)
    for frame in read_pictures(container, stream):
      if float((begin - frame.pts) * base) > _APART:
        raise errors.InputError(
          f'{path}: its times jump back from {float(end * base):.2f} to '
          f'{float(frame.pts * base):.2f} s: is it several files joined?'
        )
      begin, end = frame.pts, frame.pts + (frame.duration or 0)
      if graph is None:
        orientation = find_orientation(frame)
        graph = _make_graph(
          stream, frame, rate, size, swapped=orientation.swapped,
          rounding=rounding,
        )  # fmt: skip
      for filtered in _filter(graph, frame):
        yield orientation.turn(filtered.to_ndarray())
    for filtered in _filter(graph, None) if graph else ():
      yield orientation.turn(filtered.to_ndarray())
  end = float(end * base)
  if abs(end - header.duration) > max(_APART, 2 / float(header.fps)):
    raise errors.InputError(_truncated(path, end, header.duration))


def read_pictures(
  container: 'av.container.InputContainer', stream: 'av.VideoStream'
) -> Iterator['av.VideoFrame']:
  """Yield the frames of an open video as decoded, timed from the first one.

  They come in the order in which they are shown: one that has no time, or an
  earlier one than that before, as MPEG's program streams have, begins where
  that ends. Where times jump back by more than a moment they stay. Each lasts
  until the next one begins: those of mp4 come with each other's lengths.
  """
  before, first, begin, end, step = None, 0, 0, 0, 0
  moment = _APART / streams.exact(stream.time_base)

  def noted():
    nonlocal step
    for packet in container.demux(stream):
      step = packet.duration or step
      yield packet

  for frame in _decode(container, stream, noted()):
    time = frame.pts
    if time is None or (before is not None and 0 < begin - time <= moment):
      time = end
    if before is None:
      first = time
    else:
      before.duration = time - begin if time > begin else before.duration
      yield before
    begin, end, before = time, time + (frame.duration or 0), frame
    frame.pts = time - first
  if before is not None:
    before.duration = _last_length(
      streams.kind(container), before.duration or 0, step
    )
    yield before


def find_orientation(frame: 'av.VideoFrame') -> Orientation:
  """Return how a frame is turned: by right angles, mirrored or not.

  Turns by other angles, which browsers do not show, count as none.
  """
  found = frame.side_data.get('DISPLAYMATRIX')
  if found is None:
    return Orientation()
  # A stored pixel (x, y) is shown at (a·x + c·y, b·x + d·y).
  matrix = np.frombuffer(cast('bytes', found), np.int32)
  a, b, _, c, d = matrix[:5].tolist()
  if max(abs(b), abs(c)) <= _ASKEW * min(abs(a), abs(d)):
    return Orientation(False, rows=d < 0, columns=a < 0)
  if max(abs(a), abs(d)) <= _ASKEW * min(abs(b), abs(c)):
    return Orientation(True, rows=b < 0, columns=c < 0)
  return Orientation()


def _filter(graph, frame):
  """Put a frame, or None for the end, through a graph; yield what comes."""
  av = needs('av')
  graph.vpush(frame)
  while True:
    try:
      yield graph.vpull()
    except (av.error.BlockingIOError, av.error.EOFError):
      return


def _make_graph(stream, frame, fps, size, *, swapped, rounding):
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
    graph.add('fps', f'fps={fps}:round={rounding}'),
    graph.add('scale', f'{size[0]}:{size[1]}:flags=bilinear+accurate_rnd'),
    graph.add('format', 'rgb24'),
    graph.add('buffersink'),
  ]  # fmt: skip
  graph.link_nodes(*nodes).configure()
  return graph
