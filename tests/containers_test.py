"""Features in the files of other libraries: the same arrays, or one line."""

import io
import json
import os
import pathlib
import struct

import numpy as np
import pytest
from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import containers, feature_files
from backtal_jax.prepare import feature_folders

_A = np.arange(12, dtype=np.float32).reshape(4, 3)
_B = np.arange(8, dtype=np.float32).reshape(2, 4) - 5


def _pt(path, content):
  torch = pytest.importorskip('torch', reason='needs the extra torch')

  def convert(x):
    if isinstance(x, dict):
      return {key: convert(value) for key, value in x.items()}
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x

  torch.save(convert(content), path)


def _hdf5(path, content):
  h5py = pytest.importorskip('h5py', reason='needs the extra features')
  with h5py.File(path, 'w') as file:

    def fill(group, inner):
      for key, value in inner.items():
        if isinstance(value, dict):
          fill(group.create_group(key), value)
        else:
          group[key] = value

    fill(file, content)


def _parquet(path, content):
  pa = pytest.importorskip('pyarrow', reason='needs the extra features')
  from pyarrow import parquet

  parquet.write_table(pa.table(content), path)


def _safetensors(path, content):
  library = pytest.importorskip(
    'safetensors.numpy', reason='needs the extra features'
  )
  path.write_bytes(library.save(content))


# What writes a file, what it holds, and the streams that are there.
_ONE = {
  'pt tensor': (_pt, _A, [_A]),
  'pt of a name': (_pt, {'epoch': 3, 'x': {'feats': _A}}, [_A]),
  'pt streams': (_pt, {'flow': _B, 'rgb': _A}, [_A, _B]),
  'hdf5': (_hdf5, {'x': _A, 'fps': 25.0}, [_A]),
  'hdf5 of C3D': (_hdf5, {'v_1': {'c3d_features': _A}}, [_A]),
  'hdf5 of MDVC': (
    _hdf5, {'v_1': {'i3d_features': {'rgb': _A, 'flow': _B}}}, [_A, _B],
  ),
  'parquet columns': (
    _parquet, {f'c{i:02}': column for i, column in enumerate(_A.T)}, [_A],
  ),
  'parquet lists': (_parquet, {'feature': _A.tolist()}, [_A]),
  'safetensors': (_safetensors, {'anything': _A}, [_A]),
  'safetensors streams': (_safetensors, {'rgb': _A, 'flow': _B}, [_A, _B]),
}  # fmt: skip


def _cases(table):
  return [
    pytest.param(
      *case,
      id=name,
      marks=[pytest.mark.extra] * (case[0] in (_pt, _safetensors)),
    )
    for name, case in table.items()
  ]


@pytest.fixture(name='path')
def _path(tmp_path):
  """Return a name that says nothing of what is in the file."""
  return epath.Path(tmp_path / 'video')


