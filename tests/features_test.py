"""Tests of time grids and resampling."""

import io

import hypothesis
import numpy as np
import pytest
from annotations_test import in_one_folder
from hypothesis import strategies as st

from backtal_jax import errors
from backtal_jax.data import feature_files, feature_records, npz, resampling


def test_centres_by_hand():
  times = feature_records.Grid(1.0, fps=25, window=16, stride=4).times(3)
  np.testing.assert_allclose(times, [0.32, 0.48, 0.64], rtol=1e-15)


def test_resample_by_hand():
  x = np.array([[0, 0], [8, -4]], np.float32)
  # Half-pixel centres: -0.25, 0.25, 0.75 and 1.25, clamped at both ends.
  expected = [[0, 0], [2, -1], [6, -3], [8, -4]]
  np.testing.assert_array_equal(resampling.resample(x, 4), expected)
  # Shrinking samples at 0.5 and 2.5, without smoothing.
  x = np.array([[1.0], [3.0], [5.0], [17.0]])
  np.testing.assert_array_equal(resampling.resample(x, 2), [[2], [11]])


@pytest.mark.parametrize('count', [1, 2, 7, 30])
@pytest.mark.parametrize('num_snippets', [1, 5, 30, 128])
def test_resample_is_interpolation_between_centres(count, num_snippets):
  x = np.random.default_rng(count).normal(size=(count, 3))
  source = (np.arange(count) + 0.5) / count
  wanted = (np.arange(num_snippets) + 0.5) / num_snippets
  expected = np.stack([np.interp(wanted, source, c) for c in x.T], axis=1)
  np.testing.assert_allclose(
    resampling.resample(x, num_snippets), expected, atol=1e-12
  )


@pytest.mark.parametrize('count', [1, 3, 49, 750])
def test_resample_to_the_same_length_is_the_identity(count):
  x = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
  y = resampling.resample(x, count)
  assert y.dtype == np.float32
  np.testing.assert_array_equal(y, x)


def test_resample_one_snippet_repeats_and_integers_become_floats():
  y = resampling.resample(np.array([[3, 4]]), 5)
  assert y.dtype == np.float64
  np.testing.assert_array_equal(y, [[3, 4]] * 5)


@pytest.mark.parametrize('num_snippets', [1, 40, 128])
def test_a_grid_is_interpolated_in_seconds(num_snippets):
  x = np.random.default_rng(1).normal(size=(57, 4))
  grid = feature_records.Grid(34.0, fps=7.5, window=11, stride=4)
  times = (np.arange(57) * 4 + 5.5) / 7.5
  wanted = (np.arange(num_snippets) + 0.5) * 34 / num_snippets
  expected = np.stack([np.interp(wanted, times, c) for c in x.T], axis=1)
  np.testing.assert_allclose(
    grid.resample(x, num_snippets), expected, atol=1e-12
  )


def test_a_grid_by_hand():
  # 25 fps, stride 25, window 50: centres at 1, 2 and 3 s of a 4 s video,
  # whose eight snippets are centred at 0.25, 0.75 … 3.75 s.
  grid = feature_records.Grid(4.0, fps=25, window=50, stride=25)
  y = grid.resample(np.array([[0.0], [4.0], [0.0]]), 8)
  np.testing.assert_array_equal(y[:, 0], [0, 0, 1, 3, 3, 1, 0, 0])


def _saved(save, *args, **kwargs):
  raw = io.BytesIO()
  save(raw, *args, **kwargs)
  return raw.getvalue()


_ARRAY = np.arange(6, dtype=np.float32).reshape(3, 2)
_FILES = {
  '.npy': _saved(np.save, _ARRAY),
  '.npz': _saved(np.savez, feats=_ARRAY),
  '.z.npz': _saved(np.savez_compressed, feats=_ARRAY),
}


@pytest.mark.filterwarnings('ignore:Reading `.npy` or')
@hypothesis.settings(in_one_folder, max_examples=200)
@hypothesis.given(
  st.sampled_from(list(_FILES)), st.floats(0, 1), st.binary(max_size=4),
  st.integers(0, 9),
)  # fmt: skip
def test_any_damaged_file_reads_or_is_an_input_error(
  tmp_path, monkeypatch, kind, place, new, cut
):
  monkeypatch.setattr(npz, '_WAITS', ())
  path, raw = tmp_path / f'a{kind}', _FILES[kind]
  start = int(place * len(raw))
  path.write_bytes(raw[:start] + new + raw[start + cut :])
  try:
    found = feature_files.read(path).streams[0]
  except errors.InputError as e:
    assert str(e).startswith(str(path))
    return
  assert found.ndim == 2 and found.dtype.kind in 'fiu'
