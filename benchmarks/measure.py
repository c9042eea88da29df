"""Timing, and the limits that timings are compared with."""

import time

import jax
import jax.numpy as jnp
import numpy as np

_SIZE = 3072


def seconds(function) -> float:
  """Time one call, its arrays on the device ready."""
  start = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - start


def interleaved(*functions, repeats=5) -> list[float]:
  """Return each function's median time, the calls taking turns.

  So that a machine that slows down slows all of them down.
  """
  for function in functions:
    jax.block_until_ready(function())
  times = [[seconds(f) for f in functions] for _ in range(repeats)]
  return np.median(times, axis=0).tolist()


def make_square():
  """Return a large square product in float32, and its number of FLOPs."""
  a = jax.random.normal(jax.random.key(0), (_SIZE, _SIZE))
  dot = jax.jit(lambda a: jnp.dot(a, a, precision='highest'))
  return lambda: dot(a), 2 * _SIZE**3


def make_copy(num_bytes):
  """Return a copy of so many bytes in memory."""
  source = np.ones(max(num_bytes, 1), np.uint8)
  target = np.empty_like(source)
  return lambda: np.copyto(target, source)


def result(seconds, limit_seconds, **others) -> dict:
  """Lay out one result."""
  ratio = seconds / limit_seconds
  return dict(
    seconds=seconds, limit_seconds=limit_seconds, ratio=ratio, **others
  )


def of_sets(names, function) -> dict:
  """Return THUMOS14's result, which holds those of the other data sets."""
  found = {name: function(name) for name in names}
  return found.pop('thumos14') | {'sets': found}


def table(results) -> str:
  """Lay results out as Markdown, one line a benchmark and data set.

  They are {benchmark: what `result` returned, with other data sets in sets}.
  """
  lines = [
    '| benchmark | data set | seconds | limit | ratio | plain form | '
    'plain / ours | GFLOP a video | temporary MiB |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
  ]
  for name, result in results.items():
    for kind, r in {'thumos14': result, **result.get('sets', {})}.items():
      plain = r.get('plain_seconds')
      flop, temp = r.get('gflop_per_video'), r.get('temp_bytes')
      cells = [
        name,
        kind,
        f'{r["seconds"]:.3g}',
        f'{r["limit_seconds"]:.3g}',
        f'{r["ratio"]:.2f}',
        f'{plain:.3g}' if plain else '',
        f'{plain / r["seconds"]:.1f}' if plain else '',
        f'{flop:.1f}' if flop else '',
        f'{temp / 2**20:.0f}' if temp else '',
      ]
      lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)
