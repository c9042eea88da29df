"""Tests of the HAPT data set, on a small archive of the same layout."""

import itertools
import json
import pathlib
import zipfile

import numpy as np
import pytest

from backtal_jax import errors
from backtal_jax.prepare import hapt

SAMPLES = {(1, 1): 6401, (2, 2): 5000, (3, 3): 1000, (4, 3): 500}
# Recording 1 is cut into clips of samples [0, 3200) and [3200, 6401),
# recording 2 (100 s, 1.6 clips) into two of 2500.
LABELS = [
  (1, 1, 5, 1, 500),  # Standing: background.
  (1, 1, 7, 501, 650),  # Samples [500, 650) of the first clip.
  (1, 1, 1, 3000, 3240),  # Cut: [2999, 3200) and [0, 40).
  (1, 1, 12, 4001, 4100),  # [800, 900) of the second clip.
  (1, 1, 3, 6390, 6400),  # Whole, though shorter than 0.5 s.
  (2, 2, 2, 1, 5000),  # All of it, cut in two.
  (3, 3, 8, 1, 200),
  (3, 3, 8, 301, 500),
  (4, 3, 4, 100, 400),  # No action at all.
]
GROUND_TRUTH = {
  'exp01_user01_00': ('train', 64.0, [(3, 10.0, 13.0), (0, 59.98, 64.0)]),
  'exp01_user01_01': (
    'train', 64.02, [(0, 0.0, 0.8), (8, 16.0, 18.0), (2, 63.78, 64.0)],
  ),
  'exp02_user02_00': ('test', 50.0, [(1, 0.0, 50.0)]),
  'exp02_user02_01': ('test', 50.0, [(1, 0.0, 50.0)]),
  'exp03_user03_00': ('train', 20.0, [(4, 0.0, 4.0), (4, 6.0, 10.0)]),
  'exp04_user03_00': ('train', 10.0, []),
}  # fmt: skip


def _signals():
  """Return {member: [N, 3]}, walks whose scale differs by sensor."""
  rng = np.random.default_rng(0)
  return {
    f'RawData/{sensor}_exp{e:02d}_user{u:02d}.txt': (
      rng.normal(size=(n, 3)).cumsum(0) * scale + 1
    ).round(6)
    for (e, u), n in SAMPLES.items()
    for sensor, scale in (('acc', 0.1), ('gyro', 2))
  }


def _text(rows):
  return ''.join(' '.join(map(str, row)) + '\n' for row in rows)


@pytest.fixture
def members():
  found = {k: _text(v.tolist()) for k, v in _signals().items()}
  return found | {'RawData/labels.txt': _text(LABELS)}


def write(folder, members):
  """Return a zip file of {name: text}."""
  archive = folder / 'HAPT Data Set.zip'
  with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as f:
    for name, text in members.items():
      f.writestr(name, text)
  return archive


def _read(output):
  """Return {clip: (subset, arrays)} and the ground truth."""
  clips = {}
  for path in sorted(output.glob('*/*.npz'), key=lambda p: p.name):
    with np.load(path) as f:
      clips[path.stem] = (path.parent.name, dict(f))
  return clips, json.loads((output / 'ground_truth.json').read_text())


@pytest.fixture
def prepared(members, tmp_path):
  """Prepare the archive; see `_read`."""
  hapt.run(write(tmp_path, members), tmp_path / 'out')
  return _read(tmp_path / 'out')


def _gaps(busy):
  """Return the [start, end) of the False runs of `busy`, by a plain loop."""
  gaps, start = [], None
  for i, x in enumerate([*busy, True]):
    if not x and start is None:
      start = i
    elif x and start is not None:
      gaps.append((start, i))
      start = None
  return gaps


