#!/usr/bin/env bash
# jax 0.10.2 (jaxlib 0.10.2), four CPU devices, Python 3.11.
#
# Guess:  the largest k of each row of an array that is sharded by rows need no
#         communication, by lax.top_k as by a sort.
# Is:     lax.top_k gathers the whole array on every device (its custom call is not
#         partitioned); jnp.sort of the same rows does not.
# Seen:   all-gathers: top_k 1, sort 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=4 \
  "$folder/venv/bin/python" - <<'END'
import jax
import jax.numpy as jnp

mesh = jax.make_mesh((4,), ('rows',), axis_types=(jax.sharding.AxisType.Auto,))
rows = jax.NamedSharding(mesh, jax.P('rows'))


def gathers(function):
  """Count the all-gathers that a function of [16, 128] compiles to."""
  step = jax.jit(function, in_shardings=rows, out_shardings=rows)
  shape = jax.ShapeDtypeStruct((16, 128), jnp.float32)
  return step.lower(shape).compile().as_text().count(' all-gather(')


top_k = gathers(lambda x: jax.lax.top_k(x, 8)[0])
sort = gathers(lambda x: jnp.sort(x, axis=-1)[:, -8:])
print(f'all-gathers: top_k {top_k}, sort {sort}')
assert (top_k, sort) == (1, 0)
END
