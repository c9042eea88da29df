"""Whose a workdir is: one run at a time, of one config."""

import contextlib
import fcntl
import json
import os

from backtal_jax import errors, files
from backtal_jax.run import hosts


@contextlib.contextmanager
def lock(workdir):
  """Keep other runs out of the workdir; a run that dies lets go of it.

  Raises:
    errors.InputError: another run is in it.
  """
  if not hosts.is_main_process():
    yield
    return
  workdir.mkdir(parents=True, exist_ok=True)
  if not os.path.isdir(workdir):  # a bucket: nothing to lock there
    yield
    return
  with open(workdir / '.lock', 'w') as f:
    try:
      fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise errors.InputError(
        f'{workdir}: another run is using it; choose another --workdir'
      ) from None
    yield


def check(workdir, config):
  """Refuse a workdir that holds a run of another config.

  Only `train.num_epochs` may have been raised since, and the number of
  devices is how a run is made, not what it is.

  Raises:
    errors.InputError: names every field that differs.
  """
  path, ours = workdir / 'config.json', json.loads(config.to_json())
  if not path.exists():
    return
  theirs = files.read_json(path)
  if theirs['train']['num_epochs'] <= ours['train']['num_epochs']:
    theirs['train']['num_epochs'] = ours['train']['num_epochs']
  theirs['mesh'] = ours['mesh']
  different = _differences('config', theirs, ours)
  if different:
    raise errors.InputError(
      f'{workdir}: holds a run of another config: {"; ".join(different)}; '
      'choose another --workdir'
    )


def claim(workdir, config):
  """Make the workdir this run's: check it and write its config.json."""
  check(workdir, config)
  if hosts.is_main_process():
    ours = json.loads(config.to_json())
    files.write_json(workdir / 'config.json', ours, indent=1)


def _differences(name, theirs, ours):
  """List the fields of two configs that differ."""
  if isinstance(theirs, dict) and isinstance(ours, dict):
    return [
      line
      for key in sorted(theirs.keys() | ours.keys())
      for line in _differences(f'{name}.{key}', theirs.get(key), ours.get(key))
    ]
  return [] if theirs == ours else [f'{name} is {theirs} there, {ours} here']
