"""The TFDS form of a prepared folder, for sets of thousands of videos.

Records lie in array_record files in the order of the npz files, so that
`TfdsSource` gives what `sources.NpzSource` gives, at any position.
"""

import contextlib
import functools
import grp
import os
import pwd
import types
import zipfile
import zlib
from concurrent import futures

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import sources

# TFDS holds one file's videos in memory while it writes it.
_BYTES_PER_FILE = 32 << 20
_INDEX = 'videos.json'


class Prepared(tfds.core.ShardBasedBuilder):
  """Builds any {split: sources.NpzSource} of one shape in a folder."""

  VERSION = tfds.core.Version('1.1.0')
  name = 'prepared'
  # Nothing to look up beside the code; finding it needs one more package.
  code_path = None

  def __init__(
    self, data_dir: epath.Path, splits: dict[str, sources.NpzSource]
  ) -> None:
    self._splits = splits
    super().__init__(data_dir=os.fspath(data_dir), file_format='array_record')

  def _info(self):
    first, *_ = self._splits.values()
    num_snippets, feature_dim, num_classes = first.shape
    tensor = lambda *shape, dtype: tfds.features.Tensor(
      shape=shape, dtype=dtype, encoding=tfds.features.Encoding.BYTES
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description='Videos prepared for BackTAL.',
      features=tfds.features.FeaturesDict(
        {
          'index': np.int64,
          'name': tfds.features.Text(),
          'feature': tensor(num_snippets, feature_dim, dtype=np.float32),
          'label': tensor(num_classes, dtype=np.float32),
          'click': tensor(num_snippets, dtype=np.int32),
          'frame_num': np.int64,
          'fps': tensor(dtype=np.float64),
          'duration': tensor(dtype=np.float64),
        }
      ),
    )

  def _shard_iterators_per_split(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    return {
      name: [
        functools.partial(_examples, source, indices)
        for indices in _file_indices(source)
      ]
      for name, source in self._splits.items()
    }


def _file_indices(source):
  """Split a source's indices into those of each file."""
  num_snippets, feature_dim, _ = source.shape
  per_file = max(1, _BYTES_PER_FILE // (4 * num_snippets * feature_dim))
  return np.array_split(np.arange(len(source)), -(-len(source) // per_file))


def _examples(source, indices):
  for i in indices.tolist():
    yield i, {'index': i, **source[i]._asdict()}


def prepare(output: epath.Path, splits: dict[str, sources.NpzSource]) -> None:
  """Convert {split: sources.NpzSource} of one shape to a folder `tfds`.

  What a dead run left is made anew.

  Raises:
    errors.InputError: A video's file is wrong.
  """
  root = output / 'tfds'
  index = {
    name: {
      'names': source.names,
      'video_names': source.video_names(),
      'num_clicks': source.num_clicks(),
      'labels': [np.flatnonzero(row).tolist() for row in source.labels()],
      'checksums': _checksums(source.paths),
    }
    for name, source in splits.items()
  }
  for left in files.listed(root / 'prepared', ''):
    if 'incomplete' in left.name:
      left.rmtree()
  builder = Prepared(root, splits)
  path = builder.data_path / _INDEX
  files.remove_temporary(path.parent)
  if path.exists() and files.read_json(path) != index:
    raise errors.InputError(
      f'{builder.data_dir}: was made of other .npz files; remove it first'
    )
  with _nameless_owners():
    builder.download_and_prepare()
  files.write_json(path, index)
  print(f'{builder.data_dir}: {builder.info.splits.total_num_examples} videos')


@contextlib.contextmanager
def _nameless_owners():
  """Let files be those of a user without a name, as containers have them.

  TFDS asks for files' sizes by epath's stat, which looks up their owner, too.
  """
  known = {(pwd, 'getpwuid'): 'pw_name', (grp, 'getgrgid'): 'gr_name'}
  before = {place: getattr(*place) for place in known}

  def look_up(place, number):
    try:
      return before[place](number)
    except KeyError:
      return types.SimpleNamespace(**{known[place]: str(number)})

  for place in known:
    setattr(*place, functools.partial(look_up, place))
  try:
    yield
  finally:
    for place, function in before.items():
      setattr(*place, function)


def _checksums(paths):
  """Return a number for the content of each npz, which is not read for it."""

  def one(path):
    with path.open('rb') as f, zipfile.ZipFile(f) as archive:
      members = sorted((i.filename, i.CRC) for i in archive.infolist())
    return zlib.crc32(repr(members).encode())

  with futures.ThreadPoolExecutor(8) as pool:
    return list(pool.map(one, paths))


class TfdsSource:
  """A split of what `prepare` wrote in a data root, as the npz files' source.

  Raises:
    errors.InputError: Nothing whole is there, or of another shape.
  """

  def __init__(
    self, root: epath.Path, split: str, shape: tuple[int, int, int]
  ) -> None:
    self.shape = shape
    folder = root / 'tfds' / 'prepared' / str(Prepared.VERSION)
    if not (folder / _INDEX).exists():
      raise errors.InputError(
        f'{folder}: no {_INDEX}; `python -m backtal_jax.prepare tfds` '
        'converts npz files'
      )
    index = files.read_json(folder / _INDEX)
    if split not in index:
      raise errors.InputError(
        f'{folder}: no split {split!r}, found {", ".join(index)}'
      )
    builder = tfds.builder_from_directory(folder)
    spec = builder.info.features
    found = (*spec['feature'].shape, *spec['label'].shape)
    if found != self.shape:
      raise errors.InputError(
        f'{folder}: T, D, C are {found}, config.data.num_snippets and '
        f'config.model.feature_dim, num_classes are {self.shape}'
      )
    self._index = index[split]
    self.names = self._index['names']
    self._records = builder.as_data_source(split)

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, i: int) -> sources.Example:
    if not 0 <= i < len(self):
      raise IndexError(i)
    record = self._records[i]
    if record.pop('index') != i:
      raise errors.InputError(f'{self.names[i]}: not record {i} of its split')
    # What was one number or text comes as an array or bytes.
    lengths = {'frame_num': int, 'fps': float, 'duration': float}
    found = {key: kind(record[key]) for key, kind in lengths.items()}
    return sources.Example(**record | found | {'name': record['name'].decode()})

  def labels(self) -> np.ndarray:
    """See sources.Source."""
    labels = np.zeros((len(self), self.shape[2]), np.float32)
    for row, present in zip(labels, self._index['labels'], strict=True):
      row[present] = 1
    return labels

  def video_names(self) -> list[str]:
    """See sources.Source."""
    return self._index['video_names']

  def num_clicks(self) -> list[int]:
    """See sources.Source."""
    return self._index['num_clicks']
