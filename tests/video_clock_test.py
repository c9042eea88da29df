"""One clock: where pictures lie in time, whatever their files say.

The kinds are those that Chromium 156, PyAV and FFmpeg were seen to disagree on;
expected times are those at which the pictures were written.
"""

import struct

import numbered_video
import numpy as np
import pytest
import videos

from backtal_jax import errors
from backtal_jax.video import decode, streams

av = pytest.importorskip('av', reason='needs the extra video: av')

_FRAGMENTS = {'movflags': 'frag_keyframe+empty_moov+default_base_moof'}
_GRAY = np.arange(20, 220, 8)  # of the pictures, one each 40 ms


def _write(path, *, start=0, times=None, **how):
  """Write the pictures from `start` on, milliseconds."""
  times = range(0, 1000, 40) if times is None else times
  return videos.write(
    path, videos.gray(_GRAY[: len(times)]), fps=25,
    times=[start + time for time in times], **how,
  )  # fmt: skip


def _shown(path, fps=25):
  """Return the gray values on a grid of time."""
  frames = decode.read_frames(path, fps=fps, size=(48, 32))
  return np.array([frame.mean() for frame in frames])


def _assert_whole(path, *, first, grays=_GRAY):
  header = decode.read_header(path)
  assert header.duration == pytest.approx(0.04 * len(grays), abs=1e-3)
  assert header.first_picture == pytest.approx(first, abs=2e-3)
  for fps in (25, 100):  # each picture stands for four on the fine grid
    found = _shown(path, fps)
    np.testing.assert_allclose(found, np.repeat(grays, fps // 25), atol=4)


@pytest.mark.parametrize(
  ('suffix', 'start', 'first', 'how'),
  [
    ('mp4', 0, 0, {}),
    ('mp4', 1000, 1, {}),  # an empty edit
    ('mp4', 0, 0.08, {'options': {'use_editlist': '0'}}),  # as B-frames delay
    ('mp4', 0, 0.08, {'options': _FRAGMENTS}),
    ('mov', 1000, 1, {}),
    ('mkv', 2000, 2, {}),
    ('webm', 2000, 2, {'codec': 'libvpx'}),
    # Nothing that browsers play: as players count, from the container's start.
    ('ts', 3000, 0, {}),
    ('mpg', 3000, 0, {'codec': 'mpeg2video'}),
    ('flv', 2000, 0, {}),
    ('avi', 0, 0, {}),  # whose frames have no times
    ('avi', 0, 0, {'codec': 'mpeg4'}),
  ],
)
def test_seconds_count_from_the_first_picture(
  tmp_path, suffix, start, first, how
):
  path = _write(tmp_path / f'a.{suffix}', start=start, **how)
  _assert_whole(path, first=first)


def test_a_picture_after_a_still(tmp_path):
  # With B-frames an mp4's header counts decoding time, far less than it lasts.
  path = _write(tmp_path / 'a.mp4', times=[*range(0, 960, 40), 4000])
  assert decode.read_header(path).duration == pytest.approx(4.04, abs=0.03)
  expected = np.repeat(_GRAY, [*[1] * 23, 77, 1])
  np.testing.assert_allclose(_shown(path), expected, atol=4)


@pytest.mark.parametrize('how', [
  {}, {'use_editlist': '0'}, {'movflags': 'frag_keyframe+empty_moov'},
])  # fmt: skip
@pytest.mark.parametrize('numbers', [
  [0, 1, 2, 52, 53, 54], [0, 1, 8, 128, 178, 179, 180],
])  # fmt: skip
def test_the_last_picture_is_no_still_that_was_before(tmp_path, how, numbers):
  # A packet of mp4 says when the next is decoded: here a still lies between.
  path = tmp_path / 'a.mp4'
  numbered_video.make(path, numbers=numbers, coder={'bf': '2'}, **how)
  count = numbers[-1] + 1
  length = decode.read_header(path).duration
  assert length == pytest.approx(count / 25, abs=1e-3)
  assert len(_shown(path)) == count


def test_times_that_are_guessed_go_on(tmp_path):
  # An MPEG program stream tells few times; FFmpeg's guesses step back.
  bars = np.tile(
    np.arange(0, 240, 5, dtype=np.uint8)[None, :, None], (32, 1, 3)
  )
  path = videos.write(
    tmp_path / 'a.mpg', [np.roll(bars, 3 * i, 1) for i in range(100)],
    codec='mpeg2video', encoder={'bf': '2', 'g': '5'},
  )  # fmt: skip
  with streams.open_video(path) as (container, stream):
    frames = list(decode.read_pictures(container, stream))
    times = [float(frame.pts * stream.time_base) for frame in frames]
  np.testing.assert_allclose(times, np.arange(100) / 25, atol=1e-3)


def _boxes(content):
  """Yield (kind, bytes) of an mp4's outermost boxes."""
  while content:
    size, kind = struct.unpack('>I4s', content[:8])
    yield kind, content[:size]
    content = content[size:]


def test_fragments_joined_late(tmp_path):
  path = _write(
    tmp_path / 'a.mp4', encoder={'g': '5', 'bf': '0'}, options=_FRAGMENTS
  )
  boxes = list(_boxes(path.read_bytes()))
  at = [i for i, (kind, _) in enumerate(boxes) if kind == b'moof'][2]
  head = [box for kind, box in boxes if kind in (b'ftyp', b'moov')]
  path.write_bytes(b''.join([*head, *(box for _, box in boxes[at:])]))
  _assert_whole(path, first=0.4, grays=_GRAY[10:])


def test_a_stream_cut_inside_a_gop(tmp_path):
  path = _write(tmp_path / 'a.ts', encoder={'g': '10'})
  content = path.read_bytes()
  with av.open(str(path)) as container:
    at = [p.pos for p in container.demux(video=0) if p.is_keyframe][1]
  path.write_bytes(content[at // 2 // 188 * 188 :])
  header = decode.read_header(path)
  assert header.duration == pytest.approx(0.6, abs=0.01)
  assert header.first_picture > 0.1  # what came before cannot be decoded
  np.testing.assert_allclose(_shown(path), _GRAY[10:], atol=4)


def test_streams_joined_of_several_are_refused(tmp_path):
  path = _write(tmp_path / 'a.ts')
  path.write_bytes(2 * path.read_bytes())  # as `cat a.ts b.ts`
  with pytest.raises(
    errors.InputError, match=r'jump back from 1\.00 to 0\.00 s'
  ):
    _shown(path)


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv'])
def test_a_still_among_b_frames_is_no_jump_back(tmp_path, name):
  # A screen recording: libx264's B-frames come with each other's durations.
  times = [*range(0, 440, 40), *range(2400, 2840, 40)]
  path = _write(tmp_path / name, times=times, encoder={'bf': '2', 'g': '50'})
  frames = list(decode.read_frames(path, fps=25, size=(64,)))
  found = [frame.mean() for frame in frames]
  assert len(found) == 71
  np.testing.assert_allclose(found[30], _GRAY[10], atol=4)  # in the still
  np.testing.assert_allclose(found[60:], _GRAY[11:22], atol=4)


def test_pictures_before_all_time_are_not_shown(tmp_path):
  # As `ffmpeg -ss 0.5 -i … -c copy -avoid_negative_ts disabled` leaves them.
  path = _write(
    tmp_path / 'a.mkv', start=-200, encoder={'g': '10', 'bf': '0'},
    options={'avoid_negative_ts': 'disabled'},
  )  # fmt: skip
  _assert_whole(path, first=0.2, grays=_GRAY[10:])


@pytest.mark.parametrize('suffix', ['mp4', 'mkv'])
def test_of_two_streams_the_one_that_browsers_show(tmp_path, suffix, capsys):
  path = tmp_path / f'a.{suffix}'
  on, off = av.stream.Disposition.default, av.stream.Disposition(0)
  with av.open(str(path), 'w') as container:
    streams = [container.add_stream('libx264', rate=25) for _ in range(2)]
    for stream, disposition in zip(streams, (off, on), strict=True):
      stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
      stream.disposition = disposition
    for stream, gray in zip(streams, (50, 200), strict=True):
      for pixels in videos.gray([gray] * 10):
        frame = av.VideoFrame.from_ndarray(pixels, 'rgb24')
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
  expected, number = {'mp4': (200, 1), 'mkv': (50, 0)}[suffix]
  np.testing.assert_allclose(_shown(path), expected, atol=4)
  told = capsys.readouterr().err
  assert told == (
    f'{path}: 2 video streams in it, the one that browsers show is used, '
    f'stream {number}\n'
  )


# What Chromium shows of Red Green / Blue White, by a, b, c, d of the matrix.
_MATRICES = {
  (1, 0, 0, 1): 'RGBW',
  (0, 1, -1, 0): 'BRWG',
  (-1, 0, 0, -1): 'WBGR',
  (0, -1, 1, 0): 'GWRB',
  (-1, 0, 0, 1): 'GRWB',
  (1, 0, 0, -1): 'BWRG',
  (0, 1, 1, 0): 'RBGW',
  (0, -1, -1, 0): 'WGBR',
  (0.7071, 0.7071, -0.7071, 0.7071): 'RGBW',
  (0.5, 0.866, -0.866, 0.5): 'RGBW',
  (0, 0, 0, 0): 'RGBW',
}
_COLOURS = {
  'R': (220, 0, 0), 'G': (0, 220, 0), 'B': (0, 0, 220), 'W': (230, 230, 230),
}  # fmt: skip


@pytest.mark.parametrize(('matrix', 'expected'), _MATRICES.items())
def test_display_matrices_as_a_browser_shows_them(tmp_path, matrix, expected):
  quarter = [np.full((32, 48, 3), _COLOURS[name]) for name in 'RGBW']
  picture = np.concatenate(
    [np.concatenate(quarter[:2], axis=1), np.concatenate(quarter[2:], axis=1)]
  ).astype(np.uint8)
  path = videos.write(tmp_path / 'a.mp4', [picture] * 3)
  numbered_video.turn(path, *matrix)
  a, b, _, d = matrix
  is_turned = abs(a) < abs(b) and min(abs(a), abs(d)) == 0
  size = (64, 96) if is_turned else (96, 64)
  frame = next(decode.read_frames(path, fps=25, size=size))
  assert frame.shape == (size[1], size[0], 3)
  corners = frame[[[9], [-9]], [9, -9]].reshape(-1, 3)
  nearest = [
    min(_COLOURS, key=lambda k: np.abs(corner - _COLOURS[k]).sum())
    for corner in corners.astype(int)
  ]
  assert ''.join(nearest) == expected


def test_a_strip_shows_the_middles_of_its_parts(tmp_path):
  # Two frames a second; the gray value is the second.
  pictures = videos.gray(np.arange(200) // 2 * 2, (64, 36))
  path = videos.write(tmp_path / 'a.mp4', pictures, fps=2)
  found = [frame.mean() / 2 for frame in decode.read_strip(path, 10, 36)]
  np.testing.assert_allclose(found, np.arange(5, 100, 10), atol=1)


def test_a_header_right_to_a_frame_is_taken_at_its_word(tmp_path):
  # FFmpeg guesses how long the last frame lasts; YouTube's mp4 say very short.
  path = _write(tmp_path / 'a.mp4')
  content = bytearray(path.read_bytes())
  at = content.index(b'mdhd') + 16
  scale, length = struct.unpack('>II', content[at : at + 8])
  content[at + 4 : at + 8] = struct.pack('>I', length - scale // 40)
  path.write_bytes(content)
  assert decode.read_header(path).duration == pytest.approx(0.975, abs=1e-3)


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'ts', 'avi', 'mpg'])
def test_a_long_file_is_read_near_its_end_only(tmp_path, suffix):
  codec = {'mpg': 'mpeg2video', 'avi': 'mpeg4'}.get(suffix, 'libx264')
  fps = 25 if suffix == 'mpg' else 5
  path = videos.write(
    tmp_path / f'a.{suffix}', videos.gray([9] * fps * 70, (32, 32)), fps=fps,
    codec=codec,
  )  # fmt: skip
  near, all_of_it = (decode._measure(path, whole=w) for w in (False, True))
  assert near == all_of_it
  assert near[0].duration == pytest.approx(70, abs=0.01)


def test_a_long_file_that_is_truncated(tmp_path):
  path = videos.write(
    tmp_path / 'a.mp4', videos.noise(350, (32, 32)), fps=5,
    options={'movflags': 'faststart'},
  )  # fmt: skip
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  with pytest.raises(errors.InputError, match=r'expected 70\.00 s'):
    decode.read_header(path)


def test_a_grid_far_coarser_than_the_video_is_no_truncation(tmp_path):
  path = _write(tmp_path / 'a.mp4')
  assert len(_shown(path, 0.6)) == 1
