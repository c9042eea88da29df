"""The official program's .pth files: its numbers, both ways, and bad files."""

import argparse
import collections
import datetime
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys

import full_size
import jax
import numpy as np
import pytest
from etils import epath
from golden import FOLDER, KINDS, Case

from backtal_jax import errors, models, predict, train
from backtal_jax.data import feature_files, sources
from backtal_jax.export import official
from backtal_jax.run import checkpoints, parameters, torch_checkpoints
from configs import activitynet12, hacs, thumos14
from oracles import localization as oracle

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = {'thumos14': thumos14, 'activitynet12': activitynet12, 'hacs': hacs}


@pytest.fixture(name='torch', scope='module')
def _torch():
  return pytest.importorskip('torch', reason='needs the extra torch')


def golden_config(kind, **fields):
  """Return a data set's config in the sizes of its golden case."""
  config = CONFIGS.get(kind, thumos14).get_config()
  meta = Case(kind).meta
  changes = {
    'model.num_classes': meta['C'],
    'model.feature_dim': meta['D'],
    'model.hidden_dim': meta['hidden'],
    'model.reduce_dim': meta['reduce'],
    'model.embedding_dim': meta['embed'],
    'data.num_snippets': meta['T'],
    'localization.class_threshold': 0.1,
    'eval.batch_size': 4,
    'mesh': (1,),
  }
  with config.unlocked():
    config.update_from_flattened_dict(changes | fields)
  return config


def load(kind, path=None, **fields):
  config = golden_config(kind, **fields)
  names = [f'class{i}' for i in range(config.model.num_classes)]
  path = path or FOLDER / f'official_{kind}.pth'
  return predict.load(path, config=config, classes=names)


def contents(torch, path):
  return torch.load(path, map_location='cpu', weights_only=True)


@pytest.mark.as_users
@pytest.mark.parametrize('kind', KINDS)
def test_an_official_checkpoint_gives_the_official_numbers(torch, kind):
  model, case = load(kind), Case(kind).arrays
  assert model.epoch == 7
  videos = [
    feature_files.make_video(
      f'video {i}', [feature], 20.0 + i, 600 + i, shape=model.shape
    )
    for i, feature in enumerate(case['feature'])
  ]
  # The official program reads logits, and knows nothing else.
  options = dict(model.localization)
  assert options.pop('read') == 'logits'
  count = 0
  for i, (_, curves, segments) in enumerate(model.predict_videos(videos)):
    close = lambda a, b: np.testing.assert_allclose(a, b, 0, 1e-5)
    close(curves['cas'].T, case['eval/cas_supp'][i])
    close(curves['score'], case['eval/score_supp'][i])
    magnitude = np.linalg.norm(case['eval/feature_supp_1'][i], axis=0)
    close(curves['magnitude'], magnitude)
    expected = oracle.localize(
      case['eval/cas_supp'][i].T,
      case['eval/score_supp'][i],
      magnitude,
      frame_num=600 + i,
      duration=20.0 + i,
      **options,
    )
    assert [s['label'] for s in segments] == [f'class{e[0]}' for e in expected]
    for ours, (_, *times, score) in zip(segments, expected, strict=True):
      close(ours['segment'], times)
      assert ours['score'] == pytest.approx(score, abs=1e-5)
    count += len(segments)
  assert count > 4


def zipped(torch, content, path):
  torch.save(content, path)


def pickled(torch, content, path):
  torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize('save', [zipped, pickled])
