"""Eight fake devices for every test, and where real data would lie."""

import os
import pathlib
import tempfile

# Tests spend their time compiling: less of it, in what they launch, too.
# XLA_FLAGS= before pytest compiles as users do; .ci/run does so for some.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
)

import hypothesis
import jax
import pytest

from backtal_jax import command_line

command_line.quiet_tensorflow()
jax.config.update('jax_num_cpu_devices', 8)
# Tests compile the same few programs over and over, in subprocesses too.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:  # else: of pytest-xdist
  _CACHE = tempfile.TemporaryDirectory()
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _CACHE.name
jax.config.update(
  'jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR']
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
  'suite',
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile('suite')

SHARED = pathlib.Path(__file__).parents[2] / 'shared'


# Files that take longest, by CPU seconds: workers that begin with them end
# together. Makefile keeps this order (--no-loadscope-reorder).
_LONGEST = 'train', 'faults', 'official', 'main', 'docs', 'speed', 'predict'


def pytest_collection_modifyitems(items):
  """Put the longest files first."""
  place = {f'{name}_test.py': i for i, name in enumerate(_LONGEST)}
  items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope='session')
def shared():
  """Return the folder of real data; skip where it is absent."""
  if not SHARED.is_dir():
    pytest.skip('needs ../shared, the real annotation files')
  return SHARED


@pytest.fixture(scope='session')
def demo_root(tmp_path_factory):
  """Make the embedded data set once."""
  from backtal_jax.data import demo

  root = tmp_path_factory.mktemp('data') / 'demo'
  demo.prepare(root)
  return root
