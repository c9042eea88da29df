#!/usr/bin/env bash
# jax 0.10.2, numpy 2.2.6, Python 3.11, two cores or more.
#
# Guess:  JAX dispatches asynchronously, so that two programs that need nothing of each
#         other, dispatched one after the other, run side by side on a CPU of two cores.
# Is:     what one Python thread dispatches to a CPU runs one after the other, though the
#         calls return at once; dispatched by two threads, the same two run side by side.
# Seen:   (least of nine, as parts of the time of one program)
#         calls returned after      0.00
#         both, by one thread       1.70
#         both, by two threads      1.04
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.2.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'END'
import os
import sys
import time
from concurrent import futures

import jax
import jax.numpy as jnp
from jax import lax

if len(os.sched_getaffinity(0)) < 2:
  sys.exit('needs two cores')


@jax.jit
def program(x):  # a chain of small steps, which no second core can help with
  return lax.fori_loop(0, 20_000, lambda _, y: jnp.sin(y @ y) + x, x)


def measure(function):
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


inputs = jnp.ones((32, 32)), jnp.zeros((32, 32))
jax.block_until_ready([program(x) for x in inputs])
pool = futures.ThreadPoolExecutor(2)
run = lambda x: program(x).block_until_ready()
rows = {
  'calls returned after': lambda: results.extend(map(program, inputs)),
  'both, by one thread': lambda: jax.block_until_ready([*map(program, inputs)]),
  'both, by two threads': lambda: list(pool.map(run, inputs)),
}
results, seen = [], {name: [] for name in rows}
for _ in range(9):  # the least of each: other work only ever adds
  one = min(measure(lambda: run(inputs[0])) for _ in range(2))
  for name, function in rows.items():
    seen[name].append(measure(function) / one)
    jax.block_until_ready(results)
least = {name: min(ratios) for name, ratios in seen.items()}
for name, ratio in least.items():
  print(f'{name:24s} {ratio:.2f}')
assert least['calls returned after'] < 0.1
assert least['both, by one thread'] > 1.5
assert least['both, by two threads'] < 1.3
END
