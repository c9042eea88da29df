"""Tests of the TFDS form: it must be the npz form, bit for bit."""

import os
import signal
import subprocess
import sys
import time
import weakref

import jax
import numpy as np
import pytest

from backtal_jax import errors, sharding
from backtal_jax.data import builder, pipeline, sources

SHAPE = {'num_snippets': 100, 'feature_dim': 32, 'num_classes': 5}


@pytest.fixture(scope='module')
def both(demo_root, tmp_path_factory):
  """Convert the embedded set, in files of 7 videos or fewer."""
  root = tmp_path_factory.mktemp('tfds')
  npz = {
    split: sources.NpzSource(demo_root / split, **SHAPE)
    for split in ('train', 'test')
  }
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(builder, '_BYTES_PER_FILE', 7 * 4 * 100 * 32)
    builder.prepare(root, npz)
  return root, npz


@pytest.mark.parametrize('split', ['train', 'test'])
def test_source_is_the_same(both, split):
  root, npz = both
  ours, theirs = builder.TfdsSource(root, split, **SHAPE), npz[split]
  assert len(ours) == len(theirs) and ours.shape == theirs.shape
  assert ours.names == theirs.names
  assert ours.video_names() == theirs.video_names()
  np.testing.assert_array_equal(ours.labels(), theirs.labels())
  for a, b in zip(ours, theirs, strict=True):
    for field in ours[0]._fields:
      x, y = getattr(a, field), getattr(b, field)
      assert type(x) is type(y)
      np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('processes', [1, 2])
def test_batches_are_the_same(both, monkeypatch, processes):
  root, npz = both
  ours = builder.TfdsSource(root, 'train', **SHAPE)
  plan = pipeline.train_plan(np.arange(len(ours)), 24, seed=3, num_epochs=2)
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  for process in range(processes):
    monkeypatch.setattr(jax, 'process_index', lambda p=process: p)
    columns = sharding.local_columns(plan)
    assert columns.shape[1] == 24 // processes
    seen = 0
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


def test_user_errors(both, tmp_path, demo_root):
  root, npz = both
  with pytest.raises(errors.InputError, match='prepare tfds'):
    builder.TfdsSource(tmp_path, 'train', **SHAPE)
  with pytest.raises(errors.InputError, match="no split 'val'"):
    builder.TfdsSource(root, 'val', **SHAPE)
  with pytest.raises(errors.InputError, match=r'are \(100, 32, 5\)'):
    builder.TfdsSource(root, 'train', **(SHAPE | {'feature_dim': 64}))
  with pytest.raises(errors.InputError, match='holds other videos'):
    builder.prepare(root, {'train': npz['train']})


def test_killed_is_made_anew(demo_root, tmp_path, both):
  code = (
    'import sys; from backtal_jax.data import builder, sources; '
    f'npz = sources.NpzSource({str(demo_root / "train")!r}, **{SHAPE}); '
    'builder._BYTES_PER_FILE = 1; print(flush=True); '
    f'builder.prepare({str(tmp_path)!r}, dict(train=npz))'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE
  )
  process.stdout.readline()
  folder = tmp_path / 'tfds/prepared'
  while process.poll() is None and not list(folder.glob('*incomplete*/*-0*')):
    time.sleep(0.005)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert not (folder / '1.0.0').exists()
  builder.prepare(tmp_path, {'train': both[1]['train']})
  assert os.listdir(folder) == ['1.0.0']
  ours = builder.TfdsSource(tmp_path, 'train', **SHAPE)
  last = len(ours) - 1
  np.testing.assert_array_equal(
    ours[last].feature, both[1]['train'][last].feature
  )


def test_conversion_streams(tmp_path, monkeypatch):
  shape, alive, most = (4, 8, 2), [0], [0]
  monkeypatch.setattr(builder, '_BYTES_PER_FILE', 10 * 4 * 4 * 8)

  class Source:
    names = tuple(f'v{i:03d}' for i in range(300))

    def __len__(self):
      return len(self.names)

    def labels(self):
      return np.zeros((300, 2), np.float32)

    def video_names(self):
      return list(self.names)

    def __getitem__(self, i):
      feature = np.full(shape[:2], i, np.float32)
      alive[0] += 1
      most[0] = max(most[0], alive[0])
      weakref.finalize(feature, lambda: alive.__setitem__(0, alive[0] - 1))
      return sources.Video(
        self.names[i], feature, np.zeros(2, np.float32),
        np.full(4, -100, np.int32), 1, 1.0, 1.0,
      )  # fmt: skip

  source = Source()
  source.shape = shape
  builder.prepare(tmp_path, {'train': source})
  # A file's ten videos, and what is on its way.
  assert most[0] <= 15
  written = builder.TfdsSource(
    tmp_path, 'train', num_snippets=4, feature_dim=8, num_classes=2
  )
  assert [v.feature[0, 0] for v in written] == list(range(300))
