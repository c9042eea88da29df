"""Every field of a config has its values, wherever it is set."""

import json
import math
import re

import pytest

from backtal_jax import errors, fields
from configs import activitynet12, demo, hacs, hapt, thumos14

_BASE = fields.flatten(thumos14.get_config())
# Values that no field of a kind takes.
_WRONG_NUMBERS = (-1, -0.5, '1', None, True, math.nan, math.inf, (1,))
# More refused values, of every field that is no number some.
_REFUSED = {
  'model.num_classes': (0, 1.5),
  'model.feature_dim': (0, 2048.0),
  'model.hidden_dim': (0,),
  'model.reduce_dim': (0,),
  'model.embedding_dim': (0,),
  'model.affinity': ('cosine', '', None),
  'model.topk_ratio': (0, 1.01),
  'model.topk_by': ('scores', None),
  'model.standardize': (1, 'yes'),
  'model.dropout_rate': (1, 1.0),
  'model.dtype': ('float16', None, 'f32'),
  'loss.separation_topk_ratio': (0, 2),
  'loss.similar_min': (1.1, -1.1),
  'loss.different_max': (1.1, -1.1),
  'loss.label_warmup': (1.1,),
  'loss.click_trim': (1,),
  'loss.click_trim_from': (1.1,),
  'loss.click_doubt_from': (1.1,),
  'loss.topk_clean_from': (-0.1, 1.1),
  'data.name': ('', ' x', 3),
  'data.root': ('', 'x ', None),
  'data.generate': (1, 'yes', None),
  'data.source': ('numpy',),
  'data.train_split': ('',),
  'data.eval_split': (' ', None),
  'data.num_snippets': (0, 100.0),
  'data.ground_truth': ('',),
  'data.clicks': ('a.csv,', ',', None),
  'data.clicks_aside': (1.0,),
  'data.agreement_clicks': ('a.csv,', ',', None),
  'data.features': ('I3D', '[1]', None),
  'data.annotator': ('',),
  'data.placement': ('gpu',),
  'train.batch_size': (0, 16.0),
  'train.num_epochs': (0,),
  'train.learning_rate': (0,),
  'train.rate_warmup': (-0.1, 1.1),
  'train.betas': ((), (0.9,), (0.9, 1.0), (-0.1, 0.9), ('a', 'b'), 0.9),
  'train.seed': (2**32, 0.5),
  'train.eval_every': (0,),
  'train.checkpoint_every': (0.5,),
  'train.on_nan': ('continue',),
  'train.shard_state': (0,),
  'train.remat': ('False',),
  'localization.read': ('softmax', ''),
  'localization.class_threshold': (1.5,),
  'localization.cas_thresholds': (
    (0.1,), (0.1, 0.2), (0.2, 0.1, 0.1), (0.1, 0.2, 0), (0.1, 0.2, -0.1),
    (-0.1, 0.2, 0.1), (0, 1, 1e-9), (0, 'a', 1), (0.0, math.inf, 0.1), 0.5,
  ),
  'localization.magnitude_thresholds': ((0.1, 0.2), (0.3, 0.3, 0.1), None),
  'localization.nms_tiou': (0, 1.1),
  'localization.trim': (0.5, 1),
  'stages.without_clicks_below': (1.1,),
  'stages.names': ('', 'argmax', None),
  'stages.every_instance': ('yes', 1.5),
  'stages.retrain': (1.1,),
  'stages.quality': (0, 'yes'),
  'eval.watch': (1,),
  'eval.batch_size': (0,),
  'eval.tiou': (
    (), 0.5, (0,), (1.5,), (0.5, 0.5), (0.7, 0.5), ('x',), (1 / 3,),
    (math.nan,),
  ),
  'eval.best_metric': ('', 'mAP', 'mAP@0.55', None),
  'eval.published': (('mAP@0.5',), (('mAP@0.5', 'x'),), 3, ((1, 2, 3),)),
  'init_checkpoint': (None, 3, ' '),
  'mesh': ((0,), (-1,), (2, 4), (1.5,), 8, None),
}  # fmt: skip


def _config(name, value):
  """Return the base config with a field set to whatever value."""
  config = thumos14.get_config().unlock()
  section, _, leaf = name.rpartition('.')
  part = config[section] if section else config
  del part[leaf]
  part[leaf] = value
  return config


