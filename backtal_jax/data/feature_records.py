"""How features were made: what must be equal for two to be comparable.

features.json is written beside extracted features (video/extract) and goes
along to the data root, into the config of a run and so to its checkpoints.
"""

from typing import Any

from etils import epath

from backtal_jax import errors, files

NAME = 'features.json'
VIDEOS = 'videos.csv'  # video_id, duration in seconds, fps of the snippets


def read(folder) -> dict[str, Any]:
  """Return the record of a folder, {} where it has none."""
  path = epath.Path(folder) / NAME
  return files.read_json(path) if path.is_file() else {}


def claim(folder, record: dict[str, Any]) -> None:
  """Make a folder one of features with this record.

  Raises:
    errors.InputError: It holds features that were made otherwise.
  """
  path = epath.Path(folder) / NAME
  if path.exists():
    require(record, files.read_json(path), path)
  else:
    files.write_json(path, record, indent=1)


def require(expected: dict[str, Any], found: dict[str, Any], where) -> None:
  """Refuse features that were made otherwise than expected.

  Weights are told apart by their checksum, not by their file's name.

  Args:
    expected: A record; {} is known of no features, and fits all.
    found: The record of the features at hand, likewise.
    where: What errors call those.

  Raises:
    errors.InputError: Names every field that differs, with both values.
  """
  if not expected or not found:
    return
  flat = [{**r, **r.get('weights', {})} for r in (expected, found)]
  keys = sorted({key for r in flat for key in r} - {'weights'})
  pairs = [(key, *(r.get(key) for r in flat)) for key in keys]
  different = [
    f'{key} is {_shown(b)}, expected {_shown(a)}'
    for key, a, b in pairs
    if _identity(a) != _identity(b)
  ]
  if different:
    raise errors.InputError(
      f'{where}: features made otherwise: {"; ".join(different)}'
    )


def _identity(value):
  return value['sha256'] if isinstance(value, dict) else value


def _shown(value):
  if isinstance(value, dict):
    return f'{value["file"]} ({value["sha256"][:12]}…)'
  return 'none' if value is None else value
