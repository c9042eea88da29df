"""Reading npz videos: what is whole is read, what is wrong is named."""

import numpy as np
import pytest

from backtal_jax import IGNORED, errors
from backtal_jax.data import npz, sources


def _arrays(**changes):
  rng = np.random.default_rng(0)
  arrays = {
    'feat_spa': rng.normal(size=(2, 7)).astype(np.float32),
    'feat_tem': rng.normal(size=(3, 7)).astype(np.float32),
    'cls_label': np.array([0, 1, 0], np.float32),
    'vid_name': np.array('a'),
    'frame_num': np.array(70),
    'fps': np.array(10.0),
    'duration': np.array(7.0),
    'point_label': np.array([3, IGNORED, 0, 1, 2, IGNORED, 3]),
  }
  arrays.update(changes)
  return {k: v for k, v in arrays.items() if v is not None}


def _source(folder):
  return sources.NpzSource(folder, (7, 5, 3))


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('order, dtype', [('C', 'f4'), ('F', 'f8')])
def test_streams_are_joined_channels_last(tmp_path, save, order, dtype):
  arrays = _arrays()
  spa = np.asarray(arrays['feat_spa'], dtype, order=order)
  save(tmp_path / 'a.npz', **arrays | {'feat_spa': spa})
  source = _source(tmp_path)
  video = source[0]
  joined = np.concatenate([arrays['feat_spa'], arrays['feat_tem']]).T
  assert video.feature.dtype == np.float32
  np.testing.assert_array_equal(video.feature, joined)
  np.testing.assert_array_equal(video.label, arrays['cls_label'])
  np.testing.assert_array_equal(video.click, arrays['point_label'])
  assert (video.name, video.frame_num, video.fps) == ('a', 70, 10.0)
  assert video.duration == 7.0
  np.testing.assert_array_equal(source.labels(), [arrays['cls_label']])
  assert source.video_names() == ['a']


def test_what_is_written_is_read_back(tmp_path):
  arrays = _arrays()
  sources.write_video(tmp_path / 'sub' / 'a.npz', **arrays)
  video = _source(tmp_path / 'sub')[0]
  np.testing.assert_array_equal(video.click, arrays['point_label'])
  assert [p.name for p in (tmp_path / 'sub').iterdir()] == ['a.npz']


def test_videos_come_in_name_order_and_clicks_may_be_missing(tmp_path):
  for name in 'cab':
    np.savez(
      tmp_path / f'{name}.npz',
      **_arrays(vid_name=np.array(name), point_label=None),
    )
  (tmp_path / '.b.npz.123.tmp').write_bytes(b'left by a dead run')
  (tmp_path / 'readme.txt').write_text('not a video')
  source = _source(tmp_path)
  assert source.names == source.video_names() == ['a', 'b', 'c']
  assert (source[1].click == IGNORED).all()


def test_channels_are_measured_over_all_snippets_of_some_videos(tmp_path):
  rng, streams = np.random.default_rng(0), {}
  for name in 'abc':
    streams[name] = rng.normal(3, 2, size=(5, 7)).astype(np.float32)
    spa, tem = np.split(streams[name], [2])
    np.savez(
      tmp_path / f'{name}.npz',
      **_arrays(vid_name=np.array(name), feat_spa=spa, feat_tem=tem),
    )
  mean, deviation = sources.measure_channels(
    _source(tmp_path), np.array([0, 2])
  )
  both = np.concatenate([streams['a'], streams['c']], axis=1)
  np.testing.assert_allclose(mean, both.mean(axis=1), 1e-6)
  np.testing.assert_allclose(deviation, both.std(axis=1), 1e-6)


_BAD = {
  'missing key': (
    {'feat_tem': None}, 'no feat_tem in it; found cls_label, duration'),
  'NaN': (
    {'feat_spa': np.full((2, 7), np.nan)}, 'features hold 14 NaN or Inf'),
  'Inf': (
    {'feat_tem': np.full((3, 7), np.inf)}, 'features hold 21 NaN or Inf'),
  'channels': (
    {'feat_tem': np.zeros((4, 7))},
    'features have 6 channels, config.model.feature_dim is 5'),
  'snippets': (
    {'feat_tem': np.zeros((3, 8))},
    'feat_tem has 8 snippets, config.data.num_snippets is 7'),
  'dimensions': (
    {'feat_tem': np.zeros(3)}, r'feat_tem: features have shape'),
  'text features': ({'feat_tem': np.full((3, 7), 'x')}, 'expected numbers'),
  'label length': (
    {'cls_label': np.zeros(4)},
    r'shape \(4,\), config.model.num_classes is 3'),
  'label value': ({'cls_label': np.array([0, 2, 0])}, 'holds 2, expected'),
  'click value': (
    {'point_label': np.array([0, 0, 4, 0, 0, 0, 0])},
    'point_label holds 4 at snippet 2, expected -100 or 0…3'),
  'negative click': (
    {'point_label': np.array([0, 0, 0, 0, 0, 0, -1])},
    'point_label holds -1 at snippet 6'),
  'click length': ({'point_label': np.zeros(6, int)}, r'shape \(6,\)'),
  'pickled': (
    {'feat_spa': np.full((2, 7), None)}, 'not a whole .npz file: .*pickle'),
}  # fmt: skip


@pytest.mark.parametrize('changes, message', _BAD.values(), ids=_BAD)
def test_what_is_wrong_with_a_file_is_named(tmp_path, changes, message):
  np.savez(tmp_path / 'a.npz', **_arrays(**changes))
  source = _source(tmp_path)
  with pytest.raises(errors.InputError, match=message) as error:
    source[0]
  assert str(error.value).startswith(f'{tmp_path}/a.npz: ')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('keep', [0.0, 0.2, 0.5, 0.99, 'hello'])
def test_a_damaged_file_is_named(tmp_path, save, keep):
  save(tmp_path / 'a.npz', **_arrays())
  raw = (tmp_path / 'a.npz').read_bytes()
  damaged = b'hello' if keep == 'hello' else raw[: int(keep * len(raw))]
  (tmp_path / 'a.npz').write_bytes(damaged)
  with pytest.raises(errors.InputError, match='a.npz: not a whole .npz'):
    _source(tmp_path)[0]


@pytest.fixture
def waits(monkeypatch):
  """Record the waits between tries instead of waiting."""
  waited = []
  monkeypatch.setattr(npz.time, 'sleep', waited.append)
  return waited


def test_a_file_that_vanishes_is_named_after_some_tries(tmp_path, waits):
  np.savez(tmp_path / 'a.npz', **_arrays())
  source = _source(tmp_path)
  (tmp_path / 'a.npz').unlink()
  with pytest.raises(errors.InputError, match='a.npz: no such file .tried 4'):
    source[0]
  assert waits == sorted(waits) and len(waits) == 3


def test_a_read_that_fails_once_is_tried_again(tmp_path, waits, monkeypatch):
  np.savez(tmp_path / 'a.npz', **_arrays())
  failures = [OSError(5, 'Input/output error')]
  zip_file = npz.zipfile.ZipFile

  def flaky(*args):
    if failures:
      raise failures.pop()
    return zip_file(*args)

  monkeypatch.setattr(npz.zipfile, 'ZipFile', flaky)
  assert _source(tmp_path)[0].name == 'a'
  assert len(waits) == 1


def test_a_missing_and_an_empty_folder_are_named(tmp_path):
  with pytest.raises(errors.InputError, match='none: no such folder'):
    _source(tmp_path / 'none')
  with pytest.raises(errors.InputError, match=r'no \.npz file in it'):
    _source(tmp_path)
