"""What leaves home: equal to the run, to the official numbers, or refused."""

import json
import shutil
import sys
import types

import jax
import numpy as np
import pytest
import yaml
from flax import traverse_util
from golden import KINDS, Case, assert_same_segments
from train_test import tiny_config

import backtal_jax
from backtal_jax import errors, fields, files, loop, models, predict
from backtal_jax.data import feature_files
from backtal_jax.export import card, onnx_graph, write
from backtal_jax.run import checkpoints, model_folders
from backtal_jax.stages import quality

_CLASSES = ['dive', 'jump', 'throw', 'swing', 'a: b']


def _state(step, params):
  return loop.TrainState(np.array(step), params, {}, np.zeros(2))


@pytest.fixture(name='config', scope='module')
def _config(demo_root):
  return tiny_config(demo_root)


@pytest.fixture(name='run', scope='module')
def _run(config, tmp_path_factory):
  """Make a workdir as a training leaves it."""
  workdir = files.path(tmp_path_factory.mktemp('runs') / 'run')
  params = models.init(models.BackTAL(**config.model), jax.random.key(1))
  rng = np.random.default_rng(1)
  channels = models.standard(rng.normal(size=32), rng.uniform(0.5, 2, size=32))
  params['standard'] = {'channels': channels}
  with checkpoints.manager(workdir) as manager:
    checkpoints.save(manager, _state(7, params), epoch=3, value=0.5)
  plain = fields.plain(config)
  plain['data']['clicks'] = 'a/b.csv, ~/c.csv'
  files.write_json(workdir / 'config.json', plain)
  files.write_json(workdir / 'classes.json', _CLASSES)
  metrics = {'tiou': [0.5], 'mAP': [0.25], 'average_mAP': 0.25, 'epoch': 3}
  files.write_json(workdir / 'metrics.json', metrics)
  return workdir


@pytest.fixture(name='folder', scope='module')
def _folder(run):
  pytest.importorskip('safetensors', reason='needs the extra export')
  folder = run.parent / 'model'
  write.export(run, folder)
  return folder


@pytest.fixture(name='copy')
def _copy(folder, tmp_path):
  return files.path(shutil.copytree(folder, tmp_path / 'copy'))


def _features(count=90):
  return np.random.default_rng(2).normal(size=(count, 32)).astype(np.float32)


def _bytes(params):
  flat = traverse_util.flatten_dict(jax.device_get(params))
  return {name: tensor.tobytes() for name, tensor in flat.items()}


@pytest.mark.extra
def test_a_folder_is_read_as_the_run_is(run, folder):
  ours, theirs = predict.load(run), predict.load(folder)
  assert _bytes(ours.params) == _bytes(theirs.params)
  assert theirs.classes == tuple(_CLASSES) and theirs.epoch == 3
  assert theirs.localization == ours.localization
  segments = theirs.predict(_features(), duration=60)
  assert segments and segments == ours.predict(_features(), duration=60)
  # What a training begins with.
  begun = models.init(theirs.network, jax.random.key(5))
  no_run = types.SimpleNamespace(all_steps=lambda: [])
  begun = checkpoints.initial_state(no_run, _state(0, begun), folder)
  assert _bytes(begun.params) == _bytes(ours.params)


@pytest.mark.extra
def test_a_folder_names_no_home_and_has_a_card(run, folder):
  told = json.loads((folder / 'config.json').read_text())
  assert told['data']['root'] == 'demo'
  assert told['data']['clicks'] == 'b.csv,c.csv'
  _, head, body = (folder / 'README.md').read_text().split('---\n', 2)
  head = yaml.safe_load(head)
  (result,) = head['model-index'][0]['results']
  assert {'type': 'mAP', 'name': 'mAP@0.5', 'value': 0.25} in result['metrics']
  assert '| average mAP | 25.00 |' in body and 'a: b' in body
  # Of a run without an evaluation split none is made up.
  plain = json.loads((run / 'config.json').read_text())
  text = card.write('x', plain, predict.load(run), {'epoch': 3, 'reach': {}})
  assert 'None are known of this checkpoint' in text
  assert 'model-index' not in text
  # A command that says what it wants, and a second that finds it there.
  with pytest.raises(errors.InputError, match='exists; expected a new or emp'):
    write.export(run, folder)
  assert [p.name for p in folder.parent.iterdir() if p.name[0] == '.'] == []