@pytest.mark.parametrize('device', ['cpu', 'cuda:3'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_every_container_reads_the_same(
  torch, tmp_path, monkeypatch, save, device, prefix
):
  content = contents(torch, FOLDER / 'official_hacs.pth')
  state = collections.OrderedDict(
    (prefix + k, v) for k, v in content['state_dict'].items()
  )
  path = tmp_path / 'x.pth'
  with monkeypatch.context() as m:
    m.setattr(torch.serialization, 'location_tag', lambda _: device)
    save(torch, {'epoch': 3, 'state_dict': state}, path)
  raw = path.read_bytes()
  assert device.encode() in raw
  assert raw.startswith(b'PK') == (save is zipped)
  found, epoch = torch_checkpoints.read(path)
  assert epoch == 3
  assert list(found) == list(content['state_dict'])
  for name, tensor in content['state_dict'].items():
    np.testing.assert_array_equal(found[name], tensor.numpy())


def _as_people_save_it(torch, state):
  """Return {what is odd: a file's content}."""
  parameters = {k: torch.nn.Parameter(v) for k, v in state.items()}
  beside = {
    'best_map': np.float64(0.4),
    'epoch': np.int64(3),
    'history': np.zeros(3),
    'args': argparse.Namespace(lr=1e-4, root=pathlib.Path('data')),
    'log': collections.defaultdict(list, loss=[np.float32(1)]),
    'seen': {1, 2},
    'last': collections.deque([1.0, np.float64(2)], maxlen=3),
    'saved': datetime.datetime(2020, 1, 1),
  }
  wrapped = {f'module._orig_mod.{k}': v for k, v in state.items()}
  return {
    'values beside it': beside | {'state_dict': state},
    'parameters': {'epoch': 3, 'state_dict': parameters},
    'half': {'epoch': 3, 'state_dict': {k: v.half() for k, v in state.items()}},
    'another name': {'epoch': 3, 'model': state, 'optimizer': {'lr': 1}},
    'two wrappers': {'epoch': np.int32(3), 'state_dict': wrapped},
  }


@pytest.mark.parametrize('save', [zipped, pickled])
def test_checkpoints_as_people_save_them_are_read(torch, tmp_path, save):
  state = contents(torch, FOLDER / 'official_hacs.pth')['state_dict']
  for name, content in _as_people_save_it(torch, state).items():
    path = tmp_path / f'{name}.pth.tar'
    save(torch, content, path)
    found, epoch = torch_checkpoints.read(path)
    assert epoch == 3, name
    tolerance = 1e-3 if name == 'half' else 0
    for key, tensor in state.items():
      np.testing.assert_allclose(found[key], tensor.numpy(), tolerance, 1e-4)


@pytest.mark.parametrize('name', ['x.pt', 'x.pth.tar', 'x.ckpt', 'x', '0'])
def test_a_file_is_a_checkpoint_whatever_it_is_called(torch, tmp_path, name):
  path = tmp_path / name
  path.write_bytes((FOLDER / 'official_hacs.pth').read_bytes())
  assert load('hacs', path).epoch == 7


def test_what_could_run_code_is_named_in_our_words(torch, tmp_path):
  path = tmp_path / 'x.pth'
  for content, name in (
    (torch.nn.Linear(2, 2), 'torch.nn.modules.linear.Linear'),
    ({'state_dict': {}, 'hook': print}, 'print'),
    ({'a': np.array([{}], object)}, 'numpy.dtypes.ObjectDType'),
  ):
    torch.save(content, path)
    with pytest.raises(errors.InputError) as e:
      torch_checkpoints.read(path)
    assert f'file: it holds {name}, which could run' in str(e.value)
    assert '\x1b' not in str(e.value) and 'weights_only' not in str(e.value)
  torch.save({'state_dict': {}}, path, pickle_protocol=4)
  with pytest.raises(errors.InputError, match='pickled as torch.save does not'):
    torch_checkpoints.read(path)


def test_a_bare_state_dict_is_read_too(torch, tmp_path):
  state = contents(torch, FOLDER / 'official_hacs.pth')['state_dict']
  torch.save({k: v.double() for k, v in state.items()}, tmp_path / 'x.pth')
  assert load('hacs', tmp_path / 'x.pth').epoch == -1


@pytest.mark.parametrize('kind', KINDS)
def test_import_then_export_changes_no_bit(torch, tmp_path, kind):
  source = FOLDER / f'official_{kind}.pth'
  params, epoch = parameters.restore(source, Case(kind).params)
  torch_checkpoints.write(tmp_path / 'x.pth', params, epoch)
  first, second = contents(torch, source), contents(torch, tmp_path / 'x.pth')
  assert first.keys() == second.keys() and second['epoch'] == 7
  assert list(first['state_dict']) == list(second['state_dict'])
  for name, tensor in first['state_dict'].items():
    other = second['state_dict'][name]
    assert other.dtype == torch.float32 and other.is_contiguous()
    assert tensor.shape == other.shape
    assert tensor.numpy().tobytes() == other.numpy().tobytes()


def test_what_a_network_standardises_by_is_exported_too(torch, tmp_path):
  params = Case('thumos14').params
  size = params['filter']['conv_1']['kernel'].shape[1]
  channels = models.standard(np.arange(size), np.arange(1, size + 1))
  params = params | {'standard': {'channels': channels}}
  torch_checkpoints.write(tmp_path / 'x.pth', params, 3)
  read, _ = parameters.restore(epath.Path(tmp_path / 'x.pth'), params)
  jax.tree.map(np.testing.assert_array_equal, read, params)
  # The official program's own files, which know of none, change nothing.
  del params['standard']
  torch_checkpoints.write(tmp_path / 'y.pth', params, 3)
  read, _ = parameters.restore(epath.Path(tmp_path / 'y.pth'), read)
  found = read.pop('standard')['channels']
  np.testing.assert_array_equal(found['mean'], np.zeros(size))
  np.testing.assert_array_equal(found['scale'], np.ones(size))
  jax.tree.map(np.testing.assert_array_equal, read, params)


def test_training_goes_on_the_same_after_export_and_import(
  torch, tmp_path, capsys
):
  case, workdir = Case('thumos14'), tmp_path / 'run'
  step, state = case.training()
  for _ in range(2):
    state, _ = step(state, case.batch)
  with checkpoints.manager(workdir) as manager:
    checkpoints.save(manager, state, epoch=2, value=0.5)
    checkpoints.finish(manager)
  (workdir / 'config.json').write_text('{"model": {"affinity": "paper"}}')
  path = tmp_path / 'x.pth'
  official.write(workdir, path)
  assert 'config.model.affinity=paper' in capsys.readouterr().err
  params, epoch = parameters.restore(path, case.params)
  assert epoch == 2
  # Off their device, so that the step is not compiled anew.
  other = state._replace(params=jax.tree.map(np.asarray, params))
  for _ in range(3):
    state, ours = step(state, case.batch)
    other, theirs = step(other, case.batch)
    assert float(ours['loss/total']) == float(theirs['loss/total'])


def test_fine_tuning_starts_from_an_official_file(torch, tmp_path):
  path = FOLDER / 'official_thumos14.pth'
  config = golden_config('thumos14')
  case = Case('thumos14')
  mesh = jax.make_mesh((8,), ('data',))
  with checkpoints.manager(tmp_path) as manager:
    _, new_state, _, _ = train.build(config, mesh)
    state = checkpoints.initial_state(manager, new_state(), epath.Path(path))
  assert int(state.step) == 0
  for ours, theirs in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(case.params), strict=True
  ):
    assert len(ours.sharding.device_set) == 8
    np.testing.assert_array_equal(ours, theirs)


_CONV = 'base_module.conv_2.weight'


@pytest.mark.parametrize(('change', 'message'), [
  (lambda s, _: {k: v for k, v in s.items() if k != _CONV},
   rf'{_CONV} is missing, expected \(24, 24, 3\)'),
  (lambda s, zeros: s | {'lstm.weight': zeros(3, 4)},
   r'lstm.weight is \(3, 4\), expected nothing$'),
  (lambda _, zeros: {'conv1.weight': zeros(64, 3, 7, 7)},
   r'fit config.model: .*conv1.weight is \(64, 3, 7, 7\), expected '),
  (lambda *_: {'epoch': 3},
   r"no state_dict of tensors in it, found \['epoch', 'state_dict"),
])  # fmt: skip
def test_other_tensors_are_listed(torch, tmp_path, change, message):
  content = contents(torch, FOLDER / 'official_hacs.pth')
  content['state_dict'] = change(content['state_dict'], torch.zeros)
  torch.save(content, tmp_path / 'x.pth')
  with pytest.raises(errors.InputError, match=message) as e:
    load('hacs', tmp_path / 'x.pth')
  assert str(tmp_path / 'x.pth') in str(e.value)


def test_every_tensor_of_another_shape_is_listed_with_both(torch):
  with pytest.raises(errors.InputError) as e:
    load('hacs', **{'model.num_classes': 100, 'model.embedding_dim': 32})
  assert str(e.value).endswith(
    'official_hacs.pth: does not fit config.model: '
    'classifier_module.conv.weight is (7, 24, 1), expected (101, 24, 1); '
    'embedding_module.conv_2.bias is (8,), expected (32,); '
    'embedding_module.conv_2.weight is (8, 16, 3), expected (32, 16, 3)'
  )


class _Evil:
  def __reduce__(self):
    return os.mkdir, ('evil',)


@pytest.mark.parametrize('save', [zipped, pickled])
@pytest.mark.parametrize('bad', ['cut', 'text', 'empty', 'pickle', 'evil'])
def test_a_file_that_is_no_checkpoint_is_refused(
  torch, tmp_path, monkeypatch, save, bad
):
  monkeypatch.chdir(tmp_path)
  path, whole = tmp_path / 'x.pth', io.BytesIO()
  save(torch, contents(torch, FOLDER / 'official_hacs.pth'), whole)
  if bad == 'evil':
    save(torch, {'state_dict': _Evil()}, path)
  else:
    path.write_bytes(
      {
        'cut': whole.getvalue()[: whole.tell() // 2],
        'text': b'<html>404 not found</html>',
        'empty': b'',
        'pickle': pickle.dumps([1, 2]),
      }[bad]
    )
  with pytest.raises(
    errors.InputError, match=r'not a whole|no state_dict'
  ) as e:
    load('hacs', path)
  assert str(e.value).startswith(f'{path}: ')
  assert '\n' not in str(e.value)
  assert not (tmp_path / 'evil').exists()


def test_a_missing_file_and_a_missing_config_are_told(torch, tmp_path):
  with pytest.raises(errors.InputError, match=r'x\.pth: no such file'):
    load('hacs', tmp_path / 'x.pth')
  with pytest.raises(errors.InputError, match=r'config=configs\.thumos14'):
    predict.load(FOLDER / 'official_hacs.pth')


def test_without_torch_the_message_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  install = r"pip install 'backtal-jax\[torch\]'$"
  with pytest.raises(errors.InputError, match=install):
    load('hacs')


@pytest.mark.parametrize('kind', CONFIGS)
def test_the_oracle_of_the_full_size_is_the_official_program(kind):
  case = Case(kind)
  state = {
    name.removeprefix('param/'): tensor
    for name, tensor in case.arrays.items()
    if name.startswith('param/')
  }
  for i, feature in enumerate(case.arrays['feature']):
    found = full_size.outputs(state, feature, case.topk_ratio)
    close = lambda a, b: np.testing.assert_allclose(a, b, 0, 1e-5)
    close(found['cas'].T, case.arrays['eval/cas_supp'][i])
    close(found['score'], case.arrays['eval/score_supp'][i])


@pytest.mark.as_users
@pytest.mark.parametrize('kind', CONFIGS)
def test_networks_of_full_size_are_exact(torch, tmp_path, kind):
  config = CONFIGS[kind].get_config()
  with config.unlocked():
    config.mesh = (1,)
  state, feature = full_size.draw(kind)
  state = {name: torch.from_numpy(tensor) for name, tensor in state.items()}
  torch.save({'epoch': 1, 'state_dict': state}, tmp_path / 'x.pth')
  names = [f'class{i}' for i in range(config.model.num_classes)]
  model = predict.load(tmp_path / 'x.pth', config=config, classes=names)
  video = feature_files.make_video('video', [feature], 60, shape=model.shape)
  ((_, curves, _),) = model.predict_videos([video], batch_size=1)
  ours = full_size.summary(curves)
  for name, theirs in json.loads(full_size.GOLDEN.read_text())[kind].items():
    # The sixth digit of the largest value, and one more for rounding.
    atol = 2e-6 * max(abs(theirs['min']), abs(theirs['max']))
    np.testing.assert_allclose(
      list(ours[name].values()), list(theirs.values()), 2e-6, atol, name
    )


def test_reproduce_evaluates_compares_and_fails_where_it_is_off(
  torch, tmp_path
):
  sizes = {
    'model.num_classes': 20, 'model.feature_dim': 8, 'model.hidden_dim': 8,
    'model.reduce_dim': 4, 'model.embedding_dim': 4, 'data.num_snippets': 30,
  }  # fmt: skip
  classes, rng = [f'class{i:02d}' for i in range(20)], np.random.RandomState(0)
  database = {}
  for i in range(3):
    name = f'video_test_{i}'
    if i < 2:  # the last has no features
      sources.write_video(
        tmp_path / 'test' / f'{name}.npz',
        feat_spa=rng.rand(4, 30),
        feat_tem=rng.rand(4, 30),
        cls_label=np.eye(20)[i],
        vid_name=name,
        frame_num=300,
        fps=30,
        duration=10.0,
      )
    database[name] = {
      'subset': 'test',
      'duration': 10.0,
      'annotations': [{'label': classes[i], 'segment': [2.0, 5.0]}],
    }
  (tmp_path / 'gt_thumos14.json').write_text(
    json.dumps({'database': database, 'activity_list': classes})
  )
  config = thumos14.get_config()
  with config.unlocked():
    config.update_from_flattened_dict(sizes)
  model = predict.models.BackTAL(**config.model)
  params = predict.models.init(model, jax.random.key(0))
  torch_checkpoints.write(tmp_path / 'x.pth', params, 40)
  script = str(ROOT / 'launch' / 'reproduce.sh')
  result = subprocess.run(
    [
      *('bash', script, 'THUMOS14', str(tmp_path), str(tmp_path / 'x.pth')),
      *(f'--config.{key}={value}' for key, value in sizes.items()),
    ],
    env=os.environ
    | {'WORKDIR': str(tmp_path / 'run'), 'PYTHON': sys.executable},
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 1, result.stderr
  assert '1 of the 3 annotated videos' in result.stdout
  assert 'no features: video_test_2' in result.stdout
  rows = [line.split() for line in result.stdout.splitlines()]
  percents = '54.4', '45.5', '36.3', '26.2', '14.8'
  assert ['published', *percents] in rows
  assert ['difference', *(f'-{p}0' for p in percents)] in rows
  assert result.stderr.splitlines()[-1] == (
    'error: 54.40 off a published mAP, expected 0.5 at most'
  )
  assert (
    json.loads((tmp_path / 'run' / 'metrics.json').read_text())['epoch'] == 40
  )


@pytest.mark.parametrize('arguments', [(), ('UCF', 'x', 'y.pth')])
def test_reproduce_tells_how_it_is_called(arguments):
  result = subprocess.run(
    ['bash', str(ROOT / 'launch' / 'reproduce.sh'), *arguments],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 2
  assert 'THUMOS14' in result.stderr and 'HACS' in result.stderr
