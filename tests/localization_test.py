"""Localisation against golden files, plain loops and hand computation."""

import json
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from golden import FOLDER, assert_same_segments

from backtal_jax import localization
from configs import activitynet12, hacs, thumos14
from oracles import localization as oracle

SETTINGS = {
  name: dict(module.get_config().localization)
  for name, module in (
    ('thumos14', thumos14), ('activitynet12', activitynet12), ('hacs', hacs)
  )
}  # fmt: skip
for options in SETTINGS.values():  # the official program reads logits alone
  assert options.pop('read') == 'logits'
PLAIN = {
  'class_threshold': 0.1,
  'cas_thresholds': (0, 1, 0.5),
  'magnitude_thresholds': (),
  'outer_ratio': 1,
  'confidence_weight': 0.5,
  'nms_tiou': 0.7,
  'trim': 0,
  'whole_video_score': 0,
}


def one_class(cas, magnitude=(), **changes):
  """Localise one class of score 0.8 in a video of 2 s a snippet."""
  settings = {'frame_num': len(cas), 'duration': 2.0 * len(cas), **PLAIN}
  labels, segments, scores = localization.localize(
    np.array(cas, np.float32)[:, None],
    np.array([0.8, 0.2], np.float32),
    np.array(magnitude, np.float32),
    **{**settings, **changes},
  )
  assert labels.dtype.kind == 'i' and labels.tolist() == [0] * len(segments)
  return segments, scores


@pytest.mark.parametrize('name', SETTINGS)
def test_official_program(name):
  expected = json.loads((FOLDER / f'localization_{name}.json').read_text())
  with np.load(FOLDER / f'localization_{name}.npz') as inputs:
    for video, rows in expected['results'].items():
      found = localization.localize(
        inputs[f'{video}/cas'].T,
        inputs[f'{video}/score'],
        np.linalg.norm(inputs[f'{video}/feature'], axis=0),
        frame_num=int(inputs[f'{video}/frame_num']),
        duration=float(inputs[f'{video}/duration']),
        **SETTINGS[name],
      )
      found = localization.format_video(found, expected['classes'])
      assert_same_segments(found, rows)


def check_against_oracle(cas, score, magnitude, **settings):
  labels, segments, scores = localization.localize(
    cas, score, magnitude, **settings
  )
  expected = oracle.localize(cas, score, magnitude, **settings)
  assert labels.tolist() == [row[0] for row in expected]
  np.testing.assert_allclose(
    segments, np.reshape([row[1:3] for row in expected], (-1, 2)), 0, 1e-9
  )
  np.testing.assert_allclose(scores, [row[3] for row in expected], 0, 1e-6)
  return len(expected)


LOGIT = st.one_of(
  st.integers(-4, 6).map(lambda x: x / 2),
  st.floats(-2, 4, width=32, allow_subnormal=False),
)


@st.composite
def videos(draw):
  snippets, classes = draw(st.integers(1, 9)), draw(st.integers(1, 3))

  def array(*shape):
    size = math.prod(shape)
    values = draw(st.lists(LOGIT, min_size=size, max_size=size))
    return np.array(values, np.float32).reshape(shape)

  logit = array(classes + 1)
  score = np.exp(logit) / np.exp(logit).sum()
  triple = st.sampled_from([(0, 0.25, 0.1), (0, 1, 0.5), (0.3, 0.8, 0.075)])
  return (array(snippets, classes + 1), score, np.abs(array(snippets))), {
    'frame_num': draw(st.integers(1, 40)),
    'duration': draw(st.sampled_from([0.5, 7.3, 60.0])),
    'class_threshold': draw(st.sampled_from([0.0, 0.1, 0.4])),
    'cas_thresholds': draw(st.one_of(triple, st.just(()))),
    'magnitude_thresholds': draw(st.one_of(triple, st.just(()))),
    'outer_ratio': draw(st.sampled_from([0, 0.25, 1, 2.5, 200])),
    'confidence_weight': draw(st.sampled_from([0.2, 0.6])),
    'nms_tiou': draw(st.sampled_from([0.3, 0.55, 0.71, 1.0])),
    'trim': draw(st.sampled_from([0, 0.02])),
    'whole_video_score': draw(st.sampled_from([0, 0.6])),
  }


@hypothesis.settings(max_examples=400)
@hypothesis.given(videos())
def test_small_videos_equal_plain_loops(case):
  arrays, settings = case
  check_against_oracle(*arrays, **settings)