@pytest.mark.extra
def test_a_quality_head_goes_along_or_is_refused_by_name(run, config, tmp_path):
  pytest.importorskip('safetensors', reason='needs the extra export')
  staged = files.path(shutil.copytree(run, tmp_path / 'staged'))
  c = config.copy_and_resolve_references()
  c.stages.quality = True
  files.write_json(staged / 'config.json', fields.plain(c))
  rng = np.random.default_rng(0)
  n = quality.num_inputs(32, 5)
  shapes = (n,), (n,), (n, 64), (64,), (64, 64), (64,), (64, 3), (3,)
  head = quality.Head(*(rng.uniform(0.01, 0.02, s).astype('f') for s in shapes))
  quality.write(staged / 'stages' / 'quality.npz', head)
  write.export(staged, tmp_path / 'model')
  found = predict.load(tmp_path / 'model')
  for ours, theirs in zip(head, found.head, strict=True):
    np.testing.assert_array_equal(ours, theirs)
  for ending in ('onnx', 'stablehlo'):
    with pytest.raises(errors.InputError, match=r'made a quality head, which'):
      write.export(staged, tmp_path / f'x.{ending}')
  write.export(staged, tmp_path / 'x.stablehlo', config)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'model', 'staged', 'x.stablehlo'
  ]  # fmt: skip


def _tensors(change):
  def do(folder):
    from safetensors import numpy as safetensors

    path = folder / model_folders.NAME
    found = safetensors.load_file(path)
    path.write_bytes(safetensors.save(change(found)))

  return do


def _text(name, text):
  return lambda folder: (folder / name).write_text(text)


def _json(name, change):
  def do(folder):
    found = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(change(found)))

  return do


def _field(section, name, value):
  return _json(
    'config.json', lambda c: c | {section: c[section] | {name: value}}
  )


_KERNEL = 'backbone.classifier.kernel'
_DAMAGE = {
  'missing tensor': (
    _tensors(lambda x: {k: v for k, v in x.items() if k != _KERNEL}),
    rf'config.model: {_KERNEL} is missing, expected \(1, 16, 6\)',
  ),
  'extra tensor': (
    _tensors(lambda x: x | {'filter.scale': np.ones(3, np.float32)}),
    r'filter.scale is \(3,\), expected nothing',
  ),
  'wrong tensor': (
    _tensors(lambda x: x | {_KERNEL: x[_KERNEL][:, :5]}),
    rf'{_KERNEL} is \(1, 5, 6\), expected \(1, 16, 6\)',
  ),
  'a tensor in place of a layer': (
    _tensors(lambda x: x | {'filter': np.ones(3, np.float32)}),
    'model.safetensors: filter is a tensor, and in filter.conv_1.bias',
  ),
  'cut off': (
    lambda f: (f / model_folders.NAME).write_bytes(b'\x10' + bytes(7) + b'{'),
    'model.safetensors: not a whole file of tensors',
  ),
  'another class': (
    _text('classes.json', json.dumps(['dive', 'hop', *_CLASSES[2:]])),
    "classes.json: 1 is 'hop', in model.safetensors 'jump'",
  ),
  'a class more': (
    _text('classes.json', json.dumps([*_CLASSES, 'hop'])),
    '6 class names, config.model.num_classes is 5',
  ),
  'an affinity that is none': (
    _field('model', 'affinity', 'cosine'),
    "config.json: model.affinity is 'cosine', expected ",
  ),
  'a length that is none': (
    _field('data', 'num_snippets', 'all'),
    "config.json: data.num_snippets is 'all', expected ",
  ),
  'a field that is none': (
    _field('model', 'depth', 3), 'config.json: model.depth: no such field',
  ),
  'no config': (_text('config.json', '[]'), 'config.json: holds no config'),
  'another option': (
    _json('localization.json', lambda x: x | {'trim': 0.3}),
    'localization.json: trim is 0.3, in config.json',
  ),
  'other features': (
    _text('features.json', '{"encoder": "x"}'),
    "features.json: encoder is 'x', in config.json None",
  ),
  'no classes': (
    lambda f: (f / 'classes.json').unlink(), 'classes.json: no such file',
  ),
}  # fmt: skip


@pytest.mark.extra
@pytest.mark.parametrize('damage', _DAMAGE)
def test_a_folder_that_is_not_whole_is_refused_by_name(copy, damage):
  change, message = _DAMAGE[damage]
  change(copy)
  with pytest.raises(errors.InputError, match=message):
    predict.load(copy)


@pytest.fixture(name='runtime')
def _runtime():
  pytest.importorskip('onnx', reason='needs the extra export')
  return pytest.importorskip('onnxruntime', reason='needs the extra export')


_ABOUT = {'version': '0'}


