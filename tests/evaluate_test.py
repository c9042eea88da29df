"""What evaluation needs, and what it reads."""

import pytest
from train_test import tiny_config

from backtal_jax import errors, files, train
from backtal_jax.data import annotations
from backtal_jax.run import checkpoints, outputs


def test_ground_truth_is_read_once_at_the_start(
  demo_root, tmp_path, monkeypatch
):
  clicks = tmp_path / 'clicks.csv'
  clicks.write_text('video_id,time,label,annotator\ntrain_000,1,background,a\n')
  reads, read = [], files.read_json

  def count(path):
    reads.append(str(path))
    return read(path)

  def stop(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(files, 'read_json', count)
  # All else is open by then.
  monkeypatch.setattr(checkpoints, 'initial_state', stop)
  config = tiny_config(demo_root, **{'data.clicks': str(clicks)})
  with pytest.raises(KeyboardInterrupt):
    train.train_and_evaluate(config, tmp_path / 'w')
  assert [r for r in reads if 'ground_truth' in r] == [
    str(demo_root / 'ground_truth.json')
  ]


def test_classes_must_be_those_of_the_run(tmp_path):
  truth = annotations.Annotations({}, ('a', 'b'), 'gt.json')
  outputs.check_classes(tmp_path, truth)  # a new workdir
  outputs.begin(tmp_path, truth.classes, [])
  outputs.check_classes(tmp_path, truth)
  for classes in (['b', 'a'], ['a', 'c'], ['a'], ['a', 'b', 'c']):
    files.write_json(tmp_path / 'classes.json', classes)
    expected = r'gt.json: class \d is .*, in .*classes.json it is'
    with pytest.raises(errors.InputError, match=expected):
      outputs.check_classes(tmp_path, truth)
