"""The official program's checkpoint files (method.md, section 7).

Only reading and writing a file needs torch, the extra of that name; the
official weights [out, in, k] are our kernels [k, in, out] transposed.
"""

import jax
import numpy as np

from backtal_jax import errors, files

# In the order of the official files.
_MODULES = {
  'filter.conv_1': 'filter_module.conv_1.0',
  'filter.conv_2': 'filter_module.conv_2.0',
  'backbone.conv_1': 'base_module.conv_1',
  'backbone.conv_2': 'base_module.conv_2',
  'backbone.classifier': 'classifier_module.conv',
  'embedding.conv_1': 'embedding_module.conv_1',
  'embedding.conv_2': 'embedding_module.conv_2',
}
_TENSORS = {'kernel': 'weight', 'bias': 'bias'}


def is_official(checkpoint) -> bool:
  """Tell a .pth file from a checkpoint of ours by its name."""
  return files.path(checkpoint).suffix == '.pth'


def names(params) -> dict:
  """Return the tree of `params` with each leaf's official name in its place."""

  def name(path, _):
    path = jax.tree_util.keystr(path, simple=True, separator='.')
    module, _, tensor = path.rpartition('.')
    return f'{_MODULES[module]}.{_TENSORS[tensor]}'

  return jax.tree_util.tree_map_with_path(
    name, params, is_leaf=lambda x: hasattr(x, 'shape')
  )


def read(path) -> tuple[dict[str, np.ndarray], int]:
  """Read the tensors of a .pth file, whatever device they were saved from.

  Args:
    path: of a file that holds a state dict, alone or as `state_dict`; its
      names may begin with `module.`, as torch's DataParallel saves them.

  Returns:
    {official name: float32 array}, and the epoch (-1 where it tells none).

  Raises:
    errors.InputError: torch is not installed; no such file; the file is
      damaged, or holds something else than named tensors.
  """
  path = files.path(path)
  torch = _import_torch(path)
  if not path.is_file():
    raise errors.InputError(f'{path}: no such file')
  with path.open('rb') as f:
    try:
      # weights_only: a file from a stranger must not run code.
      content = torch.load(f, map_location='cpu', weights_only=True)
    except Exception as e:  # torch has no error of its own for a bad file
      reason = str(e).strip().split('\n')[0] or type(e).__name__
      raise errors.InputError(
        f'{path}: not a whole PyTorch checkpoint: {reason:.200}'
      ) from e
  state = content.get('state_dict', content) if _is_dict(content) else None
  if not _is_dict(state) or not all(map(torch.is_tensor, state.values())):
    found = list(content) if _is_dict(content) else type(content).__name__
    raise errors.InputError(
      f'{path}: no state_dict of tensors in it, found {found!s:.200}'
    )
  if all(name.startswith('module.') for name in state):
    state = {k.removeprefix('module.'): v for k, v in state.items()}
  epoch = content.get('epoch', -1)
  return (
    {name: tensor.float().numpy() for name, tensor in state.items()},
    epoch if isinstance(epoch, int) else -1,
  )


def write(path, params, epoch):
  """Write parameters as a file that the official program loads.

  Args:
    path: of the file.
    params: of a models.BackTAL.
    epoch: how many are done.
  """
  torch = _import_torch(path)
  leaves = dict(
    zip(jax.tree.leaves(names(params)), jax.tree.leaves(params), strict=True)
  )
  order = [f'{m}.{t}' for m in _MODULES.values() for t in _TENSORS.values()]
  state = {
    name: torch.from_numpy(np.array(np.asarray(leaves[name]).T, order='C'))
    for name in order
    if name in leaves
  }
  with files.atomic(path) as f:
    torch.save({'epoch': epoch, 'state_dict': state}, f)


def _import_torch(path):
  try:
    import torch
  except ImportError as e:
    raise errors.InputError(
      f"{path}: .pth files need torch: pip install 'backtal-jax[torch]'"
    ) from e
  return torch


def _is_dict(value):
  return isinstance(value, dict) and all(isinstance(k, str) for k in value)