def _slow_features(signal):
  """Compute the 32 numbers of every window with plain loops."""
  rows = []
  for s in range(0, len(signal) - 63, 25):
    window = [list(r) for r in signal[s : s + 64]]
    columns = [[r[i] for r in window] for i in range(3)]
    columns.append([sum(v * v for v in r) ** 0.5 for r in window])
    statistics = []
    for x in columns:
      mean = sum(x) / 64
      std = (sum((v - mean) ** 2 for v in x) / 64) ** 0.5
      jump = sum(abs(b - a) for a, b in itertools.pairwise(x)) / 63
      energy = []
      for low, high in ((1, 3), (4, 9), (10, 32)):
        k = np.arange(low, high + 1)[:, None]
        wave = np.exp(-2j * np.pi * k * np.arange(64) / 64)
        energy.append(np.log(np.sum(np.abs(wave @ x) ** 2) / 64 + 1e-6))
      statistics.append([mean, std, min(x), max(x), jump, *energy])
    rows.append(np.array(statistics).T.ravel())
  return np.array(rows)


def test_shapes_labels_and_ground_truth(capsys, prepared):
  clips, truth = prepared
  assert list(clips) == list(truth['database']) == list(GROUND_TRUTH)
  assert truth['activity_list'] == list(hapt.CLASSES)
  assert len(hapt.CLASSES) == 9
  for name, (subset, duration, segments) in GROUND_TRUTH.items():
    assert truth['database'][name] == {
      'subset': subset,
      'duration': duration,
      'fps': 50,
      'annotations': [
        {'label': hapt.CLASSES[c], 'segment': [start, end], 'idx': c}
        for c, start, end in segments
      ],
      'vid_idx': sorted({c for c, _, _ in segments}),
    }
    folder, arrays = clips[name]
    assert folder == subset
    assert ('point_label' in arrays) == (subset == 'train')
    for key in ('feat_spa', 'feat_tem'):
      assert arrays[key].shape == (32, 128)
      assert arrays[key].dtype == np.float32
    label = np.zeros(9)
    label[[c for c, _, _ in segments]] = 1
    np.testing.assert_array_equal(arrays['cls_label'], label)
    assert arrays['vid_name'] == name
    assert arrays['frame_num'] == round(duration * 50)
    assert (arrays['fps'], arrays['duration']) == (50, duration)
  clicks = sum(
    int((arrays['point_label'] == 9).sum())
    for subset, arrays in clips.values()
    if subset == 'train'
  )
  train, test = capsys.readouterr().out.splitlines()
  assert train.endswith(
    f'train: 4 clips, 1 without action, 7 segments, {clicks} clicks'
  )
  assert test.endswith('test: 2 clips, 0 without action, 2 segments')


def test_features_are_standardised_by_the_training_clips(prepared):
  clips, _ = prepared
  signals = _signals()
  bounds = {
    'exp01_user01_00': (0, 3200),
    'exp01_user01_01': (3200, 6401),
    'exp02_user02_00': (0, 2500),
    'exp02_user02_01': (2500, 5000),
  }
  for key, sensor in (('feat_spa', 'acc'), ('feat_tem', 'gyro')):
    raw = {}
    for name in GROUND_TRUTH:
      start, end = bounds.get(name, (0, None))
      member = f'RawData/{sensor}_{name[:-3]}.txt'
      raw[name] = _slow_features(signals[member][start:end])
    train = np.concatenate(
      [x for name, x in raw.items() if GROUND_TRUTH[name][0] == 'train']
    )
    mean, std = train.mean(0), train.std(0)
    for name, x in raw.items():
      times = (np.arange(len(x)) * 25 + 32) / 50
      wanted = (np.arange(128) + 0.5) / 128 * GROUND_TRUTH[name][1]
      expected = [np.interp(wanted, times, c) for c in ((x - mean) / std).T]
      np.testing.assert_allclose(clips[name][1][key], expected, atol=1e-4)


