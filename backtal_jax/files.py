"""Files: whole under their final name or absent, and found where users say."""

import codecs
import contextlib
import errno
import fcntl
import glob
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

from etils import epath

from backtal_jax import errors

# Endings of what is a video to all: the page, extraction, prediction, names.
VIDEO_SUFFIXES = (
  '.3gp', '.avi', '.flv', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg',
  '.mpg', '.mts', '.ogv', '.ts', '.webm', '.wmv',
)  # fmt: skip
# What a rename says over an existing file where that is not possible.
_NO_REPLACE = (errno.EEXIST, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
# What flock says where there are no locks: Lustre, NFS, some FUSE.
_NO_LOCKS = (
  errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL
)  # fmt: skip
# Endings of names that say what is in a file.
_FORMATS = (
  '.avi', '.bin', '.ckpt', '.csv', '.eaf', '.h5', '.hdf5', '.html', '.jpeg',
  '.jpg', '.json', '.jsonl', '.mkv', '.mp4', '.npy', '.npz', '.onnx',
  '.parquet', '.pb', '.pdf', '.pkl', '.png', '.pt', '.pth', '.py',
  '.safetensors', '.srt', '.stablehlo', '.svg', '.tflite', '.tsv', '.txt',
  '.vtt', '.webm', '.xls', '.xlsx', '.xml', '.yaml', '.yml', '.zip',
)  # fmt: skip


def path(name: epath.PathLike) -> epath.Path:
  """Return the path that a user named, `~` being the home folder.

  The one place where text becomes a path: a shell expands `--x ~/y`, but not
  `--x=~/y`, nor what stands in a config, a list or a notebook.

  Raises:
    errors.InputError: There is no home folder, as in some containers.
  """
  text = os.path.expanduser(os.fspath(name))
  if text == '~' or text.startswith('~/'):
    raise errors.InputError(f'{text}: this user has no home folder; set HOME')
  return epath.Path(text)


def cache(*parts: str) -> epath.Path | None:
  """Return where what can be made again is kept, None if there is no home.

  In $XDG_CACHE_HOME (default ~/.cache).
  """
  try:
    home = path(os.environ.get('XDG_CACHE_HOME') or '~/.cache')
  except errors.InputError:
    return None
  return home.joinpath('backtal_jax', *parts)


def modified(found: epath.Path) -> float:
  """Return when a file was changed last, 0 where there is none.

  Not by epath's stat, which wants its owner to have a name.
  """
  if os.path.exists(found):
    return os.path.getmtime(found)
  return found.stat().mtime if found.exists() else 0


@contextlib.contextmanager
def naming(name: epath.Path) -> Iterator[None]:
  """Name a file in whatever the system says of it without a name."""
  try:
    yield
  except OSError as e:
    if e.filename is None:
      e.filename = str(name)
    raise


def lock(file: IO[Any], name: epath.Path, taken: str) -> None:
  """Lock an open file until it is closed or the process ends.

  Where the file system has no locks, a warning says what is not protected.

  Raises:
    errors.InputError: Says `taken`: another process has the lock.
  """
  try:
    with naming(name):
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise errors.InputError(taken) from None
  except OSError as e:
    if e.errno not in _NO_LOCKS:
      raise
    print(
      f'{name}: this file system has no locks ({e.strerror}); nothing keeps a '
      'second run out',
      file=sys.stderr,
    )


def make_folder(folder: epath.Path) -> None:
  """Make a folder and those above it, where they are missing.

  Raises:
    errors.InputError: Something else is there.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except (FileExistsError, NotADirectoryError) as e:
    raise errors.InputError(
      f'{e.filename}: a file or a link that leads nowhere, expected a folder'
    ) from e


@contextlib.contextmanager
def atomic(final: epath.Path, mode: str = 'wb') -> Iterator[IO[Any]]:
  """Open a temporary neighbour of a file; rename it when the block succeeds.

  Its folder is made where it is missing. A link stays, what it leads to is
  replaced. If the block raises, nothing is left behind.

  Raises:
    errors.InputError: There is a folder of that name, or no way to it.
  """
  if os.path.islink(final):
    final = path(os.path.realpath(final))  # which epath's resolve is not
  if final.is_dir():
    raise errors.InputError(f'{final}: a folder, expected a file to write')
  make_folder(final.parent)
  # Of the name, which may be as long as names can be, only the beginning.
  temporary = final.with_name(
    f'.{final.name[:20]}.{os.getpid()}.{secrets.token_hex(4)}.tmp'
  )
  try:
    with naming(final):
      with temporary.open(mode) as f:
        yield f
      _rename(temporary, final)
  except BaseException:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    raise


def _rename(temporary, final):
  """Rename a file, over another one if there is one."""
  try:
    temporary.replace(final)
  except OSError as e:
    if e.errno not in _NO_REPLACE or not final.is_file():
      raise
    print(
      f'{final}: this file system replaces no files ({e.strerror}); if this '
      'ends now, neither the old one nor the new one is there',
      file=sys.stderr,
    )
    final.unlink()
    temporary.rename(final)


def name_of(video: str) -> str:
  """Return the name of a video as that of a file."""
  return video.replace('/', '_')


def names_of(videos: Iterable[str]) -> dict[str, str]:
  """Return how the file of each video is called, by its name.

  Raises:
    errors.InputError: Two videos would be one file.
  """
  owner: dict[str, str] = {}
  for video in videos:
    if (other := owner.setdefault(name_of(video), video)) != video:
      raise errors.InputError(
        f'videos {other!r} and {video!r} would be one file, {name_of(video)}'
      )
  return {video: name for name, video in owner.items()}


def write_json(
  name: epath.Path, value: object, indent: int | None = None
) -> None:
  """Write `value` as JSON, atomically; NaN is refused."""
  text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
  write_text(name, text + '\n')


def write_text(name: epath.Path, text: str) -> None:
  """Write UTF-8, atomically."""
  with atomic(name) as f:
    f.write(text.encode())


def read_text(name: epath.Path) -> str:
  """Read UTF-8 or marked UTF-16 text, without its byte-order mark.

  Raises:
    errors.InputError: The file is missing or is not UTF-8.
  """
  if not name.is_file():
    raise errors.InputError(f'{name}: no such file')
  try:
    with naming(name):
      data = name.read_bytes()
      # Spreadsheets and Praat write UTF-16, with a mark, too.
      is_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
      return data.decode('utf-16' if is_16 else 'utf-8-sig')
  except UnicodeDecodeError as e:
    raise errors.InputError(f'{name}: not UTF-8 text: {e}') from e


def require_ending(
  output: epath.Path, *endings: str, folder: bool = False
) -> None:
  """Refuse an output whose ending is that of a format that is not written.

  Any ending that is no format's is right. Without `endings` the output is a
  `folder`, which it also may be where that is said.

  Raises:
    errors.InputError: Names the ending, and those that are right.
  """
  found = output.suffix.lower()
  if found in _FORMATS and found not in endings:
    expected = [*endings, *['the name of a folder'] * (folder or not endings)]
    raise errors.InputError(
      f'{output}: ends in {output.suffix}, which is not what is written; '
      f'expected {" or ".join(expected)}'
    )


def read_json(name: epath.Path) -> Any:
  """Read a JSON file, see `parse_json`."""
  return parse_json(read_text(name), name)


def parse_json(text: str | bytes, where: object) -> Any:
  """Return what a JSON text holds; a key twice in an object is an error.

  Raises:
    errors.InputError: Names `where`: it is not JSON.
  """

  def unique(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
      keys = [key for key, _ in pairs]
      twice = next(key for key in keys if keys.count(key) > 1)
      raise errors.InputError(f'{where}: duplicate key {twice!r}')
    return found

  try:
    return json.loads(text, object_pairs_hook=unique)
  except errors.InputError:
    raise
  except ValueError as e:
    raise errors.InputError(f'{where}: not JSON: {e}') from e
  except RecursionError as e:
    raise errors.InputError(f'{where}: not JSON: nested too deeply') from e


def read_json_lines(name: epath.Path) -> list[dict[str, Any]]:
  """Read the objects of JSON lines, none if the file is missing.

  What is no whole line, as where a run died, is left out.
  """
  rows = []
  for line in name.read_text().splitlines() if name.exists() else ():
    with contextlib.suppress(errors.InputError):
      rows.append(parse_json(line, name))
  return [row for row in rows if isinstance(row, dict)]


def listed(folder: epath.Path, *endings: str) -> list[epath.Path]:
  """List the files in a folder, none if it is missing, by their names.

  Hidden ones are left out, and those with none of the endings. These are no
  patterns: the folder's own name may hold `[`, which patterns would read.
  """
  names = folder.iterdir() if folder.is_dir() else ()
  return sorted(
    p for p in names if p.name[0] != '.' and p.name.endswith(endings)
  )


@contextlib.contextmanager
def no_pattern(folder: epath.Path) -> Iterator[epath.Path]:
  """Yield a name for a folder that cannot be taken for a pattern.

  Orbax and TensorFlow find files by patterns that begin with their folder's
  name, so in `lr=[1e-3]` none. The name is that of a temporary link.
  """
  text = os.path.abspath(folder)
  if '://' in os.fspath(folder) or glob.escape(text) == text:
    yield folder
    return
  with tempfile.TemporaryDirectory() as scratch:
    link = os.path.join(scratch, 'link')
    os.symlink(text, link)
    yield path(link)


def remove_temporary(folder: epath.Path) -> None:
  """Remove what `atomic` left in a folder whose process was killed."""
  for left in folder.iterdir() if folder.is_dir() else ():
    if left.name[0] == '.' and left.name.endswith('.tmp'):
      left.unlink()


def find(name: epath.PathLike, root: epath.PathLike) -> epath.Path:
  """Look a file of a config up from the current folder, then in its `root`.

  Raises:
    errors.InputError: It is in neither.
  """
  for candidate in (path(name), path(root) / path(name)):
    if candidate.is_file():
      return candidate
  raise errors.InputError(f'{name}: no such file, nor {root}/{name}')


def find_all(names: str, root: epath.Path) -> list[epath.Path]:
  """Find files with a comma between them, as config.data.clicks has."""
  return [find(name.strip(), root) for name in names.split(',') if names]
