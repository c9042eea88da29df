"""Reading THUMOS14-size files, and an epoch end to end."""

import pathlib
import tempfile
import time

import jax
import numpy as np

from backtal_jax import models, sharding, train
from backtal_jax.data import pipeline, sources
from benchmarks import measure
from configs import thumos14

_VIDEOS = 24
_BATCH = 8
# Times that the files are read at each turn.
_ROUNDS = 10


def _write(folder, config):
  """Write drawn videos and open the folder."""
  rng = np.random.default_rng(0)
  length, classes = config.data.num_snippets, config.model.num_classes
  for i in range(_VIDEOS):
    spa, tem = rng.random((2, 1024, length), np.float32)
    clicked = rng.random(length) < 0.01
    sources.write_video(
      folder / f'{i:03}.npz',
      feat_spa=spa,
      feat_tem=tem,
      cls_label=np.eye(classes)[i % classes],
      vid_name=f'{i:03}',
      frame_num=6000,
      fps=30.0,
      duration=200.0,
      point_label=np.where(clicked, classes, -100),
    )
  return sources.NpzSource(
    folder, num_snippets=length, feature_dim=2048, num_classes=classes
  )


def _plain_loop(folder):
  """Load what is in the files, nothing more."""
  for path in sorted(folder.glob('*.npz')):
    with np.load(path) as z:
      for key in z:
        _ = z[key]


def run_input() -> dict:
  """Measure the input pipeline; the limit copies as many bytes in memory."""
  with tempfile.TemporaryDirectory() as folder:
    folder, config = pathlib.Path(folder), thumos14.get_config()
    source = _write(folder, config)
    # One pipeline for all turns, as for all epochs of a run: it starts once.
    # Between turns it is at most three batches ahead.
    plan = pipeline.eval_plan(len(source), _BATCH)
    steps = _ROUNDS * len(plan)
    batches = pipeline.batches(source, np.tile(plan, (99 * _ROUNDS, 1, 1)))
    num_bytes = _VIDEOS * 4 * config.data.num_snippets * 2048
    copy = measure.make_copy(num_bytes)
    ours, plainly, limit = measure.interleaved(
      lambda: [next(batches)['mask'] for _ in range(steps)],
      lambda: [_plain_loop(folder) for _ in range(_ROUNDS)],
      lambda: [copy() for _ in range(_ROUNDS)],
      repeats=7,
    )
    batches.close()
  return measure.result(
    ours,
    limit,
    plain_seconds=plainly,
    videos=_ROUNDS * _VIDEOS,
    bytes_per_second=_ROUNDS * num_bytes / ours,
  )


def run_epoch() -> dict:
  """Measure an epoch of training from files; the limit is its steps alone."""
  config = thumos14.get_config()
  mesh = sharding.make_mesh((1,))
  optimizer = train.make_optimizer(config.train)
  state = train.create_state(
    models.BackTAL(**config.model), optimizer, seed=0, num_snippets=750
  )
  state = jax.device_put(state, sharding.replicated(mesh))
  step = train.make_train_step(
    config, models.BackTAL(**config.model), optimizer, mesh
  )
  with tempfile.TemporaryDirectory() as folder:
    source = _write(pathlib.Path(folder), config)
    plan = pipeline.eval_plan(len(source), 2)
    batches = sharding.prefetch(
      pipeline.batches(source, plan), mesh, train._TRAIN_KEYS
    )
    first, _ = next(batches)
    state, _ = jax.block_until_ready(step(state, first))  # compiles
    start, computing, steps = time.perf_counter(), 0.0, 0
    for batch, _ in batches:
      began = time.perf_counter()
      state, _ = jax.block_until_ready(step(state, batch))
      computing, steps = computing + time.perf_counter() - began, steps + 1
    total = time.perf_counter() - start
  return measure.result(
    total, computing, waiting_share=1 - computing / total, steps=steps
  )
