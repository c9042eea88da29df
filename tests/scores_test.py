"""Named numbers: the same in the table, the log, ranking and comparison."""

import pytest

from backtal_jax import errors
from backtal_jax.metrics import scores

METRICS = {
  'tiou': [0.5, 0.75], 'mAP': [0.42, 0.268], 'average_mAP': 0.344,
  'accuracy': 0.5, 'epoch': 7,
}  # fmt: skip
PUBLISHED = (('average_mAP', 34.0), ('mAP@0.5', 41.4))


def lines(*arguments):
  return [line.split() for line in scores.table(*arguments).splitlines()]


def test_the_table_has_published_numbers_below_ours():
  expected = [['tIoU', '0.5', '0.75', 'average'],
              ['mAP', '%', '42.0', '26.8', '34.4']]  # fmt: skip
  accuracy = ['videos', 'with', 'all', 'labels', 'right:', '50.0', '%']
  assert lines(METRICS) == [*expected, accuracy]
  expected += [['published', '41.4', '34.0'], ['difference', '+0.60', '+0.40']]
  assert lines(METRICS, PUBLISHED) == [*expected, accuracy]
  # Every cell ends where its head does.
  table = scores.table(METRICS, PUBLISHED).splitlines()
  assert len({len(line) for line in table[:4]}) == 1


def test_the_largest_difference_counts_either_way():
  assert scores.largest_difference(METRICS, PUBLISHED) == pytest.approx(0.6)
  off = [('mAP@0.75', 27.8)]
  assert scores.largest_difference(METRICS, off) == pytest.approx(1.0)
  assert scores.largest_difference(METRICS, ()) == 0
  with pytest.raises(errors.InputError, match='has mAP@0.3, the run has mAP@'):
    scores.largest_difference(METRICS, [('mAP@0.3', 1.0)])


@pytest.mark.parametrize(
  'best_metric, expected',
  [('average_mAP', 0.344), ('mAP@0.5', 0.42), ('last', 7.0)],
)
def test_epochs_are_ranked_by_the_configs_metric(best_metric, expected):
  assert scores.ranking_value(METRICS, best_metric) == expected


def test_the_log_gets_every_number():
  assert scores.scalars(METRICS) == {
    'mAP@0.5': 0.42, 'mAP@0.75': 0.268, 'average_mAP': 0.344,
    'accuracy': 0.5, 'epoch': 7,
  }  # fmt: skip
