"""Eight fake devices for every test, and where real data would lie."""

import os
import pathlib
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
# Tests spend their time compiling: less of it, in what they launch, too.
# XLA_FLAGS= before pytest compiles as users do; .ci/run does so for some.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
)

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
# Tests compile the same few programs over and over, in subprocesses too.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:  # else: of pytest-xdist
  _CACHE = tempfile.TemporaryDirectory()
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _CACHE.name
jax.config.update(
  'jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR']
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)

SHARED = pathlib.Path(__file__).parents[2] / 'shared'


@pytest.fixture(scope='session')
def shared():
  """Return the folder of real data; skip where it is absent."""
  if not SHARED.is_dir():
    pytest.skip('needs ../shared, the real annotation files')
  return SHARED


@pytest.fixture(scope='session')
def demo_root(tmp_path_factory):
  """Make the embedded data set once."""
  from backtal_jax.data.prepare import demo

  root = tmp_path_factory.mktemp('data') / 'demo'
  demo.prepare(root)
  return root