def test_clicks_of_the_archive_lie_in_background(prepared):
  clips, _ = prepared
  for name, (subset, duration, segments) in GROUND_TRUTH.items():
    if subset == 'test':
      continue
    centres = (np.arange(128) + 0.5) / 128 * duration
    busy = np.zeros(128, bool)
    for _, start, end in segments:
      busy |= (start <= centres) & (centres < end)
    gaps = [(a, b) for a, b in _gaps(busy) if b - a >= 2]
    assert gaps
    label = clips[name][1]['point_label']
    assert set(label.tolist()) == {-100, 9}
    for i, (a, b) in zip(np.flatnonzero(label == 9), gaps, strict=True):
      assert a <= i < b


def test_one_click_a_gap_of_two_or_more():
  rng = np.random.default_rng(0)
  for _ in range(300):
    runs = rng.integers(1, 6, rng.integers(1, 12))
    action = np.concatenate(
      [np.full(n, (i + rng.integers(2)) % 2 == 0) for i, n in enumerate(runs)]
    )
    # Three samples a snippet, so that the middle one is its centre.
    clicks = hapt.simulate_clicks(np.repeat(action, 3), len(action), rng)
    assert clicks.shape == action.shape
    for a, b in _gaps(action):
      assert (clicks[a:b] == 9).sum() == (b - a >= 2)
    assert (clicks[action] == -100).all()


def test_a_snippet_is_background_if_its_centre_is():
  # Five samples a snippet; of the first three only the middle one is at rest.
  action = np.tile([True, True, False, True, True], 3)
  action = np.concatenate([action, ~action])
  clicks = hapt.simulate_clicks(action, 6, np.random.default_rng(0))
  assert (clicks[:3] == 9).sum() == 1
  assert (clicks[3:] == -100).all()


def test_a_click_can_fall_on_every_snippet_of_its_gap():
  action = np.array([True, False, False, False, True, False])
  rng = np.random.default_rng(0)
  seen = np.zeros(6, int)
  for _ in range(300):
    seen += hapt.simulate_clicks(action, 6, rng) == 9
  assert seen.sum() == 300
  assert (seen[1:4] > 60).all()


def test_what_is_too_short_for_a_segment_is_no_background_either():
  # A segment of samples [90, 190) of a recording cut at 114, 115 and 165.
  row = [(1, 91, 190)]
  segments, action = hapt.cut(row, 0, 114)
  assert segments == []
  assert np.flatnonzero(action).tolist() == list(range(90, 114))
  assert hapt.cut(row, 0, 115)[0] == [(0, 90, 115)]
  assert hapt.cut(row, 165, 300)[0] == [(0, 0, 25)]
  assert hapt.cut(row, 166, 300)[0] == []
  assert hapt.cut(row, 100, 130)[0] == [(0, 0, 30)]
  for start, end in ((0, 90), (190, 200)):
    segments, action = hapt.cut(row, start, end)
    assert segments == [] and not action.any()


def test_seed_and_archive_decide_alone(members, tmp_path):
  archive = write(tmp_path, members)
  with zipfile.ZipFile(archive) as f:
    f.extractall(tmp_path / 'folder')
  for name, given, seed in (
    ('a', archive, 3),
    ('b', tmp_path / 'folder', 3),
    ('c', archive, 4),
  ):
    hapt.run(given, tmp_path / name, seed=seed)
  (a, truth), (b, same), (c, other) = (_read(tmp_path / x) for x in 'abc')
  assert truth == same == other
  different = 0
  for name, (_, arrays) in a.items():
    for key, value in arrays.items():
      np.testing.assert_array_equal(value, b[name][1][key])
      if key == 'point_label':
        different += (value != c[name][1][key]).any()
      else:
        np.testing.assert_array_equal(value, c[name][1][key])
  assert different > 0


GYRO = 'RawData/gyro_exp01_user01.txt'
LABEL = 'RawData/labels.txt'


