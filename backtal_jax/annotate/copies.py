"""H.264 copies of videos that browsers cannot play."""

import fractions

from etils import epath

from backtal_jax import errors, files
from backtal_jax.video import decode, needs, streams

# What every browser plays: by suffix the codecs, with 8 bits a colour.
_PLAYABLE = {
  **dict.fromkeys(('.mp4', '.m4v', '.mov'), ('h264', 'vp9', 'av1')),
  '.webm': ('vp8', 'vp9', 'av1'),
}
_PIXELS = 'yuv420p', 'yuvj420p', None
_BASE = fractions.Fraction(1, 90000)  # seconds, the unit of time in copies


def plays(path: epath.Path) -> bool:
  """Return whether browsers play a video, seeks and all.

  Raises:
    errors.InputError: It cannot be read, or has no video stream.
  """
  codecs = _PLAYABLE.get(path.suffix.lower(), ())
  with streams.open_video(path) as (container, stream):
    context = stream.codec_context
    codec = context.codec.canonical_name
    if codec not in codecs or context.pix_fmt not in _PIXELS:
      return False
    return codec != 'h264' or not _has_open_gops(container, stream)


def _has_open_gops(container, stream):
  """Return whether pictures come after the key frame that they precede.

  A browser that seeks to such a key frame cannot decode them, and gives up.
  """
  key = None
  for packet in container.demux(stream):
    if packet.pts is None:
      continue
    if packet.is_keyframe:
      key = packet.pts
    elif key is not None and packet.pts < key:
      return True
  return False


def make(source: epath.Path, path: epath.Path) -> None:
  """Encode a video as H.264 in mp4, shown alike, its first picture at 0 s.

  Raises:
    errors.InputError: It cannot be decoded.
  """
  av = needs('av')
  with (
    streams.open_video(source) as (old, taken),
    files.atomic(path) as f,
    av.open(f, 'w', format='mp4') as new,
  ):
    made, graph, last = None, None, -1
    lengths: dict[int, int] = {}  # of the frames that are not written yet
    for frame in decode.read_pictures(old, taken):
      if made is None:
        # H.264 halves the colours' resolution: even sizes.
        width, height = frame.width // 2 * 2, frame.height // 2 * 2
        orientation = decode.find_orientation(frame)
        graph = _turn(width, height, orientation)
        made = _add_stream(new, taken, width, height, orientation.swapped)
      unit = streams.exact(taken.time_base) / _BASE
      pts, duration = (frame.pts or 0) * unit, (frame.duration or 0) * unit
      frame = frame.reformat(width, height, 'yuv420p')
      if graph is not None:
        graph.vpush(frame)
        frame = graph.vpull()
      frame.pts = last = max(round(pts), last + 1)  # mp4 has no two at once
      lengths[last] = round(duration)
      frame.time_base, frame.pict_type = _BASE, 0
      _write(new, made.encode(frame), lengths)
    if made is None:
      raise errors.InputError(f'{source}: no frame in it can be decoded')
    _write(new, made.encode(), lengths)


def _write(container, packets, lengths):
  """Write packets, each as long as its frame, which encoders only guess."""
  for packet in packets:
    packet.duration = lengths.pop(packet.pts) or packet.duration
    container.mux(packet)


def _add_stream(container, taken, width, height, swapped):
  made = container.add_stream('libx264', rate=taken.average_rate or 25)
  made.width, made.height = (height, width) if swapped else (width, height)
  made.pix_fmt = 'yuv420p'
  # Without B-frames the length of each frame is one in mp4, too.
  made.options = {'crf': '20', 'g': '50', 'bf': '0'}
  made.codec_context.time_base = _BASE
  if aspect := taken.sample_aspect_ratio:
    across, up = aspect.numerator, aspect.denominator
    made.options['aspect'] = f'{up}:{across}' if swapped else f'{across}:{up}'
  return made


def _turn(width, height, orientation):
  """Return a graph that turns frames as `orientation` does, None if it is."""
  swapped, rows, columns = orientation
  turns = [('transpose', 'dir=cclock_flip')] * swapped
  turns += [('vflip', None)] * rows + [('hflip', None)] * columns
  if not turns:
    return None
  graph = needs('av').filter.Graph()
  source = graph.add_buffer(
    width=width, height=height, format='yuv420p', time_base=_BASE
  )
  nodes = [graph.add(*turn) for turn in turns]
  graph.link_nodes(source, *nodes, graph.add('buffersink')).configure()
  return graph