@pytest.mark.parametrize('save, content, expected', _cases(_ONE))
def test_a_file_is_read_by_what_it_holds(path, save, content, expected):
  save(pathlib.Path(path), content)
  found = feature_files.read(path).streams
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(a, b)
  # Cut off in any place it is an error that names it.
  raw = path.read_bytes()
  for size in (40, len(raw) // 2, len(raw) - 7):
    path.write_bytes(raw[:size])
    with pytest.raises(errors.InputError, match=r'^\S*/video: not a whole '):
      feature_files.read(path)


@pytest.mark.parametrize('dim', [768, 1408, 3200, 5])
def test_one_stream_of_any_width_is_one_stream(path, dim):
  array = np.ones((3, dim), np.float32)
  _hdf5(pathlib.Path(path), {'x': array})
  streams, _ = feature_files.read(path)
  video = feature_files.make_video('v', streams, 10, shape=(6, dim))
  assert video.feature.shape == (6, dim)


_MANY = {
  'hdf5 of data sets': (_hdf5, {'a': _A, 'b': _B}, {'a': [_A], 'b': [_B]}),
  'hdf5 of C3D': (
    _hdf5, {'a': {'c3d_features': _A}, 'b': {'c3d_features': _B}},
    {'a': [_A], 'b': [_B]},
  ),
  'hdf5 of MDVC': (
    _hdf5, {'a': {'i3d_features': {'flow': _B, 'rgb': _A}}}, {'a': [_A, _B]},
  ),
  'pt': (_pt, {'a': _A, 'b': {'rgb': _A, 'flow': _B}},
         {'a': [_A], 'b': [_A, _B]}),
  'safetensors': (_safetensors, {'b': _B, 'a': _A}, {'a': [_A], 'b': [_B]}),
}  # fmt: skip


@pytest.mark.parametrize('save, content, expected', _cases(_MANY))
def test_one_file_holds_all_videos(path, save, content, expected):
  save(pathlib.Path(path), content)
  found = feature_folders.open_features([path])
  assert list(found) == list(expected)
  for name, read in found.items():
    for a, b in zip(read(), expected[name], strict=True):
      np.testing.assert_array_equal(a, b)
  with pytest.raises(errors.InputError, match='names its videos; no --video_n'):
    feature_folders.open_features([path], names=path)


class _Runs:
  """Would run what it names when it is unpickled."""

  def __reduce__(self):
    return print, ('run',)


class _Calls:
  """Likewise, of a module that torch itself blocks."""

  def __reduce__(self):
    return os.system, ('true',)


_BAD = {
  'code': (_pt, {'x': _Runs()}, r'it holds .*print, which could run code'),
  'a system call': (_pt, {'x': _Calls()}, 'it holds .*system, which could run'),
  'a list': (_pt, [1], 'it is a list, expected a tensor'),
  'empty groups': (_hdf5, {'a': {}}, 'holds no arrays, expected those of'),
  'groups of groups': (
    _hdf5, {'train': {'a': {'i3d': {'rgb': _A}}}},
    'groups of groups, train/a/i3d/rgb; expected VIDEO, VIDEO/NAME or',
  ),
  'two of a name': (
    _hdf5, {'a': {'x': {'rgb': _A}, 'y': {'rgb': _A}}},
    'a has a/x/rgb and a/y/rgb, expected one',
  ),
  'several columns': (
    _parquet, {'id': ['a'], 'x': [[1.0]]}, 'columns id, x, expected one with',
  ),
  'text': (_parquet, {'id': ['a', 'b']}, 'columns id, expected one with'),
}  # fmt: skip


@pytest.mark.parametrize('save, content, message', _cases(_BAD))
def test_bad_input(path, save, content, message, capsys):
  save(pathlib.Path(path), content)
  parquet = save is _parquet
  read = feature_files.read if parquet else containers.videos
  with pytest.raises(errors.InputError, match=message):
    read(path)
  assert capsys.readouterr().out == ''


def test_tensors_that_are_no_matrix_are_named(path):
  torch = pytest.importorskip('torch', reason='needs the extra torch')
  for tensor, message in (
    (torch.ones(3, 4).to_sparse(), 'it is no plain tensor'),
    (torch.ones(3, 4, device='meta'), 'it is no plain tensor'),
    (torch.ones(3, 4, dtype=torch.complex64), r'\(3, 4\) of complex64, exp'),
    (torch.ones(3), r'shape \(3,\) of float32, expected numbers in two'),
  ):
    torch.save(tensor, path)
    with pytest.raises(errors.InputError, match=message):
      feature_files.read(path)


def test_half_precision_of_brain_floats_is_read(path):
  pytest.importorskip('safetensors', reason='needs the extra features')
  head = {'x': {'dtype': 'BF16', 'shape': [2, 3], 'data_offsets': [0, 12]}}
  text = json.dumps(head).encode()
  values = np.array([1.0, -2.5, 0.0, 3.0, 0.5, 96.0], '<f4')  # exact in 8 bits
  data = (values.view('<u4') >> 16).astype('<u2').tobytes()
  path.write_bytes(struct.pack('<Q', len(text)) + text + data)
  (found,) = feature_files.read(path).streams
  np.testing.assert_array_equal(found, values.reshape(2, 3))
  path.write_bytes(path.read_bytes().replace(b'BF16', b'F8_8'))
  with pytest.raises(errors.InputError):
    feature_files.read(path)


def test_a_file_with_nothing_of_its_ending_is_told(tmp_path):
  path = files.path(tmp_path / 'v.h5')
  path.write_bytes(b'')
  with pytest.raises(errors.InputError, match='v.h5: begins as none of .pt'):
    feature_folders.open_features([path])


def test_a_file_of_many_videos_is_not_one(path):
  _hdf5(pathlib.Path(path), {f'v{i}': {'x': _A} for i in range(51)})
  with pytest.raises(errors.InputError, match='51 data sets, .* `prepare cust'):
    feature_files.read(path)
  _hdf5(pathlib.Path(path), {f'v{i}': {'x': _A} for i in range(2)})
  with pytest.raises(errors.InputError, match='holds v0/x, v1/x, expected'):
    feature_files.read(path)


@pytest.mark.parametrize('module, begin', [
  ('h5py', b'\x89HDF\r\n\x1a\n'), ('pyarrow.parquet', b'PAR1'),
  ('safetensors', struct.pack('<Q', 40) + b'{"x"'),
])  # fmt: skip
def test_a_missing_extra_is_named(path, monkeypatch, module, begin):
  monkeypatch.setitem(__import__('sys').modules, module, None)
  path.write_bytes(begin + bytes(90))
  message = rf"needs {module}: pip install 'backtal-jax\[features\]'"
  with pytest.raises(errors.InputError, match=message):
    feature_files.read(path)


def test_npz_and_npy_are_none_of_these(path):
  for save in (lambda f: np.savez(f, feats=_A), lambda f: np.save(f, _A)):
    raw = io.BytesIO()
    save(raw)
    path.write_bytes(raw.getvalue())
    assert containers.kind(path) == ''
    np.testing.assert_array_equal(feature_files.read(path).streams[0], _A)