@pytest.mark.parametrize('member, change, message', [
  (GYRO, lambda t: None, 'no such file in the archive'),
  (LABEL, lambda t: None, 'no such file in the archive'),
  (GYRO, lambda t: '', 'no numbers in it'),
  (GYRO, lambda t: t + '1 2\n', 'number of columns changed from 3 to 2'),
  (GYRO, lambda t: t + '1 2 x\n', "could not convert string 'x'"),
  (GYRO, lambda t: t + '1 2 nan\n', 'finite'),
  (GYRO, lambda t: '1 2\n' * 6401, '2 columns, expected 3'),
  (GYRO, lambda t: t + '1 2 3\n', r'6401 \(acc\) and 6402 \(gyro\) samples'),
  (LABEL, lambda t: '1 1 7 501\n', '4 columns, expected 5'),
  (LABEL, lambda t: '1 1 13 1 9\n', r'\[13, 1, 9\], expected an activity'),
  (LABEL, lambda t: '1 1 7 9 8\n', r'\[7, 9, 8\], expected an activity'),
  (LABEL, lambda t: '1 1 7 1 9999\n', '9999 or more'),
])  # fmt: skip
def test_a_bad_member_is_named(members, tmp_path, member, change, message):
  text = change(members.pop(member))
  changed = members if text is None else members | {member: text}
  archive = write(tmp_path, changed)
  with pytest.raises(errors.InputError, match=message) as e:
    hapt.run(archive, tmp_path / 'out')
  assert '\n' not in str(e.value)
  assert str(archive) in str(e.value)
  name = pathlib.Path(member).name
  assert name in str(e.value) or 'RawData/*_exp01_user01.txt' in str(e.value)
  assert not (tmp_path / 'out').exists()


def test_a_bad_archive_is_named(members, tmp_path):
  archive = tmp_path / 'x.zip'
  with pytest.raises(errors.InputError, match=r'x\.zip: no such file'):
    hapt.run(archive, tmp_path / 'out')
  archive.write_bytes(b'no archive')
  with pytest.raises(errors.InputError, match=r'x\.zip: not a zip'):
    hapt.run(archive, tmp_path / 'out')
  whole = write(tmp_path, members).read_bytes()
  for damage in (whole[:-500], whole[:1000] + b'?' * 50 + whole[1050:]):
    archive.write_bytes(damage)
    with pytest.raises(errors.InputError, match=r'x\.zip: '):
      hapt.run(archive, tmp_path / 'out')
  archive = write(tmp_path, members | {LABEL: '2 2 1 1 9\n'})
  with pytest.raises(errors.InputError, match='no recording of a training'):
    hapt.run(archive, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_the_real_archive(shared):
  archive = shared / 'data/hapt/HAPT Data Set.zip'
  with zipfile.ZipFile(archive) as f:
    text = f.read('RawData/labels.txt').decode()
  rows = [[int(v) for v in r.split()] for r in text.splitlines()]
  assert len(rows) == 1214
  clips = hapt.read_clips(archive)
  recordings = {}
  for clip in clips:
    recordings.setdefault(clip.name[:-3], []).append(clip)
  assert len(recordings) == 61
  assert len({name.split('user')[1] for name in recordings}) == 30
  samples = sum(len(c.action) for c in clips)
  assert round(samples / 50 / 3600, 2) == 6.24
  background = 1 - sum(c.action.sum() for c in clips) / samples
  assert round(background, 2) == 0.63
  assert all(48 <= len(c.action) / 50 <= 80 for c in clips)
  for name, parts in recordings.items():
    # Every action segment found again, piece by piece, in whole recordings.
    found, offset = [], 0
    for clip in parts:
      found += [(c, a + offset, b + offset) for c, a, b in clip.segments]
      offset += len(clip.action)
    ends = np.cumsum([len(c.action) for c in parts])
    expected = []
    for e, u, activity, first, last in rows:
      if name == f'exp{e:02d}_user{u:02d}' and activity not in (4, 5, 6):
        index = activity - 1 if activity < 4 else activity - 4
        cuts = [c for c in ends if first - 1 < c < last]
        edges = [first - 1, *cuts, last]
        expected += [
          (index, a, b)
          for a, b in itertools.pairwise(edges)
          if b - a >= 25 or not cuts
        ]
    assert found == expected
