"""One switch, the same values on every set, and off where it must be."""

import re

import pytest

from backtal_jax import fields
from configs import activitynet12, demo, hacs, hapt, thumos14

SETS = (thumos14, activitynet12, hacs, hapt, demo)


def recipe(name):
  """Return the fields of every set's config."""
  return [fields.flatten(module.get_config(name)) for module in SETS]


def test_the_recipe_sets_the_same_values_everywhere():
  off, on = recipe('published'), recipe('robust')
  changed = {
    name
    for a, b in zip(off, on, strict=True)
    for name in a
    if a[name] != b[name]
  }
  assert changed >= {'loss.click', 'localization.read', 'loss.label_warmup'}
  for published, robust in zip(off, on, strict=True):
    faster = {'train.learning_rate': 2 * published['train.learning_rate']}
    for name, value in robust.items():
      expected = (on[0] if name in changed else published) | faster
      assert value == expected[name]
    assert published['localization.read'] == 'logits'
    assert published['loss.label_warmup'] == published['loss.click_trim'] == 0
    assert published['loss.click_doubt_from'] == 1
    assert published['loss.topk_clean_from'] == 1
    assert not published['model.standardize']
    assert published['train.rate_warmup'] == 0


def test_staged_adds_the_same_to_robust_everywhere():
  added = [
    {name: value for name, value in staged.items() if value != robust[name]}
    for robust, staged in zip(recipe('robust'), recipe('staged'), strict=True)
  ]
  assert all(one == added[0] for one in added)
  assert added[0]['stages.quality'] and added[0]['stages.retrain'] > 0
  for off in recipe('published') + recipe('robust'):
    assert not off['stages.quality'] and not off['stages.retrain']
    assert off['localization.probability_power'] == 0
    assert off['localization.nms_sigma'] == 0


def test_the_benchmarks_are_published_and_the_others_robust():
  for module in (thumos14, activitynet12, hacs):
    assert module.get_config() == module.get_config('published')
  for module in (hapt, demo):
    assert module.get_config() == module.get_config('robust')


def test_another_recipe_is_named():
  message = "recipe 'bold', expected one of published, robust"
  with pytest.raises(ValueError, match=re.escape(message)):
    hapt.get_config('bold')