@pytest.mark.extra
@pytest.mark.parametrize('kind', KINDS)
def test_an_onnx_file_computes_the_official_numbers(runtime, kind):
  case = Case(kind)
  feature = case.batch['feature']
  content = onnx_graph.build(case.params, case.model, feature.shape[1], _ABOUT)
  session = runtime.InferenceSession(content)
  cas, score, magnitude, _ = session.run(None, {'feature': feature})
  close = lambda a, b: np.testing.assert_allclose(a, b, 0, 1e-5)
  close(cas.swapaxes(1, 2), case.arrays['eval/cas_supp'])
  close(score, case.arrays['eval/score_supp'])
  close(magnitude, np.linalg.norm(case.arrays['eval/feature_supp_1'], axis=1))
  # Any number of videos.
  (one,) = session.run(['cas'], {'feature': feature[1:2]})
  close(one[0], cas[1])


@pytest.mark.extra
@pytest.mark.parametrize('changed', [
  {'model.affinity': 'paper'},
  {'model.topk_by': 'probabilities', 'model.topk_ratio': 0.3},
])  # fmt: skip
def test_other_networks_are_compared_and_written(
  runtime, run, config, tmp_path, changed, capsys
):
  c = config.copy_and_resolve_references()
  c.update_from_flattened_dict(changed)
  write.export(run, tmp_path / 'x.onnx', c)
  told = float(capsys.readouterr().out.split()[-1])
  assert told < 1e-5
  # The comparison sees what differs.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      onnx_graph.layers, 'similarity_index', lambda _, n: np.zeros((3, n), int)
    )
    with pytest.raises(errors.InputError, match='(cas|score) is .* from what'):
      write.export(run, tmp_path / 'y.onnx', c)
  assert [p.name for p in tmp_path.iterdir()] == ['x.onnx']


@pytest.mark.extra
def test_what_a_graph_has_no_place_for_is_refused(
  runtime, run, config, tmp_path
):
  c = config.copy_and_resolve_references()
  c.model.dtype = 'bfloat16'
  with pytest.raises(errors.InputError, match='config.model.dtype is bfloat16'):
    write.export(run, tmp_path / 'x.onnx', c)
  case = Case('hacs')
  more = case.params | {'scale': {'mean': np.ones(3)}}
  with pytest.raises(errors.InputError, match='no place for .* scale.mean'):
    onnx_graph.build(more, case.model, 48, _ABOUT)
  assert not list(tmp_path.iterdir())


@pytest.mark.extra
def test_the_example_finds_the_same_segments(runtime, run, tmp_path):
  from examples import segments_of_onnx

  write.export(run, tmp_path / 'x.onnx')
  session = runtime.InferenceSession(tmp_path / 'x.onnx')
  told = session.get_modelmeta().custom_metadata_map
  assert told['jax'] == jax.__version__ and json.loads(told['classes'])
  model = predict.load(run)
  for features in (_features(), _features(100)):
    ours = model.predict(features, duration=60.5)
    theirs = segments_of_onnx.predict(session, features, 60.5)
    assert len(ours) > 3
    assert_same_segments(theirs, ours)


def test_a_stablehlo_file_computes_the_same(run, tmp_path, capsys):
  path = tmp_path / 'x.stablehlo'
  write.export(run, path)
  assert '6 months from jax' in capsys.readouterr().out
  read = jax.export.deserialize(bytearray(path.read_bytes()))
  assert read.platforms == ('cpu', 'cuda', 'tpu')
  model = predict.load(run)
  video = feature_files.make_video('x', [_features()], 60, shape=model.shape)
  (found,) = model.predict_videos([video], 1)
  for name, value in read.call(video.feature[None]).items():
    np.testing.assert_allclose(value[0], found.curves[name], 1e-6, 1e-6)


@pytest.mark.parametrize('module, output', [
  ('safetensors.numpy', 'model'), ('onnxruntime', 'x.onnx'),
  ('torch', 'x.pth'), ('flatbuffers', 'x.stablehlo'),
])  # fmt: skip
def test_a_missing_extra_is_named(run, tmp_path, monkeypatch, module, output):
  monkeypatch.setitem(sys.modules, module, None)
  extra = 'torch' if module == 'torch' else 'export'
  message = rf"needs {module}: pip install 'backtal-jax\[{extra}\]'"
  with pytest.raises(errors.InputError, match=message):
    write.export(run, tmp_path / output)
  assert not list(tmp_path.iterdir())


def test_other_endings_are_refused(run, tmp_path):
  with pytest.raises(
    errors.InputError, match=r'ends in .npz.*or the name of a'
  ):
    write.export(run, tmp_path / 'x.npz')
  assert backtal_jax.load(run).epoch == 3