@pytest.mark.parametrize('read', ['probabilities', 'product'])
def test_what_is_localised_is_what_is_asked_for(read):
  cas = np.array([[0, 3, 1], [2, 2, 2], [90, -90, 0], [-1, 0, 5]], np.float32)
  rows, columns = cas.tolist(), cas.T.tolist()
  expected = [
    [math.exp(x) / math.fsum(map(math.exp, row)) for x in row] for row in rows
  ]
  if read == 'product':
    for row, shares in zip(rows, expected, strict=True):
      for c, column in enumerate(columns):
        low, high = min(column), max(column)
        shares[c] *= (row[c] - low) / (high - low)
  found = localization.activation(cas, read)
  np.testing.assert_allclose(found, expected, 1e-6, 1e-38)
  np.testing.assert_array_equal(localization.activation(cas, 'logits'), cas)
  same = np.ones((4, 3), np.float32)  # no scale, and no warning of a division
  assert (localization.activation(same, 'product') == 0).all()
  settings = {'frame_num': 40, 'duration': 20.0, **PLAIN}
  score, magnitude = np.array([0.5, 0.4, 0.1], np.float32), np.ones(4)
  ours = localization.localize(cas, score, magnitude, read=read, **settings)
  theirs = localization.localize(found, score, magnitude, **settings)
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(a, b)
  assert len(ours[0])


@pytest.mark.parametrize('seed', range(4))
def test_fading_and_probabilities_equal_plain_loops(seed):
  rng = np.random.default_rng(seed)
  settings = {'frame_num': 90, 'duration': 61.0, **PLAIN}
  settings |= {'cas_thresholds': (0, 0.5, 0.1), 'probability_power': 0.5}
  cas = rng.normal(size=(40, 4)).astype(np.float32) * 2
  score = np.array([0.4, 0.05, 0.45, 0.1], np.float32)
  check_against_oracle(cas, score, None, **settings)
  found = check_against_oracle(cas, score, None, nms_sigma=0.5, **settings)
  assert found > 30


def test_overlap_lowers_a_score_by_hand():
  segments = np.array([[0.0, 4], [2, 6], [10, 11], [0, 4]])
  kept, scores = localization.fade(
    segments, np.array([1, 0.9, 0.5, 0.001]), 0.5
  )
  assert kept.tolist() == [0, 1, 2]  # the last is below the floor
  np.testing.assert_allclose(scores, [1, 0.9 * math.exp(-2 / 9), 0.5])
  kept, scores = localization.fade(np.zeros((0, 2)), np.zeros(0), 0.5)
  assert not len(kept) and not len(scores)


@pytest.mark.parametrize('name', SETTINGS)
def test_long_videos_equal_plain_loops(name):
  rng = np.random.default_rng(0)
  cas = rng.normal(size=(150, 4)).astype(np.float32)
  score = np.array([0.4, 0.05, 0.45, 0.1], np.float32)
  magnitude = rng.random(150, np.float32)
  found = check_against_oracle(
    cas, score, magnitude, frame_num=2011, duration=67.1, **SETTINGS[name]
  )
  assert found > 50


def test_suppression_in_blocks_equals_plain_loops():
  rng = np.random.default_rng(1)
  start = rng.random(1200) * 900
  segments = np.stack([start, start + rng.random(1200) * 60], 1)
  scores = rng.integers(0, 50, 1200) / 50.0
  kept = localization.suppress(segments, scores, 0.5)
  rows = np.column_stack([segments, scores])
  assert [tuple(row) for row in rows[kept].tolist()] == oracle.suppress(
    [tuple(row) for row in rows.tolist()], 0.5
  )
  assert 100 < kept.size < 1000


_LOWEST = {'cas_thresholds': (0, 0.1, 0.1)}
_MAGNITUDE = {
  'magnitude': [1, 2, 3, 1], 'cas_thresholds': (), 'confidence_weight': 0,
  'magnitude_thresholds': (0.25, 1, 0.5), 'whole_video_score': 0.6,
}  # fmt: skip


