"""Scaling on paper: python -m benchmarks.scaling --document docs/performance.md

Compiles the THUMOS14 train step for 8 fake devices (it runs nothing), reads
its collectives, and from their bytes, the step's FLOPs and published
bandwidths computes what 1…256 accelerators would do. Expectations, no
measurements.
"""

import argparse
import math
import pathlib
import re

import jax
import jax.numpy as jnp

from backtal_jax import errors, train
from backtal_jax.run import sharding
from benchmarks import document
from configs import thumos14

_OPERATION = re.compile(
  r'= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|'
  r'collective-permute|collective-broadcast|ragged-all-to-all)(?:-start)?\('
)
_BATCH_PER_DEVICE = 16
# name: peak TFLOP/s (bfloat16, dense), devices joined by the fast links, their
# GB/s a device and direction, and GB/s a device between such groups.
_MACHINES = {
  'H100, NVLink 4 in eights, InfiniBand NDR': (989, 8, 450, 50),
  'TPU v5e, ICI': (197, 256, 200, 200),
  'TPU v5p, ICI': (459, 256, 600, 600),
}
_UTILISATION = 0.4
_TEXT = """
**What a step says.** THUMOS14 (T 750, widths 2048), compiled for 8 fake
devices, state replicated: {found}. The parameters are
{parameters:.1f} MB; the surplus is {surplus:.2f} %. No activations and no
features travel (`tests/collectives_test.py` checks that).

**Assumptions.** {batch} videos a device; {flops:.0f} GFLOP a video (the
compiler's count); bfloat16 products at {utilisation:.0%} of the peak; gradients
in float32, summed by a ring, 2(n−1)/n of their bytes a device, inside a group
of fast links, then between groups; nothing overlaps the backward pass (XLA does
overlap, so this errs on the slow side). Evaluation and input are left out.
Published figures: H100 SXM 989 TFLOP/s, NVLink 450 GB/s and 400 Gb/s InfiniBand
a GPU and direction; TPU v5e 197 TFLOP/s, 200 GB/s; v5p 459 TFLOP/s, 600 GB/s.

| accelerators | {head} |
| --- | {rule} |
{rows}

Each cell: milliseconds a step, efficiency against one accelerator. The batch
grows with the accelerators: 16 × n videos are more than THUMOS14's 200 from n =
13 on, so the large numbers are for sets of HACS's size.
"""


def compiled_step():
  """Compile the step for 8 devices; return its text, FLOPs and parameters."""
  config, mesh = thumos14.get_config(), sharding.make_mesh((8,))
  _, new_state, layout, step = train.build(config, mesh)
  shapes = jax.eval_shape(new_state)
  place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
  state = jax.tree.map(place, shapes, layout)
  size = 8  # one video a device: the collectives do not depend on it
  arrays = {
    'feature': ((size, 750, 2048), jnp.float32),
    'label': ((size, 20), jnp.float32),
    'click': ((size, 750), jnp.int32),
    'mask': ((size,), bool),
  }
  batch = {
    k: jax.ShapeDtypeStruct(*v, sharding=sharding.split(mesh))
    for k, v in arrays.items()
  }
  program = step.lower(state, batch).compile()
  flops = program.cost_analysis()['flops']  # of one device: one video
  return program.as_text(), flops, shapes.params


def collectives(text) -> list:
  """Return [(operation, shapes of its arrays)] of a compiled program."""
  found = []
  for line in text.splitlines():
    if match := _OPERATION.search(line):
      dims = re.findall(r'\w+\[([\d,]*)\]', match[1])
      shapes = [tuple(map(int, d.split(','))) if d else () for d in dims]
      found.append((match[2], shapes))
  return found


def numbers(found, *names) -> int:
  """Count the numbers that the operations of these names carry."""
  return sum(
    math.prod(shape)
    for name, shapes in found
    if name in names
    for shape in shapes
  )


def step_seconds(machine, devices, flops, size) -> float:
  """Return a step's time: arithmetic, then two levels of rings."""
  peak, group, fast, slow = machine
  ring = lambda n, rate: 2 * (n - 1) / n * size / (rate * 1e9)
  inside, groups = min(devices, group), -(-devices // group)
  arithmetic = _BATCH_PER_DEVICE * flops / (peak * 1e12 * _UTILISATION)
  # Between groups every device carries its share of the sum.
  return arithmetic + ring(inside, fast) + ring(groups, slow) / inside


def section(found, flops, size) -> str:
  """Lay out what the program says and what follows from it.

  Args:
    found: of `collectives`.
    flops: of a video.
    size: bytes of the parameters.
  """
  names = dict.fromkeys(name for name, _ in found)
  total = 4 * numbers(found, *names)
  rows = []
  for n in (1, 2, 4, 8, 16, 32, 64, 128, 256):
    cells = []
    for machine in _MACHINES.values():
      one, many = (step_seconds(machine, m, flops, total) for m in (1, n))
      cells.append(f'{1000 * many:.1f} ms, {one / many:.0%}')
    rows.append(f'| {n} | {" | ".join(cells)} |')
  return _TEXT.format(
    found='; '.join(
      f'{sum(name == n for n, _ in found)} {name}, '
      f'{4 * numbers(found, name) / 1e6:.1f} MB in all'
      for name in names
    ),
    parameters=size / 1e6,
    surplus=100 * (total / size - 1),
    batch=_BATCH_PER_DEVICE,
    flops=flops / 1e9,
    utilisation=_UTILISATION,
    head=' | '.join(_MACHINES),
    rule=' | '.join('---' for _ in _MACHINES),
    rows='\n'.join(rows),
  )


def main():
  """Renew the section."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--document', required=True, help='performance.md')
  args = parser.parse_args()
  jax.config.update('jax_num_cpu_devices', 8)
  with errors.one_line():
    text, flops, params = compiled_step()
    size = 4 * sum(x.size for x in jax.tree.leaves(params))
    written = section(collectives(text), flops, size)
    document.replace(pathlib.Path(args.document), 'scaling', written)


if __name__ == '__main__':
  main()
