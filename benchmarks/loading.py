"""Reading files of the benchmarks' sizes, and an epoch end to end."""

import contextlib
import pathlib
import tempfile
import time

import jax
import numpy as np

from backtal_jax import predict, train
from backtal_jax.data import pipeline, sources
from backtal_jax.run import feeding, sharding
from benchmarks import measure, network

_BATCH = 8
# About as many bytes are read at each turn, and steps done, of every set.
_SNIPPETS_READ = 180_000
_STEPS = 11


@contextlib.contextmanager
def _folder(config, num_videos):
  """Write drawn videos; yield the folder's path and its source."""
  rng = np.random.default_rng(0)
  length, classes = config.data.num_snippets, config.model.num_classes
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    for i in range(num_videos):
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
    yield folder, sources.NpzSource(folder, (length, 2048, classes))


def _plain_loop(folder):
  """Load what is in the files, nothing more."""
  for path in sorted(folder.glob('*.npz')):
    with np.load(path) as z:
      for key in z:
        _ = z[key]


def _input(name) -> dict:
  config = network.SETS[name][0].get_config()
  length = config.data.num_snippets
  num_videos = 18_000 // length // _BATCH * _BATCH
  rounds = _SNIPPETS_READ // (length * num_videos)
  num_bytes = num_videos * 4 * length * 2048
  with _folder(config, num_videos) as (folder, source):
    # One pipeline for all turns, as for all epochs of a run: it starts once.
    # Between turns it is at most three batches ahead.
    plan = pipeline.eval_plan(num_videos, _BATCH)
    steps = rounds * len(plan)
    batches = pipeline.batches(source, np.tile(plan, (99 * rounds, 1, 1)))
    copy = measure.make_copy(num_bytes)
    ours, plainly, limit = measure.interleaved(
      lambda: [next(batches)['mask'] for _ in range(steps)],
      lambda: [_plain_loop(folder) for _ in range(rounds)],
      lambda: [copy() for _ in range(rounds)],
      repeats=7,
    )
    batches.close()
  return measure.result(
    ours,
    limit,
    plain_seconds=plainly,
    videos=rounds * num_videos,
    bytes_per_second=rounds * num_bytes / ours,
  )


def _epoch(name) -> dict:
  """Train on and evaluate _STEPS batches; the limit computes and no more."""
  module, size = network.SETS[name]
  config = module.get_config()
  mesh = sharding.make_mesh((1,))
  model, new_state, layout, step = train.build(config, mesh)
  state = jax.device_put(new_state(), layout)
  with _folder(config, (_STEPS + 1) * size) as (_, source):
    plan = pipeline.eval_plan(len(source), size)
    batches = sharding.prefetch(
      pipeline.batches(source, plan), mesh, feeding.KEYS
    )
    batch, _ = next(batches)
    state, _ = jax.block_until_ready(step(state, batch))  # compiles
    start, stepping = time.perf_counter(), 0.0
    for batch, _ in batches:
      began = time.perf_counter()
      state, _ = jax.block_until_ready(step(state, batch))
      stepping += time.perf_counter() - began
    training = time.perf_counter() - start
    infer = lambda: predict.predict_step(
      state.params, batch['feature'], model=model
    )
    (inferring,) = measure.interleaved(infer, repeats=3)
    start = time.perf_counter()
    batches = feeding.named(source, source.names, None, plan)
    for _ in predict.predict_batches(
      model, state.params, batches, mesh, dict(config.localization)
    ):
      pass
    evaluating = time.perf_counter() - start
  return measure.result(
    training + evaluating,
    stepping + (_STEPS + 1) * inferring,
    waiting_share=1 - stepping / training,
    steps=_STEPS,
    training_seconds=training,
    evaluation_seconds=evaluating,
    evaluation_ratio=evaluating / ((_STEPS + 1) * inferring),
  )


def run_input() -> dict:
  """Measure the input pipeline; the limit copies as many bytes in memory."""
  return measure.of_sets(network.SETS, _input)


def run_epoch() -> dict:
  """Measure training from files and evaluation; the limit only computes."""
  return measure.of_sets(network.SETS, _epoch)
