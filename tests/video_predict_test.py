"""Videos to segments: a model knows its features."""

import json
import runpy

import jax
import numpy as np
import pytest
import videos

from backtal_jax import errors, fields, models, predict
from backtal_jax.data import feature_records
from backtal_jax.prepare import check, custom, options, run_config
from backtal_jax.report import figures
from backtal_jax.run import sharding
from backtal_jax.video import decode, encoder, extract, reader, streams, weights
from configs import demo as demo_config

pytest.importorskip('av', reason='needs the extra video: av')

_SHAPE = 20, 1024


@pytest.fixture
def fake(tmp_path, monkeypatch):
  return videos.fake_i3d(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path):
  """Make four videos of 2 to 5 s that get brighter."""
  folder = tmp_path / 'videos'
  folder.mkdir()
  for i, count in enumerate((50, 75, 100, 125)):
    gray = np.linspace(20, 220, count)
    videos.write(folder / f'v_{i}.mp4', videos.gray(gray))
  return folder


def _extract(folder, output, rgb, **grid):
  protocol, paths = encoder.plan(rgb=rgb, **grid)
  extract.extract(folder, output, protocol, paths)
  return protocol.record()


def _model(record, rgb='', preset=''):
  """Return a network of drawn parameters that finds something everywhere."""
  network = models.BackTAL(
    num_classes=2, feature_dim=_SHAPE[1], hidden_dim=8, reduce_dim=4,
    embedding_dim=4, affinity='official', topk_ratio=0.2, dropout_rate=0.0,
    dtype='float32',
  )  # fmt: skip
  mesh = sharding.make_mesh((2,))
  params = models.init(network, jax.random.key(0))
  options = demo_config.get_config().localization.to_dict()
  return predict.Model(
    network,
    sharding.replicate(params, mesh),
    mesh,
    _SHAPE,
    ('slide', 'drop'),
    -1,
    options | {'class_threshold': 0.0},
    2,
    reader.Reader(record, _SHAPE, mesh, rgb=str(rgb), preset=preset),
  )


def test_a_video_is_its_features(tmp_path, fake, folder):
  record = _extract(folder, tmp_path / 'features', fake, stride=4)
  model = _model(record, fake)
  for path in streams.find(folder):
    array = tmp_path / 'features' / f'{path.stem}.npy'
    ours, theirs = model.read(path), model.read(array)
    assert ours.name == path.stem and ours.frame_num == theirs.frame_num
    np.testing.assert_array_equal(ours.feature, theirs.feature)
    segments = model.predict(path)
    assert segments and segments == model.predict(str(array))
    assert max(s['segment'][1] for s in segments) <= ours.duration


def test_features_lie_where_they_were_seen(tmp_path, fake, folder):
  record = _extract(folder, tmp_path / 'features', fake, stride=4)
  found = _model(record).read(tmp_path / 'features' / 'v_3.npy')
  # Brightness is time; in the middle the mean of a window is its centre's.
  times = (np.arange(20) + 0.5) / 20 * 5
  expected = (20 + 200 * times / 5) * 2 / 255 - 1
  np.testing.assert_allclose(found.feature[2:-2, 0], expected[2:-2], atol=0.03)


def test_refuses_other_features(tmp_path, fake, folder):
  record = _extract(folder, tmp_path / 'features', fake)
  other = tmp_path / 'other.ckpt'
  other.write_bytes(b'other weights')
  ours, theirs = (weights.checksum(p)[:12] for p in (other, fake))
  expected = f'rgb is other.ckpt ({ours}…), expected rgb.ckpt ({theirs}…)'
  with pytest.raises(errors.InputError) as e:
    _model(record, other).read(folder / 'v_1.mp4')
  assert expected in str(e.value)
  _extract(folder, tmp_path / 'others', other, stride=8)
  with pytest.raises(errors.InputError) as e:
    _model(record).read(tmp_path / 'others' / 'v_1.npy')
  assert f'{expected}; stride is 8, expected 16' in str(e.value)
  with pytest.raises(errors.InputError, match='preset is thumos14, expected'):
    _model(record, fake, 'thumos14').read(folder / 'v_1.mp4')


def test_a_model_that_does_not_know(fake, folder):
  with pytest.raises(errors.InputError, match='--rgb and --flow, weights of'):
    _model({}).read(folder / 'v_1.mp4')
  with pytest.raises(errors.InputError, match='--preset'):
    _model({}, fake).read(folder / 'v_1.mp4')
  assert _model({}, fake, 'wtal').predict(folder / 'v_1.mp4')


def test_a_folder_of_both(folder):
  assert len(reader.find(folder)) == 4
  (folder / 'v_1.npy').touch()
  with pytest.raises(errors.InputError, match='holds videos and features'):
    reader.find(folder)


@pytest.fixture
def truth(tmp_path):
  """Write the ground truth of the four videos, as long as their sound."""
  path = tmp_path / 'truth.json'
  database = {
    f'v_{i}': {
      'subset': 'training' if i < 2 else 'validation', 'duration': 7.0,
      'annotations': [{'label': 'drop', 'segment': [0.5, 1.5]}],
    }
    for i in range(4)
  }  # fmt: skip
  path.write_text(json.dumps({'database': database}))
  return str(path)


