"""Copies for the browser: as they are shown, and only where one is needed."""

import fractions
import os
from concurrent import futures

import numbered_video
import numpy as np
import pytest
from etils import epath

av = pytest.importorskip('av', reason='needs av, of the extra video')

from backtal_jax.annotate import copies, videos  # noqa: E402
from backtal_jax.video import decode  # noqa: E402

# See numbered_video.turn, and how NumPy turns the picture so.
MATRICES = {
  'plain': ((1, 0, 0, 1), lambda p: p),
  'right': ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
  'around': ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
  'left': ((0, -1, 1, 0), np.rot90),
  'mirrored': ((-1, 0, 0, 1), np.fliplr),
  'upside down': ((1, 0, 0, -1), np.flipud),
  'transposed': ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
  'mirrored, left': ((0, -1, -1, 0), lambda p: np.rot90(p, 2).swapaxes(0, 1)),
}


def read(path):
  with av.open(str(path)) as container:
    return [
      (frame.time, frame.to_ndarray(format='rgb24'))
      for frame in container.decode(video=0)
    ]


@pytest.mark.parametrize('name', MATRICES)
def test_copy_is_turned_as_players_do(tmp_path, name):
  matrix, turn = MATRICES[name]
  old, new = tmp_path / 'old.mp4', epath.Path(tmp_path / 'new.mp4')
  numbered_video.make(old, num_frames=3)
  ((_, picture), *_) = read(old)
  numbered_video.turn(old, *matrix)
  copies.make(epath.Path(old), new)
  with av.open(str(new)) as container:
    frame = next(container.decode(video=0))
    assert not frame.rotation
  shown = frame.to_ndarray(format='rgb24').astype(int)
  assert np.abs(shown - turn(picture)).mean() < 4


def test_copy_keeps_the_shape_of_its_pixels_and_its_times(tmp_path):
  old, new = tmp_path / 'dv.avi', epath.Path(tmp_path / 'new.mp4')
  numbered_video.make(old, num_frames=4, coder={'aspect': '16:15'})
  copies.make(epath.Path(old), new)
  with av.open(str(new)) as container:
    (stream,) = container.streams.video
    assert stream.sample_aspect_ratio == fractions.Fraction(16, 15)
  late, stills = tmp_path / 'late.mkv', [0, 1, 30, 31]
  numbered_video.make(late, numbers=stills, output_ts_offset='2')
  copies.make(epath.Path(late), new)
  times = [time for time, _ in read(new)]
  assert times == pytest.approx(np.array(stills) / 25, abs=1e-3)


@pytest.mark.parametrize('stills', [[0, 100], [0, 1, 2, 52, 53, 54], [0]])
def test_copy_is_as_long_as_the_pictures(tmp_path, stills):
  """Not longer by what a frame lasts on average."""
  old, new = tmp_path / 'old.mp4', epath.Path(tmp_path / 'new.mp4')
  numbered_video.make(old, numbers=stills)
  copies.make(epath.Path(old), new)
  length = decode.read_header(new).duration
  assert length == pytest.approx((stills[-1] + 1) / 25, abs=1e-3)


def test_copy_of_times_that_repeat(tmp_path):
  old, new = tmp_path / 'old.mkv', epath.Path(tmp_path / 'new.mp4')
  coder = {'bf': '0'}
  numbered_video.make(old, numbers=[0, 1, 2, 2, 3, 4], coder=coder)
  copies.make(epath.Path(old), new)
  times = [time for time, _ in read(new)]
  expected = np.array([0, 1, 2, 2, 3, 4]) / 25
  assert times == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
  'name, coder, is_playable',
  [
    ('closed.mp4', {'x264-params': 'keyint=10:bframes=3'}, True),
    ('open.mp4', {'x264-params': 'open-gop=1:keyint=10:bframes=3'}, False),
    ('vp8.webm', {}, True),
    ('old.avi', {}, False),
  ],
)
def test_what_browsers_play(tmp_path, name, coder, is_playable):
  path = epath.Path(tmp_path / name)
  numbered_video.make(path, num_frames=40, coder=coder)
  assert copies.plays(path) == is_playable
  copies.make(path, tmp_path / 'copy.mp4')
  assert copies.plays(tmp_path / 'copy.mp4')


def test_av1_is_played_whatever_decodes_it_here(tmp_path, monkeypatch):
  monkeypatch.setitem(numbered_video.CODECS, '.mp4', 'libsvtav1')
  # It gives root's thread, and what that starts later, a browser say, real-time
  # priority: findings/svtav1_real_time.sh.
  with futures.ThreadPoolExecutor(1) as pool:
    make = pool.submit(numbered_video.make, tmp_path / 'a.mp4', num_frames=3)
    make.result()
  if hasattr(os, 'sched_getscheduler'):
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
  assert copies.plays(epath.Path(tmp_path / 'a.mp4'))


def test_length_is_that_of_the_pictures(tmp_path):
  numbered_video.make(
    tmp_path / 'late.mkv', num_frames=50, output_ts_offset='3'
  )
  (tmp_path / 'bad.mp4').write_bytes(b'no video')
  folder = videos.Folder(epath.Path(tmp_path))
  assert folder.measure('late') == pytest.approx(2)
  assert folder.measure('bad') is None and folder.measure('none') is None
