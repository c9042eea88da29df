"""From video files to I3D features; needs the extra `video`."""

import importlib
from typing import Any

from backtal_jax import errors


def needs(module: str) -> Any:
  """Import a module of the extra `video`.

  Raises:
    errors.InputError: it is not installed.
  """
  try:
    return importlib.import_module(module)
  except ImportError as e:
    raise errors.InputError(
      f"videos need {module}: pip install 'backtal-jax[video]'"
    ) from e
