"""Video files of all kinds to frames, right and wrong ones."""

import itertools
import sys

import numpy as np
import pytest
import videos

from backtal_jax import errors
from backtal_jax.video import decode, streams

av = pytest.importorskip('av', reason='needs the extra video: av')


def _read(path, fps=25, size=(48, 32)):
  return np.stack(list(decode.read_frames(path, fps=fps, size=size)))


def _values(frames):
  return frames.mean(axis=(1, 2, 3))


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'mov', 'avi'])
def test_every_frame_at_its_own_rate(tmp_path, suffix):
  gray = np.arange(20, 220, 5)
  path = videos.write(tmp_path / f'a.{suffix}', videos.gray(gray), fps=25)
  frames = _read(path, fps=None)
  assert frames.shape == (40, 32, 48, 3) and frames.dtype == np.uint8
  np.testing.assert_allclose(_values(frames), gray, atol=3)
  header = decode.read_header(path)
  assert header.fps == 25 and abs(header.duration - 1.6) < 0.05


@pytest.mark.parametrize(
  ('fps', 'count'), [(10, 20), (25, 50), (30, 60), (50, 100)]
)
def test_grid_is_in_presentation_time(tmp_path, fps, count):
  # The gray value is the time, 100 a second.
  gray = [round(100 * i / 30) for i in range(60)]
  path = videos.write(tmp_path / 'a.mp4', videos.gray(gray), fps=30)
  found = _values(_read(path, fps=fps))
  assert len(found) == count
  np.testing.assert_allclose(found, np.arange(count) * 100 / fps, atol=4)


def test_variable_frame_rate(tmp_path):
  # Ten frames a second, then forty.
  times = [*range(0, 1000, 100), *range(1000, 2000, 25)]
  gray = [t / 10 for t in times]
  path = videos.write(
    tmp_path / 'a.mkv', videos.gray(gray), fps=1000, times=times
  )
  found = _values(_read(path, fps=20))
  assert len(found) == 40
  # A frame stands until the next one, or is the nearest of the many.
  expected = [np.interp(i * 50, times, gray) for i in range(40)]
  np.testing.assert_allclose(found, expected, atol=8)
  np.testing.assert_allclose(found[20:], expected[20:], atol=4)


def test_ten_bits_and_odd_sizes(tmp_path):
  rows = np.linspace(16, 235, 63).astype(np.uint8)
  picture = np.broadcast_to(rows[:, None, None], (63, 97, 3))
  path = videos.write(
    tmp_path / 'a.mp4', [picture] * 5, pixels='yuv444p10le',
  )  # fmt: skip
  frames = _read(path, size=(126,))
  assert frames.shape == (5, 126, 194, 3)
  expected = np.interp(np.arange(126), np.arange(63) * 2 + 0.5, rows)
  np.testing.assert_allclose(frames.mean(axis=(0, 2, 3)), expected, atol=4)


def test_short_side(tmp_path):
  path = videos.write(tmp_path / 'a.mp4', videos.gray([9] * 3, (64, 96)))
  assert _read(path, size=(48,)).shape == (3, 72, 48, 3)


def test_is_read_frame_by_frame(tmp_path):
  path = videos.write(tmp_path / 'a.mp4', videos.gray(range(200)))
  frames = decode.read_frames(path, fps=25, size=(48, 32))
  assert len(list(itertools.islice(frames, 3))) == 3
  frames.close()


def _refused(path):
  with pytest.raises(errors.InputError) as e:
    _read(path)
  message = str(e.value)
  assert message.startswith(f'{path}: ') and '\n' not in message
  return message


def test_no_video(tmp_path):
  path = tmp_path / 'text.mp4'
  path.write_text('dear diary,\n' * 500)
  assert 'no whole video file' in _refused(path)
  path.write_bytes(b'')
  assert 'no whole video file' in _refused(path)
  assert 'only audio' in _refused(videos.write_audio(tmp_path / 'a.mp4'))
  assert 'No such file' in _refused(tmp_path / 'absent.mp4')


def test_zero_frames(tmp_path):
  path = tmp_path / 'empty.mp4'
  with av.open(
    str(path), 'w', options={'movflags': 'frag_keyframe+empty_moov'}
  ) as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
    container.start_encoding()
  assert 'no frames in it' in _refused(path)


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'ts'])
def test_truncated(tmp_path, suffix):
  options = {'movflags': 'faststart'} if suffix == 'mp4' else {}
  path = tmp_path / f'a.{suffix}'
  codec = 'mpeg4' if suffix == 'ts' else 'libx264'
  videos.write(path, videos.noise(100), codec=codec, options=options)
  _read(path)
  content = path.read_bytes()
  path.write_bytes(content[: int(0.6 * len(content))])
  if suffix == 'ts':  # has no header that would know
    assert 50 < len(_read(path)) < 70
  else:
    assert 'truncated' in _refused(path)


def test_without_its_index(tmp_path):
  path = videos.write(tmp_path / 'a.mp4', videos.noise(50))
  path.write_bytes(path.read_bytes()[:-2000])
  assert 'no whole video file' in _refused(path)


def test_damaged_inside(tmp_path):
  path = videos.write(tmp_path / 'a.mp4', videos.noise(100), codec='mpeg4')
  content = bytearray(path.read_bytes())
  middle = len(content) // 2
  content[middle : middle + 20000] = bytes(20000)
  path.write_bytes(content)
  try:  # what FFmpeg can conceal is used
    assert len(_read(path)) == 100
  except errors.InputError as e:
    assert str(e).startswith(f'{path}: ')


def test_unknown_codec(tmp_path):
  path = videos.write(tmp_path / 'a.mp4', videos.gray([9] * 5))
  path.write_bytes(path.read_bytes().replace(b'avc1', b'zzz1'))
  assert 'nothing here decodes its video codec' in _refused(path)


def test_finds_videos(tmp_path, capsys):
  for name in ('b.MTS', 'a.webm', 'notes.txt', 'c.mp4.part', '.hidden.mp4'):
    (tmp_path / name).touch()
  found = [path.name for path in streams.find(tmp_path)]
  assert found == ['a.webm', 'b.MTS']
  assert capsys.readouterr().err == (
    f'{tmp_path}: left out, not named as videos: c.mp4.part, notes.txt\n'
  )
  (tmp_path / 'a.avi').touch()
  with pytest.raises(errors.InputError, match=r"a.webm: a.avi is video 'a'"):
    streams.find(tmp_path)
  (tmp_path / 'empty').mkdir()
  with pytest.raises(errors.InputError, match='empty: no video'):
    streams.find(tmp_path / 'empty')
  with pytest.raises(errors.InputError, match='absent: no such file'):
    streams.find(tmp_path / 'absent')


def test_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'av', None)
  with pytest.raises(errors.InputError, match=r"'backtal-jax\[video\]'"):
    _read(tmp_path / 'a.mp4')
