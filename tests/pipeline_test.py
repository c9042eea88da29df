"""Order, padding and errors of the input pipeline."""

import jax
import numpy as np
import pytest

from backtal_jax import IGNORED, errors
from backtal_jax.data import pipeline, sources


class _Source:
  """Videos whose every value is their index."""

  shape = (3, 2, 2)

  def __init__(self, count, broken=()):
    self._count, self._broken = count, broken

  def __len__(self):
    return self._count

  def __getitem__(self, i):
    if i in self._broken:
      raise errors.InputError(f'video {i} is broken')
    return sources.Example(
      str(i), np.full((3, 2), i, np.float32), np.full(2, i, np.float32),
      np.full(3, i, np.int32), int(i), 1.0, float(i),
    )  # fmt: skip


def test_a_plan_shuffles_every_epoch_and_keeps_the_last_batch():
  plan = pipeline.train_plan(np.arange(10), 4, seed=3, num_epochs=5)
  assert plan.shape == (15, 4, 2)
  orders = []
  for epoch, rows in enumerate(plan.reshape(5, 12, 2)):
    assert (rows[:, 0] == epoch).all()
    assert sorted(rows[:10, 1]) == list(range(10))
    assert (rows[10:, 1] == pipeline.PADDING).all()
    orders.append(tuple(rows[:10, 1]))
  assert len(set(orders)) == 5


def test_a_plan_depends_on_videos_seed_and_epoch_alone():
  plan = pipeline.train_plan(np.arange(10), 4, seed=3, num_epochs=5)
  longer = pipeline.train_plan(np.arange(10), 4, seed=3, num_epochs=7)
  np.testing.assert_array_equal(plan, longer[:15])
  other = pipeline.train_plan(np.arange(10), 4, seed=4, num_epochs=5)
  assert (plan != other).any()
  some = pipeline.train_plan(np.array([5, 7, 9]), 2, seed=0, num_epochs=2)
  assert set(some[..., 1].ravel()) == {5, 7, 9, pipeline.PADDING}


@pytest.mark.parametrize('count', [1, 7, 8, 9])
def test_evaluation_covers_every_video_once(count):
  seen = [
    i
    for batch in pipeline.batches(_Source(count), pipeline.eval_plan(count, 4))
    for i, real in zip(batch['video_index'], batch['mask'], strict=True)
    if real
  ]
  assert seen == list(range(count))


def test_batches_hold_what_the_plan_says_and_padding_is_neutral():
  plan = np.array([[[0, 2], [0, 1]], [[1, 0], [1, pipeline.PADDING]]])
  first, second = pipeline.batches(_Source(3), plan)
  np.testing.assert_array_equal(first['video_index'], [2, 1])
  np.testing.assert_array_equal(first['feature'][:, 0, 0], [2, 1])
  np.testing.assert_array_equal(first['duration'], [2.0, 1.0])
  np.testing.assert_array_equal(second['mask'], [True, False])
  assert (second['feature'][1] == 0).all()
  assert (second['click'][1] == IGNORED).all()
  assert {k: v.dtype.name for k, v in first.items()} == {
    'feature': 'float32', 'label': 'float32', 'click': 'int32',
    'mask': 'bool', 'video_index': 'int32', 'frame_num': 'int32',
    'duration': 'float64',
  }  # fmt: skip


def test_what_is_kept_of_a_batch_stays():
  kept = [
    (i, batch['feature'][0][1:])
    for i, batch in enumerate(
      pipeline.batches(_Source(60), pipeline.eval_plan(60, 1))
    )
    if i % 7 == 0
  ]
  assert len(kept) == 9
  for i, rows in kept:
    np.testing.assert_array_equal(rows, np.full((2, 2), i))


def test_resuming_is_a_row_slice():
  plan = pipeline.train_plan(np.arange(9), 4, seed=0, num_epochs=2)
  whole = list(pipeline.batches(_Source(9), plan))
  rest = list(pipeline.batches(_Source(9), plan[2:]))
  jax.tree.map(np.testing.assert_array_equal, whole[2:], rest)


def test_clicks_may_be_replaced_by_video_and_epoch():
  plan = np.array([[[0, 1]], [[7, 2]]])
  replaced = lambda video, epoch: np.full(
    3, 10 * epoch + video.label[0], np.int32
  )
  first, second = pipeline.batches(_Source(3), plan, replaced)
  assert (first['click'] == 1).all() and (second['click'] == 72).all()


def test_a_broken_video_raises_its_own_error():
  batches = pipeline.batches(_Source(5, broken=[3]), pipeline.eval_plan(5, 2))
  with pytest.raises(errors.InputError, match='^video 3 is broken$'):
    list(batches)
