"""Functions that others call say their types; mypy in lint follows."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / 'backtal_jax'
_CALLED = '__init__', '__call__'


def _public(node):
  """Yield functions and methods that others may call."""
  for child in ast.iter_child_nodes(node):
    name = getattr(child, 'name', '_')
    if isinstance(child, ast.ClassDef) and name[0] != '_':
      yield from _public(child)
    elif isinstance(child, ast.FunctionDef):
      yield from [child] if name[0] != '_' or name in _CALLED else []


def _untyped(function):
  a = function.args
  known = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
  names = [x.arg for x in known if x and x.annotation is None]
  names = [name for name in names if name not in ('self', 'cls')]
  if function.returns is None and function.name != '__init__':
    names.append('return')
  return names


def test_public_functions_are_typed():
  found = {
    f'{path.relative_to(PACKAGE)}:{function.lineno} {function.name}': names
    for path in PACKAGE.rglob('*.py')
    for function in _public(ast.parse(path.read_text()))
    if (names := _untyped(function))
  }
  assert not found
