"""Tests of the TFDS form: it must be the npz form, bit for bit."""

import json
import os
import shutil
import sys
import weakref

import jax
import kills
import numpy as np
import processes
import pytest

from backtal_jax import IGNORED, errors
from backtal_jax.data import builder, npz, pipeline, sources
from backtal_jax.run import sharding

SHAPE = (100, 32, 5)


@pytest.fixture(scope='module')
def both(demo_root, tmp_path_factory):
  """Convert the embedded set, in files of 7 videos or fewer."""
  root = tmp_path_factory.mktemp('tfds')
  npz = {
    split: sources.NpzSource(demo_root / split, SHAPE)
    for split in ('train', 'test')
  }
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(builder, '_BYTES_PER_FILE', 7 * 4 * 100 * 32)
    builder.prepare(root, npz)
  return root, npz


@pytest.mark.parametrize('split', ['train', 'test'])
def test_source_is_the_same(both, split):
  root, npz = both
  ours, theirs = builder.TfdsSource(root, split, SHAPE), npz[split]
  assert len(ours) == len(theirs) and ours.shape == theirs.shape
  assert ours.names == theirs.names
  assert ours.video_names() == theirs.video_names()
  assert ours.num_clicks() == theirs.num_clicks()
  np.testing.assert_array_equal(ours.labels(), theirs.labels())
  for a, b in zip(ours, theirs, strict=True):
    for x, y in zip(a, b, strict=True):
      assert type(x) is type(y)
      np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('processes', [1, 2])
def test_batches_are_the_same(both, monkeypatch, processes):
  root, npz = both
  ours = builder.TfdsSource(root, 'train', SHAPE)
  plan = pipeline.train_plan(np.arange(len(ours)), 24, seed=3, num_epochs=2)
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  read, original = [], builder.TfdsSource.__getitem__
  spy = lambda self, i: read.append(i) or original(self, i)
  monkeypatch.setattr(builder.TfdsSource, '__getitem__', spy)
  for process in range(processes):
    monkeypatch.setattr(jax, 'process_index', lambda p=process: p)
    columns = sharding.local_columns(plan)
    assert columns.shape[1] == 24 // processes
    seen = 0
    read.clear()
    for a, b in zip(
      pipeline.batches(ours, columns),
      pipeline.batches(npz['train'], columns),
      strict=True,
    ):
      assert a.keys() == b.keys()
      for key in a:
        assert a[key].dtype == b[key].dtype
        np.testing.assert_array_equal(a[key], b[key])
      seen += int(a['mask'].sum())
    assert seen == (columns[..., 1] >= 0).sum()
    # Nothing but its own part is read.
    assert sorted(read) == sorted(columns[columns[..., 1] >= 0][:, 1])


def test_user_errors(both, tmp_path):
  root, npz = both
  with pytest.raises(errors.InputError, match='prepare tfds'):
    builder.TfdsSource(tmp_path, 'train', SHAPE)
  with pytest.raises(errors.InputError, match="no split 'val'"):
    builder.TfdsSource(root, 'val', SHAPE)
  with pytest.raises(errors.InputError, match=r'are \(100, 32, 5\)'):
    builder.TfdsSource(root, 'train', (100, 64, 5))
  with pytest.raises(errors.InputError, match='other .npz files'):
    builder.prepare(root, {'train': npz['train']})


def test_other_features_or_clicks_are_not_taken_for_the_same(
  demo_root, tmp_path
):
  shutil.copytree(demo_root / 'test', tmp_path / 'test')
  npz_source = lambda: sources.NpzSource(tmp_path / 'test', SHAPE)
  builder.prepare(tmp_path, {'test': npz_source()})
  (left,) = tmp_path.glob('tfds/prepared/*/videos.json')
  left = left.with_name('.videos.json.1.0.tmp')
  left.touch()  # of one that was killed
  builder.prepare(tmp_path, {'test': npz_source()})
  assert not left.exists()
  path = tmp_path / 'test/test_000.npz'
  arrays = npz.read(path)
  np.savez(path, **arrays | {'point_label': np.full(100, 5)})
  with pytest.raises(errors.InputError, match='other .npz files'):
    builder.prepare(tmp_path, {'test': npz_source()})


@pytest.mark.slow
def test_killed_at_random_moments_is_the_same(demo_root, tmp_path):
  code = (
    'import sys\n'
    'from backtal_jax import files\n'
    'from backtal_jax.data import builder, sources\n'
    'builder._BYTES_PER_FILE = 1\n'
    f'root = files.path({str(demo_root)!r})\n'
    f'npz = sources.NpzSource(root / "train", {SHAPE})\n'
    'work = lambda output: '
    'builder.prepare(files.path(output), dict(train=npz))'
  )
  kills.run(code, tmp_path)


_CONVERT = """
import json, pathlib, sys
from backtal_jax.data import builder, sources
def memory(key):  # now, or its peak
  status = pathlib.Path('/proc/self/status').read_text()
  return int(status.split(f'{key}:')[1].split()[0]) / 1024
root, imported = pathlib.Path(sys.argv[1]), memory('VmRSS')
shape = 100, 2048, 2
builder.prepare(root, {'train': sources.NpzSource(root / 'train', shape)})
print(json.dumps([imported, memory('VmHWM')]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_does_not_grow_with_the_set(tmp_path):
  # Videos of ActivityNet's size. docs/data.md has the numbers of VIDEOS=5000.
  count, rng = int(os.environ.get('VIDEOS', '400')), np.random.default_rng(0)
  for i in range(count):
    spa, tem = rng.random((2, 1024, 100), np.float32)
    sources.write_video(
      tmp_path / f'train/{i:06}.npz', feat_spa=spa, feat_tem=tem,
      cls_label=np.eye(2)[i % 2], vid_name=f'{i:06}', frame_num=3000,
      fps=30.0, duration=100.0, point_label=np.full(100, IGNORED),
    )  # fmt: skip
  printed = processes.python('-c', _CONVERT, tmp_path).stdout
  imported, peak = json.loads(printed.splitlines()[-1])
  print(
    f'{count} videos: {imported:.0f} MiB after the imports, {peak:.0f} peak'
  )
  # 400 videos are 312 MiB; a file of 32 MiB is in memory, and its copies.
  assert peak - imported < 150


def test_conversion_streams(tmp_path, monkeypatch):
  shape, alive, most = (4, 8, 2), [0], [0]
  monkeypatch.setattr(builder, '_BYTES_PER_FILE', 10 * 4 * 4 * 8)

  class Source:
    names = tuple(f'v{i:03d}' for i in range(300))
    paths = ()

    def __len__(self):
      return len(self.names)

    def labels(self):
      return np.zeros((300, 2), np.float32)

    def video_names(self):
      return list(self.names)

    def num_clicks(self):
      return [0] * 300

    def __getitem__(self, i):
      feature = np.full(shape[:2], i, np.float32)
      alive[0] += 1
      most[0] = max(most[0], alive[0])
      weakref.finalize(feature, lambda: alive.__setitem__(0, alive[0] - 1))
      return sources.Example(
        self.names[i], feature, np.zeros(2, np.float32),
        np.full(4, -100, np.int32), 1, 1.0, 1.0,
      )  # fmt: skip

  source = Source()
  source.shape = shape
  builder.prepare(tmp_path, {'train': source})
  # A file's ten videos, and what is on its way.
  assert most[0] <= 15
  written = builder.TfdsSource(tmp_path, 'train', shape)
  assert [v.feature[0, 0] for v in written] == list(range(300))
