"""Where `python -m backtal_jax.prepare` was up to 0.2.0; it forwards to it."""

import runpy
import sys

if __name__ == '__main__':
  print(
    'python -m backtal_jax.data.prepare is now python -m backtal_jax.prepare',
    file=sys.stderr,
  )
  runpy.run_module('backtal_jax.prepare', run_name='__main__', alter_sys=True)