def _prepare(folder, truth, output='root', **more):
  """Make a data root of the features in a folder; return where it is."""
  features = (str(folder / 'features'),)
  recipe = options.Recipe(
    output=str(folder / output), features=features, ground_truth=truth, **more
  )
  custom.prepare(recipe)
  return folder / output


def test_prepare_takes_the_grid(tmp_path, fake, folder, truth):
  record = _extract(folder, tmp_path / 'features', fake, stride=4)
  root = _prepare(tmp_path, truth, num_snippets=20)
  assert feature_records.read(root) == record
  with np.load(root / 'validation' / 'v_3.npz') as arrays:
    assert (arrays['fps'], arrays['frame_num']) == (25, 125)
    np.testing.assert_allclose(arrays['duration'], 5, atol=0.01)
    read = _model(record).read(tmp_path / 'features' / 'v_3.npy')
    np.testing.assert_array_equal(arrays['feat_spa'].T, read.feature)
  with pytest.raises(errors.InputError, match='--stride is 8, but .* says 4'):
    _prepare(tmp_path, truth, 'other', stride=8.0)
  config = run_config.read(str(root / 'config.py'))
  check.draw(root, config, 'v_3', tmp_path / 'v_3.png', folder)
  assert (tmp_path / 'v_3.png').read_bytes().startswith(b'\x89PNG')


def test_a_config_knows_its_features(tmp_path, fake, folder, truth):
  record = _extract(folder, tmp_path / 'features', fake)
  root = _prepare(tmp_path, truth)
  config = runpy.run_path(root / 'config.py')['get_config']()
  text = json.loads(config.to_json())['data']['features']
  assert json.loads(text) == record
  fields.check(config)
  assert feature_records.adopt(config.data.features, root) == text
  assert feature_records.of_run(text, None) == record
  assert feature_records.of_run('', None) == {}
  assert feature_records.adopt('', root) == text
  assert feature_records.adopt('', tmp_path) == ''
  # A run of other features than the config's.
  changed = {**record, 'stride': 4}
  run = {name: {} for name in ('model', 'data', 'localization', 'eval')}
  run['data']['features'] = json.dumps(changed)
  for found, match in (
    (run, 'stride is 16, expected 4'),
    # Nor one that is none, beside --config.
    ({'dat': {}}, 'config.json: holds no config'),
    ([], 'config.json: holds no config'),
    (run | {'data': {'features': 3}}, 'data.features is 3, expected the JSON'),
  ):
    (tmp_path / 'config.json').write_text(json.dumps(found))
    with pytest.raises(errors.InputError, match=match):
      feature_records.of_run(text, tmp_path)


_FLOW = {'file': 'b', 'sha256': '2'}


@pytest.mark.parametrize(
  'found, problem',
  [
    ({'flow': 'tvl1'}, None),  # as old records have it
    ({'flow': 'tvl1', 'flow_by': 'OpenCV 4.12.0'}, None),
    (
      {'flow': 'tvl1 of OpenCV 5', 'flow_by': 'OpenCV 5.0.0'},
      'flow_method is tvl1 of OpenCV 5, expected tvl1',
    ),
    ({'flow': 'dis'}, 'flow_method is dis, expected tvl1'),
  ],
)
def test_flow_is_comparable_by_its_values(found, problem):
  record = {'weights': {'flow': _FLOW}, 'flow': 'tvl1', 'flow_by': 'ours 1'}
  try:
    feature_records.require(record, {'weights': {'flow': _FLOW}, **found}, 'F')
  except errors.InputError as e:
    assert str(e) == f'F: features made otherwise: {problem}'
  else:
    assert problem is None


def test_two_streams_from_two_folders(tmp_path):
  common = {'encoder': 'I3D', 'preset': 'wtal', 'stride': 16, 'window': 16}
  rgb = {'file': 'a', 'sha256': '1'}
  made = {'flow': 'tvl1', 'flow_by': 'OpenCV 4.12.0'}
  records = [
    {**common, 'weights': {'rgb': rgb}, 'flow': None},
    {**common, 'weights': {'flow': _FLOW}, **made},
  ]
  for name, record in zip('ab', records, strict=True):
    feature_records.claim(tmp_path / name, record)
  assert feature_records.read_joint((tmp_path / 'a', tmp_path / 'b')) == {
    **common, 'weights': {'rgb': rgb, 'flow': _FLOW}, **made,
  }  # fmt: skip
  with pytest.raises(errors.InputError, match='no features.json, expected'):
    feature_records.read_joint((tmp_path / 'a', tmp_path / 'c'))


def test_a_strip_of_pictures(folder):
  strip = decode.read_strip(folder / 'v_3.mp4', count=8, height=36)
  assert len(strip) == 8 and strip[0].shape == (36, 54, 3)
  figure = figures.timeline('v_3', 5.0, magnitude=np.ones(9), strip=strip)
  extents = [image.get_extent() for image in figure.axes[0].images]
  np.testing.assert_allclose([e[:2] for e in extents], [
    [i * 5 / 8, (i + 1) * 5 / 8] for i in range(8)
  ])  # fmt: skip
