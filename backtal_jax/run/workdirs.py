"""Whose a workdir is: one run at a time, of one config (see fields.plain)."""

import contextlib
import os
import posixpath
from collections.abc import Iterator, Mapping

from etils import epath

from backtal_jax import errors, fields, files
from backtal_jax.run import hosts
from configs import thumos14


@contextlib.contextmanager
def lock(workdir: epath.Path, config: Mapping[str, object]) -> Iterator[None]:
  """Claim the workdir, and keep other runs out; a run that dies lets go.

  Raises:
    errors.InputError: Another run is in it, or see `compare`.
  """
  with contextlib.ExitStack() as stack:
    if hosts.is_main_process():
      files.make_folder(workdir)
      if os.path.isdir(workdir):  # else a bucket: nothing to lock there
        path = workdir / '.lock'
        taken = f'{workdir}: another run is using it; choose another --workdir'
        files.lock(stack.enter_context(open(path, 'w')), path, taken)
    claim(workdir, config)
    yield


def compare(workdir: epath.Path, config: Mapping[str, object]) -> list[str]:
  """Refuse a workdir that holds a run of another config.

  `train.num_epochs` may have been raised since.

  Returns:
    What differs but is not what a run is, a line each.

  Raises:
    errors.InputError: Names every other field that differs.
  """
  path = workdir / 'config.json'
  if not path.exists():
    return []
  theirs = files.read_json(path)
  if not isinstance(theirs, dict):
    raise errors.InputError(f'{path}: holds no config of a run')
  theirs, ours = map(fields.flatten, (theirs, config))
  # Before a field was there, it was what the base config says.
  base = fields.plain(thumos14.get_config())
  theirs = {k: v for k, v in fields.flatten(base).items() if k in ours} | theirs
  # A loss or a rate that changes over the training knows how long it is.
  scheduled = ours.get('loss.label_warmup') or ours.get('loss.click_trim')
  scheduled = scheduled or ours.get('train.rate_warmup')
  shares = 'loss.click_doubt_from', 'loss.topk_clean_from'
  scheduled = scheduled or any(ours.get(share, 1) < 1 for share in shares)
  free, different = [], []
  for name in sorted(theirs.keys() | ours.keys()):
    there, here = theirs.get(name), ours.get(name)
    if there == here:
      continue
    longer = name == 'train.num_epochs' and (there or 0) < (here or 0)
    if longer and not scheduled:
      continue
    moved = name in fields.FILES and _file_names(there) == _file_names(here)
    same = moved or longer or name in fields.HOW
    found = free if same else different
    found.append(f'config.{name} is {there!r} there, {here!r} here')
  if different:
    raise errors.InputError(
      f'{workdir}: holds a run of another config: {"; ".join(different)}; '
      'choose another --workdir'
    )
  return free


def claim(workdir: epath.Path, config: Mapping[str, object]) -> None:
  """Make the workdir this run's: check it and write its config.json."""
  different = compare(workdir, config)
  if hosts.is_main_process():
    if different:
      print(f'{workdir}: goes on, though {"; ".join(different)}')
    files.write_json(workdir / 'config.json', config, indent=1)


def _file_names(paths):
  """Return the last parts of paths with a comma between them."""
  return [posixpath.basename(p.strip()) for p in str(paths).split(',')]
