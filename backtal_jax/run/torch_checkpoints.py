"""PyTorch's checkpoint files, the official program's (method.md, section 7).

Only reading and writing a file needs torch, the extra of that name; the
official weights [out, in, k] are our kernels [k, in, out] transposed.
"""

import re

import numpy as np
from etils import epath
from flax import traverse_util

from backtal_jax import errors, files, models
from backtal_jax.data import torch_files

# In the order of the official files.
_MODULES = {
  'filter.conv_1': 'filter_module.conv_1.0',
  'filter.conv_2': 'filter_module.conv_2.0',
  'backbone.conv_1': 'base_module.conv_1',
  'backbone.conv_2': 'base_module.conv_2',
  'backbone.classifier': 'classifier_module.conv',
  'embedding.conv_1': 'embedding_module.conv_1',
  'embedding.conv_2': 'embedding_module.conv_2',
  # No module of the official program, which stops at it: it could not compute
  # what this network does.
  'standard.channels': 'standard_module.channels',
}
_TENSORS = {
  'kernel': 'weight', 'bias': 'bias', 'mean': 'mean', 'scale': 'scale'
}  # fmt: skip
_INNER = re.compile(
  rf'(?:[^.]+\.)*?((?:{"|".join(map(re.escape, _MODULES.values()))})\..+)'
)


def is_saved(path: epath.Path) -> bool:
  """Tell by its first bytes whether torch.save wrote a file."""
  begins = torch_files.BEGINS
  with path.open('rb') as f:
    return f.read(max(map(len, begins))).startswith(begins)


def official(name: str) -> str:
  """Return the official name of a tensor that is `backbone.conv_1.kernel`."""
  module, _, tensor = name.rpartition('.')
  return f'{_MODULES[module]}.{_TENSORS[tensor]}'


def read(path: epath.Path) -> tuple[dict[str, np.ndarray], int]:
  """Read the tensors of a file, whatever device they were saved from.

  It holds a state dict, alone or beside plain values, whose names may begin
  with `module.`, as torch's DataParallel saves them.

  Returns:
    {official name: float32 array}, and the epoch (-1 where it has none).

  Raises:
    errors.InputError: torch is not installed; the file is damaged, or holds
      something else than named tensors.
  """
  content = torch_files.load(path, 'a state_dict of tensors')
  state = _state_dict(content)
  if state is None:
    found = list(content) if _is_dict(content) else type(content).__name__
    raise errors.InputError(
      f'{path}: no state_dict of tensors in it, found {found!s:.200}'
    )
  # Wrappers of a network put names of their own before each tensor's.
  inner = [_INNER.fullmatch(name) for name in state]
  inner = [m[1] if m else name for m, name in zip(inner, state, strict=True)]
  if len(set(inner)) == len(state):
    state = dict(zip(inner, state.values(), strict=True))
  epoch = content.get('epoch', -1)
  return (
    {name: x.detach().float().numpy() for name, x in state.items()},
    int(epoch) if isinstance(epoch, (int, np.integer)) else -1,
  )


def _state_dict(content):
  """Return the one dict of tensors that is, or lies in, a file's content."""
  import torch  # which has read it

  def is_state(x):
    return _is_dict(x) and x and all(map(torch.is_tensor, x.values()))

  if is_state(content):
    return content
  if not _is_dict(content):
    return None
  if is_state(content.get('state_dict')):
    return content['state_dict']
  states = [value for value in content.values() if is_state(value)]
  return states[0] if len(states) == 1 else None


def write(path: epath.Path, params: models.Params, epoch: int) -> None:
  """Write a models.BackTAL's parameters as the official program loads them.

  `epoch` is the number of epochs done.
  """
  torch = errors.need('torch', 'torch', path)
  flat = traverse_util.flatten_dict(params, sep='.')
  leaves = {official(name): tensor for name, tensor in flat.items()}
  order = [f'{m}.{t}' for m in _MODULES.values() for t in _TENSORS.values()]
  state = {
    name: torch.from_numpy(np.array(np.asarray(leaves[name]).T, order='C'))
    for name in order
    if name in leaves
  }
  with files.atomic(path) as f:
    torch.save({'epoch': epoch, 'state_dict': state}, f)


def _is_dict(value):
  return isinstance(value, dict) and all(isinstance(k, str) for k in value)
