"""What command lines have in common; flags of main are absl's."""

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Callable
from typing import Any, NoReturn

# Of a config file's name, which ml_collections cuts there.
COLON = '; what follows a colon is a recipe, so that no path may hold one'


def quiet_tensorflow() -> None:
  """Keep TensorFlow, imported later if at all, from what it does unasked.

  It only reads files here, and would log much and import Keras 3, a second.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')


class Parser(argparse.ArgumentParser):
  """A command line whose mistakes end in one line.

  An empty value, a number that is not finite, and a list given twice, of which
  the first would be lost, are mistakes; any other option's last value counts.
  """

  def __init__(self, *args: Any, **kwargs: Any) -> None:
    super().__init__(*args, **{'allow_abbrev': False} | kwargs)
    self.register('type', float, number)

  def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
    """Refuse what argparse lets pass; it calls this for every command."""
    args = list(sys.argv[1:] if args is None else args)
    seen, before = set(), ''
    for argument in args:
      option, equals, value = argument.partition('=')
      is_option = option.startswith('--') and len(option) > 2
      if not argument or (is_option and equals and not value):
        name = option if is_option else before
        self.error(f'{name or "an argument"}: empty, expected a value')
      if is_option:
        action = self._option_string_actions.get(option)
        if option in seen and action and action.nargs not in (None, 0):
          self.error(f'{option}: given twice, expected once')
        seen.add(option)
        before = option
    return super().parse_known_args(args, namespace)

  def _parse_optional(self, arg_string: str) -> Any:
    """Take for a value what begins with one dash, as YouTube's names may.

    It is argparse's; our own options but -h begin with two.
    """
    is_option = arg_string.startswith('--') or arg_string == '-h'
    return super()._parse_optional(arg_string) if is_option else None

  def error(self, message: str) -> NoReturn:
    """Print a mistake in one line and end."""
    if 'expected one argument' in message or 'at least one arg' in message:
      message += '; a value that begins with -- is written --option=VALUE'
    sys.exit(f'error: {" ".join(message.split())} (see {self.prog} --help)')


def command(*arguments: object) -> str:
  """Return Python's command line as a shell takes it, for users to copy."""
  return shlex.join(['python', *map(str, arguments)])


def suffix(text: str) -> str:
  """Read the ending of files' names, for argparse."""
  if not re.fullmatch(r'\.\w+', text):
    raise argparse.ArgumentTypeError(f'{text}, expected an ending like .mp4')
  return text


def at_least(low: int) -> Callable[[str], int]:
  """Return what reads an integer that is not lower, for argparse."""

  def number(text):
    value = int(text)
    if value < low:
      raise argparse.ArgumentTypeError(f'{text}, expected {low} or more')
    return value

  return number


def number(text: str) -> float:
  """Read a number that is finite, for argparse."""
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(text)
  return value
