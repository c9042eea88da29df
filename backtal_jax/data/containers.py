"""Arrays by name in the files of other libraries, told apart by what they hold.

PyTorch's `.pt`, HDF5, Parquet and safetensors; npy and npz are npz.py's and
feature_files.py's. Each library is an extra, imported when a file needs it.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from backtal_jax import errors
from backtal_jax.data import torch_files

SUFFIXES = '.pt', '.h5', '.hdf5', '.parquet', '.safetensors'
_BEGINS = (
  ('pt', torch_files.BEGINS[1]),
  ('hdf5', b'\x89HDF\r\n\x1a\n'),
  ('parquet', b'PAR1'),
)
_MOST = 50  # arrays of one video
# Of safetensors; BF16 is none of NumPy's.
_NUMBERS = {
  kind: f'<{kind[0].lower()}{int(kind[1:]) // 8}'
  for kind in ('F16', 'F32', 'F64', 'I8', 'I16', 'I32', 'I64', 'U8', 'U16',
               'U32', 'U64')
}  # fmt: skip
# By name; that of the only one may be empty.
Arrays = dict[str, np.ndarray]


def kind(path: epath.Path) -> str:
  """Return which of the four a file is, '' if none, by how it begins."""
  if not path.is_file():
    return ''
  with path.open('rb') as f:
    begin = f.read(16)
    # Of an npz no member is called so.
    if begin[:2] == b'PK' and b'data.pkl' in begin + f.read(256):
      return 'pt'
  if begin[8:10] in (b'{"', b'{ ', b'{}') and begin[5:8] == bytes(3):
    return 'safetensors'
  found = next((k for k, start in _BEGINS if begin.startswith(start)), '')
  known = found or begin.startswith((b'PK', b'\x93NUMPY'))  # of NumPy's files
  if path.suffix in SUFFIXES and not known:
    raise errors.InputError(
      f'{path}: begins as none of {", ".join(SUFFIXES)} does; is it whole?'
    )
  return found


def read(path: epath.Path) -> Arrays:
  """Read the arrays of one video.

  Names lack the groups or dicts that all of them lie in.

  Raises:
    errors.InputError: The file is damaged, holds code or something else than
      arrays; its library is not installed.
  """
  if kind(path) == 'hdf5' and (count := len(_hdf5_names(path))) > _MOST:
    raise errors.InputError(
      f'{path}: {count} data sets, expected those of one video; '
      '`prepare custom` reads a file of all videos'
    )
  arrays = dict(_READERS[kind(path)](path))
  while arrays and all('/' in name for name in arrays):
    if len({name.split('/')[0] for name in arrays}) > 1:
      break
    arrays = {name.partition('/')[2]: x for name, x in arrays.items()}
  return arrays


def videos(path: epath.Path) -> dict[str, Callable[[], Arrays]]:
  """Return what reads each video of a file of many.

  In HDF5 a video is a data set or a group, ActivityNet's C3D and MDVC's two
  streams; elsewhere it is an array, or a dict of them.

  Raises:
    errors.InputError: See `read`; groups lie deeper than three.
  """
  hdf5 = kind(path) == 'hdf5'
  names = _hdf5_names(path) if hdf5 else dict(_READERS[kind(path)](path))
  if not names:
    raise errors.InputError(
      f'{path}: holds no arrays, expected those of videos'
    )
  found: dict[str, dict[str, str]] = {}
  for name in names:
    video, _, inner = name.partition('/')
    if inner.count('/') > 1:
      raise errors.InputError(
        f'{path}: groups of groups, {name}; expected VIDEO, VIDEO/NAME or '
        'VIDEO/NAME/rgb and VIDEO/NAME/flow'
      )
    key = inner.rpartition('/')[2]
    if key in found.setdefault(video, {}):
      raise errors.InputError(
        f'{path}: {video} has {found[video][key]} and {name}, expected one'
      )
    found[video][key] = name

  def reader(wanted):
    def one():
      arrays = dict(_hdf5(path, wanted.values())) if hdf5 else names
      return {key: arrays[name] for key, name in wanted.items()}

    return one

  return {video: reader(wanted) for video, wanted in found.items()}


@contextlib.contextmanager
def _damage(path: epath.Path, what: str) -> Iterator[None]:
  """Name the file in whatever a library says of a damaged one."""
  try:
    yield
  except errors.InputError:
    raise
  except Exception as e:  # each library has its own
    raise errors.InputError(f'{path}: not a whole {what} file: {e}') from e


def _pt(path):
  """Yield what torch.save wrote: a tensor, or dicts of them."""
  yield from _leaves(torch_files.load(path, 'tensors'), '', path)


def _leaves(
  value: Any, name: str, path: epath.Path
) -> Iterator[tuple[str, np.ndarray]]:
  if isinstance(value, dict):
    for key, inner in value.items():
      yield from _leaves(inner, f'{name}/{key}' if name else str(key), path)
  elif hasattr(value, 'detach'):
    try:
      value = value.detach()
      value = value.float() if value.is_floating_point() else value
      yield name, value.numpy()
    except (TypeError, RuntimeError) as e:  # sparse, quantised, without values
      raise errors.InputError(
        f'{path}: {name or "it"} is no plain tensor: {e}'
      ) from e
  elif isinstance(value, (list, tuple, type(None))):
    raise errors.InputError(
      f'{path}: {name or "it"} is a {type(value).__name__}, expected a tensor'
    )
  else:
    yield name, np.asarray(value)


def _hdf5(path, names=None):
  """Yield the data sets of a file, all or some, with their path in it."""
  h5py = errors.need('h5py', 'features', path)
  with _damage(path, 'HDF5'), path.open('rb') as f, h5py.File(f, 'r') as file:
    for name in _walk(h5py, file) if names is None else names:
      yield name, np.asarray(file[name])


def _hdf5_names(path):
  h5py = errors.need('h5py', 'features', path)
  with _damage(path, 'HDF5'), path.open('rb') as f, h5py.File(f, 'r') as file:
    return list(_walk(h5py, file))


def _walk(h5py, group, above=''):
  for name, value in group.items():
    if isinstance(value, h5py.Dataset):
      yield above + name
    elif value is None:
      raise ValueError(f'{above}{name} is a link that leads nowhere')
    else:
      yield from _walk(h5py, value, f'{above}{name}/')


def _parquet(path):
  """Yield one matrix: a row a snippet, of number columns or a list column."""
  parquet = errors.need('pyarrow.parquet', 'features', path)
  with _damage(path, 'Parquet'):
    table = parquet.read_table(io.BytesIO(path.read_bytes()))
    lists = [c for c in table.columns if 'list' in str(c.type)]
    others = [] if lists else [c.to_numpy() for c in table.columns]
    if len(lists[:1] or others) < table.num_columns or any(
      column.dtype.kind not in 'fiu' for column in others
    ):
      raise errors.InputError(
        f'{path}: columns {errors.few(table.column_names)}, expected one with '
        'a list of numbers a snippet, or numbers only'
      )
    rows = np.array(lists[0].to_pylist()) if lists else np.stack(others, axis=1)
    yield '', rows


def _safetensors(path):
  """Yield every tensor; not by safetensors.numpy, which lacks bfloat16."""
  library = errors.need('safetensors', 'features', path)
  with _damage(path, 'safetensors'):
    for name, about in library.deserialize(path.read_bytes()):
      kind, data = about['dtype'], about['data']
      if kind == 'BF16':  # the upper half of a float32
        array = (np.frombuffer(data, '<u2').astype('<u4') << 16).view('<f4')
      elif kind in _NUMBERS:
        array = np.frombuffer(data, _NUMBERS[kind])
      else:
        raise errors.InputError(
          f'{path}: {name} is of {kind}, expected BF16, {", ".join(_NUMBERS)}'
        )
      yield name, array.reshape(about['shape'])


_READERS = {
  'pt': _pt, 'hdf5': _hdf5, 'parquet': _parquet, 'safetensors': _safetensors
}  # fmt: skip