def test_every_field_has_values_that_are_refused():
  assert fields.FIELDS.keys() == _BASE.keys() >= _REFUSED.keys()


@pytest.mark.parametrize('name', fields.FIELDS)
def test_a_value_that_a_field_cannot_have_is_named_with_what_it_can(name):
  wrong = _REFUSED.get(name, ())
  if isinstance(_BASE[name], (int, float)) and not isinstance(
    _BASE[name], bool
  ):
    unsigned = 'from -1' not in fields.FIELDS[name].comment
    wrong = (*wrong, *_WRONG_NUMBERS[0 if unsigned else 2 :])
  assert wrong
  for value in wrong:
    with pytest.raises(errors.InputError) as e:
      fields.check(_config(name, value))
    assert str(e.value).startswith(f'config.{name} is {value!r}, expected ')
    assert '\n' not in str(e.value)


def test_the_comments_of_the_base_config_say_the_same():
  comment, above, found = '', False, {}
  with open(thumos14.__file__) as f:
    for line in f:
      if whole := re.fullmatch(r'  # (.*)\n', line):
        comment = f'{comment} {whole[1]}' if above else whole[1]
      elif field := re.match(r'  c\.(\S+) = [^#]*(?:# (.*))?', line):
        found[field[1]] = field[2] or comment
      above = bool(whole)
  for name, domain in fields.FIELDS.items():
    assert domain.comment in found[name], name


@pytest.mark.parametrize('module', [thumos14, activitynet12, hacs, hapt, demo])
def test_our_own_configs_are_right(module):
  config = module.get_config()
  fields.check(config)
  fields.check(type(config)(json.loads(config.to_json())))  # as saved


_NO_LEVELS = {'localization.cas_thresholds': ()}
# What is said, and what does not go together.
_TOGETHER = {
  "config.data.annotator is 'A2', but config.data.clicks names no file": {
    'data.annotator': 'A2'
  },
  "config.eval.best_metric is 'mAP@0.55', expected one of average_mAP, last, "
  'click_agreement': {'eval.best_metric': 'mAP@0.55'},
  "config.eval.best_metric is 'mAP@0.5', expected one of average_mAP, last, "
  'click_agreement, mAP@0.3': {'eval.tiou': (0.3,)},
  'cas_thresholds and magnitude_thresholds are both': _NO_LEVELS
  | {'localization.magnitude_thresholds': ()},
  'config.localization.whole_video_score is 0.5, but there are no': _NO_LEVELS
  | {'localization.whole_video_score': 0.5},
  "config.eval.best_metric is 'mAP@0.5', but config.data.eval_split is ''": {
    'data.eval_split': ''
  },
  "config.eval.best_metric is 'click_agreement', but no click is kept aside": {
    'eval.best_metric': 'click_agreement'
  },
  'config.data.clicks_aside is 0.2, but config.data.clicks names no file': {
    'data.clicks_aside': 0.2
  },
  'every one is 0': {
    name: 0.0 for name in _BASE if re.fullmatch('loss.[a-z]+', name)
  },
}


@pytest.mark.parametrize('message, changes', _TOGETHER.items())
def test_values_that_do_not_go_together(message, changes):
  config = thumos14.get_config()
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  with pytest.raises(errors.InputError, match=re.escape(message)):
    fields.check(config)


_NEAREST = {
  'train.lr': 'train.learning_rate',
  'train.batchsize': 'train.batch_size',
  'trian.seed': 'train.seed',
  'train.epochs': 'train.num_epochs',
  'data.num_classes': 'model.num_classes',
  'eval.tiuo': 'eval.tiou',
  'learning_rate': 'train.learning_rate',
  'train.seed.x': 'train.seed',
}


@pytest.mark.parametrize('name, nearest', _NEAREST.items())
def test_a_field_that_is_added_where_there_is_none(name, nearest):
  config = thumos14.get_config().unlock()
  *sections, leaf = name.split('.')
  if sections[1:]:
    assert fields.nearest(name) == nearest
    return
  part = config
  for section in sections:
    part[section] = part.get(section, type(config)())
    part = part[section]
  part[leaf] = 1
  with pytest.raises(errors.InputError) as e:
    fields.check(config)
  assert str(e.value) == (
    f'config.{name}: no such field; did you mean config.{nearest}?'
  )
