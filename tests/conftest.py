"""Eight fake devices for every test, and where real data would lie."""

import hashlib
import os
import pathlib
import platform
import sys
import tempfile
import time
from importlib import metadata

# What is imported is compiled once, wherever this is set and pip was told not
# to: else each worker and launch does so, TensorFlow alone for ten seconds.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)

# Tests spend their time compiling: less of it, in what they launch, too.
# XLA_FLAGS= before pytest compiles as users do; .ci/run does so for some.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  + ' --xla_cpu_parallel_codegen_split_count=1'  # a quarter less
  # A train step compiles in a quarter of the time; later jaxlibs do not know
  # this flag, and end.
  + ' --xla_cpu_use_fusion_emitters=false'
  * metadata.version('jaxlib').startswith('0.10.'),
)

import hypothesis
import jax
import numpy as np
import pytest
from jax._src import compilation_cache

from backtal_jax import command_line

sys.dont_write_bytecode = False  # here, too
command_line.quiet_tensorflow()
jax.config.update('jax_num_cpu_devices', 8)


def _cache():
  """Return the folder of what tests compiled before, on this kind of machine.

  JAX asks for the program, the flags and the version of jaxlib to agree. What
  a killed process left half goes, and after a month everything. Where nothing
  can be kept, it is a folder of this run.
  """
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else ()
  can = [x for x in lines if x.startswith(('flags', 'Features'))][:1]
  kind = hashlib.sha256(f'{platform.uname().machine}{can}'.encode())
  folder = pathlib.Path(cache, 'backtal_jax', 'tests', kind.hexdigest()[:16])
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return tempfile.mkdtemp()
  for path in folder.rglob('*-cache'):
    try:
      made = path.stat().st_mtime
      compilation_cache.decompress_executable(path.read_bytes())
    except Exception:
      made = 0  # or another process is writing it just now
    if time.time() - made > 30 * 24 * 3600:
      path.unlink(missing_ok=True)
  return str(folder)


# Tests compile the same few programs over and over, in subprocesses too.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:  # else: of pytest-xdist
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _cache()
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
# together. Makefile and .ci/run keep this order (--no-loadscope-reorder).
_LONGEST = (
  'video_docs', 'launch', 'slurm', 'staging', 'annotate_project', 'train',
  'without_boundaries', 'annotate_page', 'notebook', 'main', 'video_extract',
  'faults', 'video_i3d', 'video_weights', 'report', 'predict', 'official',
  'stages', 'docs', 'speed', 'losses', 'models',
)  # fmt: skip

# Files of trainings of which each part is tested elsewhere, too: .ci/run leaves
# them out with the newest versions.
_COMPOSED = (
  'docs', 'faults', 'report', 'speed', 'staging', 'without_boundaries',
)  # fmt: skip


def pytest_collection_modifyitems(items):
  """Put the longest files first; mark those that need an extra or a browser."""
  name = lambda item: item.path.name.removesuffix('_test.py')
  place = {longest: i for i, longest in enumerate(_LONGEST)}
  items.sort(key=lambda item: place.get(name(item), len(place)))
  plain = 'optimization_level=0' in os.environ['XLA_FLAGS']
  for item in items:
    if plain and item.get_closest_marker('optimised'):
      item.add_marker(pytest.mark.skip('compiled without optimisation'))
    if name(item) in _COMPOSED:
      item.add_marker(pytest.mark.composed)
    if name(item).startswith(('video_', 'annotate_')):
      item.add_marker(pytest.mark.extra)
    if 'browser' in item.fixturenames:
      item.add_marker(pytest.mark.browser)


@pytest.fixture(scope='session', autouse=True)
def _built():
  """Let trainings with the same numbers share what they trace and compile."""
  from backtal_jax import models, train

  made, build = {}, train.build

  def shared_build(config, mesh, *args, **kwargs):
    options = config.train.to_dict()
    for name in ('num_epochs', 'eval_every', 'checkpoint_every', 'on_nan'):
      del options[name]
    key = (
      config.model.to_json(), config.loss.to_json(), str(options),
      config.data.num_snippets, mesh, args, tuple(kwargs.items()),
      # Which tests replace.
      train.train_step, models.BackTAL.__call__,
    )  # fmt: skip
    if key not in made:
      made[key] = build(config, mesh, *args, **kwargs)
    return made[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, 'build', shared_build)
    yield


@pytest.fixture(scope='session')
def shared():
  """Return the folder of real data; skip where it is absent."""
  if not SHARED.is_dir():
    pytest.skip('needs ../shared, the real annotation files')
  return SHARED


@pytest.fixture(scope='session')
def whole_demo_root(tmp_path_factory):
  """Make the embedded data set."""
  from backtal_jax.data import demo

  root = tmp_path_factory.mktemp('data') / 'whole'
  demo.prepare(root)
  return root


@pytest.fixture(scope='session')
def demo_root(tmp_path_factory):
  """Make a quarter of the embedded data set, each video of it is read once."""
  from backtal_jax.data import demo, sources

  root = tmp_path_factory.mktemp('data') / 'demo'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(demo, '_SPLITS', {'train': 40, 'test': 15})
    demo.prepare(root)
  read, original = {}, sources.NpzSource.__getitem__

  def read_once(self, i):
    key = str(self.paths[i]), self.shape
    if not key[0].startswith(f'{root}/'):  # what a test may change
      return original(self, i)
    if key not in read:
      read[key] = original(self, i)
      for value in read[key]:
        if isinstance(value, np.ndarray):
          value.flags.writeable = False
    return read[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sources.NpzSource, '__getitem__', read_once)
    yield root


@pytest.fixture
def undrawn(monkeypatch):
  """Let pages be made without their pictures, which take the time."""
  from backtal_jax.report import style

  monkeypatch.setattr(style, 'svg', lambda figure, title: '<svg/>')
