"""PyTorch's files, read without running any code that they name."""

import argparse
import codecs
import collections
import datetime
import pathlib
import re
import types
import warnings
from typing import Any

import numpy as np
from etils import epath
from numpy._core import multiarray

from backtal_jax import errors

# How torch.save begins a file: a zip archive or, formerly, a pickled number.
BEGINS = b'PK', b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'


def load(path: epath.Path, expected: str) -> Any:
  """Load a file, onto the CPU, without running any code that it names.

  Errors say what was `expected` in it.

  Raises:
    errors.InputError: torch is not installed; the file is damaged or holds
      what could run code.
  """
  torch = errors.need('torch', 'torch', path)
  with path.open('rb') as f:
    # A zip archive, or a pickle of protocol 2 or more.
    if not f.read(2).startswith((b'PK', b'\x80')):
      raise errors.InputError(
        f'{path}: not a whole PyTorch file: begins as no such file does'
      )
    f.seek(0)
    try:
      with (
        torch.serialization.safe_globals(_harmless()),
        warnings.catch_warnings(action='ignore'),
      ):
        return torch.load(f, map_location='cpu', weights_only=True)
    except Exception as e:  # torch has no error of its own for a bad file
      named = re.search(
        r'GLOBAL (\S+) (?:was not|whose)|got <class \'(\S+)\'>', str(e)
      )
      reason = 'it is damaged, cut off or of another kind'
      if named:
        reason = (
          f'it holds {named[1] or named[2]}, which could run code; expected '
          f'{expected}, and plain values beside it'
        )
      elif 'TorchScript' in str(e):
        reason = 'it is a TorchScript archive, expected a state_dict'
      elif 'Unsupported operand' in str(e):
        reason = 'it is pickled as torch.save does not; save it by that'
      raise errors.InputError(
        f'{path}: not a whole PyTorch file: {reason}'
      ) from e


def _harmless() -> list[object]:
  """List what may lie beside a state dict: it holds values and runs no code."""
  old = 'numpy.core.multiarray.'  # as NumPy 1 names them
  return [
    *{type(np.dtype(kind)) for kind in '?bBhHiIlLqQefdgFDGSUMm'},
    *(np.dtype, np.ndarray, multiarray.scalar, multiarray._reconstruct),
    (multiarray.scalar, f'{old}scalar'),
    (multiarray._reconstruct, f'{old}_reconstruct'),
    *(bool, int, float, complex, str, list, tuple, dict, set, frozenset),
    *(slice, range, codecs.encode),
    # Containers that torch fills no others than these of.
    (lambda *_: collections.OrderedDict(), 'collections.defaultdict'),
    (lambda *_: [], 'collections.deque'),
    *(argparse.Namespace, types.SimpleNamespace),
    *(pathlib.PosixPath, datetime.datetime, datetime.timedelta),
  ]
