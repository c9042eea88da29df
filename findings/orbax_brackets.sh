#!/usr/bin/env bash
# orbax-checkpoint 0.12.8, jax 0.10.2, Python 3.11.
#
# Guess:  a checkpoint can be restored from the folder it was saved to, whatever the
#         folder's name, as a sweep's `lr=[1e-3]`.
# Is:     saving succeeds in silence; restoring finds no arrays in it. What the
#         processes wrote is merged by Path.glob, to which [1e-3] is a pattern.
# Seen:   lr=1e-3: restored
#         lr=[1e-3]: saved, then ValueError: NOT_FOUND
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - "$folder" 2> /dev/null <<'END'
import pathlib
import sys

import numpy as np
import orbax.checkpoint as ocp

seen = {}
for name in ('lr=1e-3', 'lr=[1e-3]'):
  path = pathlib.Path(sys.argv[1]) / name / 'state'
  checkpointer = ocp.StandardCheckpointer()
  checkpointer.save(path, {'w': np.arange(3.0)})
  checkpointer.wait_until_finished()
  try:
    checkpointer.restore(path)
    seen[name] = 'restored'
  except ValueError as e:
    seen[name] = f'saved, then ValueError: {str(e).split(":")[0]}'
  print(f'{name}: {seen[name]}')
assert list(seen.values()) == ['restored', 'saved, then ValueError: NOT_FOUND']
END