@pytest.mark.parametrize(('cas', 'settings', 'expected', 'expected_scores'), [
  # Normalised: -1/3, 1, 1/3, 0. At 0 frames 1-2 are a run and nothing positive
  # is around; at 0.5 frame 1 is one, the class score adds 0.5 * 0.8.
  ([-1, 3, 1, 0], {}, [[2, 4], [2, 6]], [1 + 0.4, 2 / 3 + 0.4]),
  # (4 - 2 + 1) / (6 - 2 + 1) is 0.6: from there on the lower one is dropped.
  ([-1, 3, 1, 0], {'nms_tiou': 0.61}, [[2, 4], [2, 6]], [1.4, 2 / 3 + 0.4]),
  ([-1, 3, 1, 0], {'nms_tiou': 0.59}, [[2, 4]], [1.4]),
  # Normalised: 1, 0.5, 0, 0.25, 0.25, 0. Around the run of frames 0-1 is frame
  # 2 (up to int(1 + 2), excluded); around that of 3-4 are frames 1, 2 and 5.
  ([4, 2, 0, 1, 1, 0], {**_LOWEST, 'confidence_weight': 0}, [[0, 4], [6, 10]],
   [0.75, 0.25 - 0.5 / 3]),
  ([0, 0, 0, 0, 4], {**_LOWEST, 'trim': 0.1, 'whole_video_score': 0.5},
   [[8.2, 9.8], [0, 10]], [1.4, 0.5]),
  # Magnitudes 0, 0.5, 1 and 0: runs [1, 2] at 0.25 and [2, 2] at 0.75. Inner
  # and outer come from the CAS 0, 1, 0.25, 0, which isn't thresholded.
  ([0, 4, 1, 0], _MAGNITUDE, [[2, 6], [4, 6]], [0.625, 0.25 - 1]),
  # Nothing without a peak, and frame zero alone is no proposal.
  *[([value] * 4, {}, [], []) for value in (-1, 0, 2)],
  ([0, 5, 0], {'frame_num': 1}, [], []),
  ([3, 0, 0, 0], {}, [], []),
  # At 0.5 frame 0 is alone; at 0 frame 3 is there too.
  ([3, 0, 0, 1], {}, [[0, 2], [6, 8]], [1.4, 1 / 3 + 0.4]),
  ([3, 0, 0, 1], {'cas_thresholds': (0.5, 1, 1)}, [], []),
  ([0, 3, 0, 0], {}, [[2, 4]], [1.4]),
  # The threshold of a class is inclusive.
  ([0, 3, 0], {'class_threshold': 0.8}, [[2, 4]], [1.4]),
  ([0, 3, 0], {'class_threshold': 0.81}, [], []),
])  # fmt: skip
def test_segments_and_scores_by_hand(cas, settings, expected, expected_scores):
  segments, scores = one_class(cas, **settings)
  np.testing.assert_allclose(segments, np.reshape(expected, (-1, 2)), 1e-12)
  np.testing.assert_allclose(scores, expected_scores, 1e-6)


def test_background_channel_is_unused():
  rng = np.random.default_rng(2)
  cas = rng.normal(size=(30, 4)).astype(np.float32)
  score = np.array([0.3, 0.3, 0.3, 0.1], np.float32)
  settings = dict(SETTINGS['hacs'], frame_num=100, duration=4.0)
  with_it = localization.localize(cas, score, None, **settings)
  without = localization.localize(cas[:, :3], score, None, **settings)
  assert len(with_it[0])
  for a, b in zip(with_it, without, strict=True):
    np.testing.assert_array_equal(a, b)


def test_upsample_by_hand():
  up = lambda values, n: localization.upsample(
    np.array(values, np.float32)[:, None], n
  )[0].tolist()
  assert up([0, 1], 4) == [0, 0.25, 0.75, 1]
  assert up([0, 1, 2, 3], 2) == [0.5, 2.5]
  assert up([5], 3) == [5, 5, 5]


def test_equal_scores_keep_the_first():
  segments = np.array([[0.0, 10], [0, 10.5], [50, 60]])
  kept = localization.suppress(segments, np.array([0.5, 0.5, 0.5]), 0.7)
  assert kept.tolist() == [0, 2]


def test_results_are_plain_json():
  found = localization.localize(
    np.array([[0, 1], [3, 0], [0, 0]], np.float32),
    np.array([0.75, 0.25], np.float32),
    None,
    frame_num=3,
    duration=3.0,
    **{**PLAIN, 'confidence_weight': 0},
  )
  rows = localization.format_video(found, ['jump'])
  results = localization.format_results({'v': rows, 'empty': []})
  assert json.loads(json.dumps(results)) == {
    'version': 'VERSION 1.3',
    'results': {
      'v': [{'label': 'jump', 'segment': [1.0, 2.0], 'score': 1.0}],
      'empty': [],
    },
    'external_data': {},
  }
