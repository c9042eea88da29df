"""Which names of several sources mean one video."""

import collections
import difflib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable

from backtal_jax import files

_ENDINGS = *files.VIDEO_SUFFIXES, '.npy', '.npz'


def match_one(name: str, known: Collection[str]) -> str | None:
  """Return the name in `known` that means the same video, or None."""
  return match([name], known)[0].get(name)


def match(
  names: Iterable[str],
  known: Iterable[str],
  respell: Callable[[str], str] | None = None,
) -> tuple[dict[str, str], list[str]]:
  """Match video names of one source with the `known` ones of another.

  The name itself goes first (there are YouTube names that start with `v_`),
  then `v_` before it makes no difference, then folders, endings, letter case
  and how accents are encoded neither, unless several of `known` differ by
  these.

  Args:
    names: To be matched.
    known: To be matched with.
    respell: What a tool makes of names: `names` are of its spelling, so that
      a name itself tells no more than any other of the same spelling.

  Returns:
    {name: known name}, and the names without a match in their order.
  """
  known = known if isinstance(known, dict) else dict.fromkeys(known)
  mapping, rest = {}, []
  for name in dict.fromkeys(names):
    forms = (name, f'v_{name}', name.removeprefix('v_'))
    match = next((form for form in forms if form in known), None)
    if match is None or respell:
      rest.append(name)
    else:
      mapping[name] = match
  bare = collections.defaultdict(list)
  key = lambda name: respell(_bare(name)) if respell else _bare(name)
  for name in known if rest else ():
    bare[key(name)].append(name)
  for name in rest:
    if len(found := bare[key(name)]) == 1:
      mapping[name] = found[0]
  return mapping, [name for name in rest if name not in mapping]


def _bare(name: str) -> str:
  """Return what the names of one video have in common."""
  name = unicodedata.normalize('NFC', name).casefold()
  name = re.split(r'[/\\]', unicodedata.normalize('NFC', name))[-1]
  stem, dot, ending = name.rpartition('.')
  return (stem if dot + ending in _ENDINGS else name).removeprefix('v_')


def nearest(name: str, known: Collection[str]) -> str:
  """Return '; the nearest name is …' for a message, '' if none is near."""
  found = difflib.get_close_matches(name, known, n=1)
  return f'; the nearest name is {found[0]!r}' if found else ''
