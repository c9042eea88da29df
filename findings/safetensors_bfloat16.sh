#!/usr/bin/env bash
# safetensors 0.8.0, jax 0.10.2, Python 3.11.
#
# Guess:  safetensors.flax reads from memory what it reads from a file, and what it
#         has saved itself.
# Is:     a bfloat16 array is saved by `save`, and read by `load_file`; `load`, given
#         the same bytes, raises KeyError('BF16'). So does safetensors.numpy.
# Seen:   float16 load, load_file: equal, equal
#         bfloat16 load, load_file: KeyError('BF16'), equal
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - "$folder" <<'END'
import pathlib
import sys

import jax.numpy as jnp
from safetensors import flax

path = pathlib.Path(sys.argv[1]) / 'w.safetensors'
seen = {}


def outcome(read, given, expected):
  try:
    return 'equal' if (read(given)['w'] == expected).all() else 'other'
  except KeyError as e:
    return repr(e)


for name in ('float16', 'bfloat16'):
  array = jnp.arange(4.0, dtype=name)
  path.write_bytes(flax.save({'w': array}))
  seen[name] = [
    outcome(flax.load, path.read_bytes(), array),
    outcome(flax.load_file, path, array),
  ]
  print(f'{name} load, load_file:', ', '.join(seen[name]))
expected = {'float16': ['equal', 'equal'], 'bfloat16': ["KeyError('BF16')", 'equal']}
sys.exit(seen != expected)
END
