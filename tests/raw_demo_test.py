"""Made raw features: what extractors give, in numbers, and what they show."""

import re
import shlex

import numpy as np
import pytest
from etils import epath

from backtal_jax.data import annotations, raw_demo
from backtal_jax.prepare import __main__ as commands

_SHAPE = raw_demo.Shape(2, 200, 40, (2.0, 4.0))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  folder = epath.Path(tmp_path_factory.mktemp('raw'))
  raw_demo.prepare(folder, _SHAPE)
  truth = annotations.read_ground_truth(folder / 'annotations.json')
  features = {
    name: np.load(folder / 'features' / f'{name}.npy') for name in truth.videos
  }
  return folder, truth, features


def test_statistics_are_those_of_real_features(made):
  _, _, features = made
  x = np.concatenate([*features.values()])
  assert x.dtype == np.float32 and x.min() == 0
  assert 0.1 < x.mean() < 0.4
  assert 2 < x.max() < 5
  assert 0.01 < (x == 0).mean() < 0.05
  common = np.square(x.mean(axis=0)).sum() / np.square(x).sum(axis=1).mean()
  assert 0.75 < common < 0.9


def test_windows_overlap_and_cover_the_video(made):
  _, truth, features = made
  assert len(truth.videos) == 40
  for name, video in truth.videos.items():
    end = (len(features[name]) - 1) * 4 + 16  # frames
    assert 0 <= video.duration * 25 - end < 4
    assert 2 <= video.duration <= 4


def test_a_window_sees_its_share_of_an_action():
  # Windows of 0.64 s begin at 0, 0.16, 0.32 and 0.48 s.
  shares = raw_demo._shares(1.12, [(0.32, 0.48)])
  np.testing.assert_allclose(shares, [0.25, 0.25, 0.25, 0])
  shares = raw_demo._shares(1.12, [(0, 0.08), (0.56, 2)])
  np.testing.assert_allclose(shares, [0.25, 0.375, 0.625, 0.875])


def test_clicks_are_in_the_gaps_of_training_videos(made):
  folder, truth, _ = made
  clicks, _ = annotations.read_clicks(folder / 'clicks.csv')
  subsets = {truth.videos[click.video].subset for click in clicks}
  assert subsets == {'training'}
  for click in clicks:
    video = truth.videos[click.video]
    assert 0 <= click.time <= video.duration
    assert not any(s.start < click.time < s.end for s in video.segments)


def test_the_seed_decides(tmp_path, made):
  raw_demo.prepare(epath.Path(tmp_path), _SHAPE._replace(videos=4), 1)
  x = np.load(tmp_path / 'features' / 'video_0000.npy')
  assert not np.array_equal(x[:5], made[2]['video_0000'][:5])


@pytest.mark.parametrize(
  'options, message',
  [
    (['--videos', '9'], '--videos means nothing to --kind classic'),
    (['--kind', 'raw', '--seconds', '4', '2'], '--seconds is 4 2, expected'),
    (['--kind', 'raw', '--videos', '2'], '2, expected 4 or more'),
  ],
)
def test_what_is_wrong_is_told(tmp_path, options, message):
  with pytest.raises(SystemExit, match=re.escape(message)):
    commands.main(['demo', '--output', str(tmp_path / 'o'), *options])
  assert not (tmp_path / 'o').exists()


def test_the_command_tells_the_next_one(tmp_path, capsys):
  folder = tmp_path / 'raw features'
  shape = ['--videos', '8', '--channels', '6', '--classes', '3']
  commands.main(['demo', '--kind', 'raw', '--output', str(folder), *shape])
  line = capsys.readouterr().out
  assert line.startswith('python -m backtal_jax.prepare custom ')
  commands.main(shlex.split(line)[3:])
  assert len(list((folder / 'root' / 'training').glob('*.npz'))) == 6
