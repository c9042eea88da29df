"""The fields of a config, and the values that each may have.

One row a field, checked before a run reads or writes anything. The comments
of configs/thumos14.py say the same (tests/fields_test.py holds them to it): a
new field gets a row here and a line there.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from backtal_jax import domains, errors, files

FIELDS = {
  'model.num_classes': domains.integer(1),
  'model.feature_dim': domains.integer(1),
  'model.hidden_dim': domains.integer(1),
  'model.reduce_dim': domains.integer(1),
  'model.embedding_dim': domains.integer(1),
  'model.affinity': domains.one_of('official', 'paper'),
  'model.topk_ratio': domains.SHARE,
  'model.topk_by': domains.one_of('logits', 'probabilities'),
  'model.dropout_rate': domains.BELOW_ONE,
  'model.standardize': domains.SWITCH,
  'model.dtype': domains.one_of('float32', 'bfloat16'),
  'loss.base': domains.NOT_NEGATIVE,
  'loss.supp': domains.NOT_NEGATIVE,
  'loss.sparsity': domains.NOT_NEGATIVE,
  'loss.click': domains.NOT_NEGATIVE,
  'loss.separation': domains.NOT_NEGATIVE,
  'loss.embedding': domains.NOT_NEGATIVE,
  'loss.frames': domains.NOT_NEGATIVE,
  'loss.separation_topk_ratio': domains.SHARE,
  'loss.similar_min': domains.COSINE,
  'loss.different_max': domains.COSINE,
  'loss.label_warmup': domains.FRACTION,
  'loss.click_trim': domains.BELOW_ONE,
  'loss.click_trim_from': domains.FRACTION,
  'loss.click_doubt_from': domains.FRACTION,
  'loss.topk_clean_from': domains.FRACTION,
  'data.name': domains.TEXT,
  'data.root': domains.TEXT,
  'data.generate': domains.SWITCH,
  'data.source': domains.one_of('npz', 'tfds'),
  'data.train_split': domains.TEXT,
  'data.eval_split': domains.Domain(
    "a text without spaces around it, or '' for none", "'' for none",
    domains.is_text,
  ),
  'data.num_snippets': domains.integer(1),
  'data.ground_truth': domains.TEXT,
  'data.clicks': domains.CLICKS,
  'data.clicks_aside': domains.BELOW_ONE,
  'data.agreement_clicks': domains.CLICKS,
  'data.features': domains.Domain(
    "the JSON object of features.json, or ''", "'' for unknown",
    domains.is_record,
  ),
  'data.annotator': domains.TEXT,
  'data.placement': domains.one_of('host', 'device'),
  'train.batch_size': domains.integer(1),
  'train.num_epochs': domains.integer(1),
  'train.learning_rate': domains.POSITIVE,
  'train.rate_warmup': domains.FRACTION,
  'train.weight_decay': domains.NOT_NEGATIVE,
  'train.betas': domains.listed(
    'two numbers, each at least 0 and less than 1',
    'at least 0, less than 1',
    lambda v: len(v) == 2 and all(map(domains.BELOW_ONE.holds, v)),
  ),
  'train.seed': domains.integer(0, 2**32 - 1),
  'train.eval_every': domains.integer(1),
  'train.checkpoint_every': domains.integer(0),
  'train.on_nan': domains.one_of('stop', 'skip'),
  'train.shard_state': domains.SWITCH,
  'train.remat': domains.SWITCH,
  'localization.read': domains.one_of('logits', 'probabilities', 'product'),
  'localization.class_threshold': domains.FRACTION,
  'localization.cas_thresholds': domains.LEVELS,
  'localization.magnitude_thresholds': domains.LEVELS,
  'localization.outer_ratio': domains.NOT_NEGATIVE,
  'localization.confidence_weight': domains.NOT_NEGATIVE,
  'localization.nms_tiou': domains.SHARE,
  'localization.trim': domains.number(
    'at least 0, less than 0.5', lambda v: 0 <= v < 0.5
  ),
  'localization.whole_video_score': domains.NOT_NEGATIVE,
  'localization.probability_power': domains.NOT_NEGATIVE,
  'localization.nms_sigma': domains.NOT_NEGATIVE,
  'stages.without_clicks_below': domains.FRACTION,
  'stages.names': domains.one_of('em', 'probability'),
  'stages.every_instance': domains.SWITCH,
  'stages.retrain': domains.FRACTION,
  'stages.quality': domains.SWITCH,
  'eval.batch_size': domains.integer(1),
  'eval.tiou': domains.listed(
    'rising numbers of at most 6 digits, each more than 0 and at most 1',
    'more than 0, at most 1, rising',
    domains.is_rising,
  ),
  'eval.best_metric': domains.TEXT,
  'eval.watch': domains.SWITCH,
  'eval.published': domains.listed(
    'pairs of a metric and its percent',
    'pairs',
    lambda v: all(
      isinstance(p, (tuple, list)) and len(p) == 2
      and domains.is_text(p[0]) and domains.is_number(p[1]) and 0 <= p[1] <= 100
      for p in v
    ),
  ),
  'init_checkpoint': domains.Domain(
    "a path, or ''", "'' for none", domains.is_text
  ),
  'mesh': domains.listed(
    'a number of devices, as (8,), or () for all',
    '() for all',
    lambda v: len(v) == 0
    or (len(v) == 1 and domains.is_number(v[0], int) and v[0] > 0),
  ),
}  # fmt: skip

# Terms of the loss that a training begins with; frames come with its stages.
_FIRST_TERMS = 'base', 'supp', 'sparsity', 'click', 'separation', 'embedding'

# That whoever predicts by a run's config needs.
_SECTIONS = 'model', 'data', 'localization', 'eval'

# Where a run's data lie and how it is computed, watched and shown: not what it
# is, so that a run goes on where one of these has changed. (Whether an epoch
# is evaluated leaves the training as it is; what ranks epochs does not.)
HOW = (
  'data.name', 'data.root', 'data.generate', 'data.source', 'data.placement',
  'train.eval_every', 'train.checkpoint_every', 'train.on_nan',
  'train.shard_state', 'train.remat', 'eval.watch', 'eval.batch_size',
  'eval.published', 'mesh',
)  # fmt: skip
# Files, which may have moved as long as they keep their names.
FILES = (
  'data.ground_truth', 'data.clicks', 'data.agreement_clicks',
  'init_checkpoint',
)  # fmt: skip


def check(config: ml_collections.ConfigDict) -> None:
  """Refuse a config that no run can have.

  Raises:
    errors.InputError: names the field, its value and what was expected.
  """
  found = flatten(config)
  for name in found:
    if name not in FIELDS:
      raise unknown(name)
  for name, domain in FIELDS.items():
    if name not in found:
      raise errors.InputError(f'config.{name} is missing')
    if not domain.holds(found[name]):
      raise errors.InputError(
        f'config.{name} is {found[name]!r}, expected {domain.expected}'
      )
  _check_together(config)


def read_saved(path: epath.Path) -> dict[str, Any]:
  """Read the config of a run; refuse one that somebody has changed into none.

  Another version's may lack fields, or have others, but of the network.

  Raises:
    errors.InputError: Names the path, the field and its value.
  """
  found = files.read_json(path)
  if not isinstance(found, dict) or not all(
    isinstance(found.get(section), dict) for section in _SECTIONS
  ):
    raise errors.InputError(f'{path}: holds no config')
  for name, value in flatten(found).items():
    domain = FIELDS.get(name)
    if domain and not domain.holds(value):
      raise errors.InputError(
        f'{path}: {name} is {value!r}, expected {domain.expected}'
      )
    if not domain and name.startswith('model.'):
      raise errors.InputError(f'{path}: {name}: no such field')
  return found


def unknown(name: str) -> errors.InputError:
  """Return the error for a name that is no field's, with the nearest one."""
  if within := [field for field in FIELDS if field.startswith(f'{name}.')]:
    return errors.InputError(
      f'config.{name} is a section, expected one of its fields: '
      f'{", ".join(within)}'
    )
  return errors.InputError(
    f'config.{name}: no such field; did you mean config.{nearest(name)}?'
  )


def nearest(name: str) -> str:
  """Return the field whose name is nearest to another.

  By its last part, where an abbreviation counts (lr for learning_rate), then
  by all of it.
  """

  def likeness(field):
    if name.startswith(f'{field}.'):
      return 2.0, 0.0
    ours, theirs = name.rpartition('.')[2], field.rpartition('.')[2]
    ratio = lambda a, b: difflib.SequenceMatcher(None, a, b).ratio()
    short = ''.join(word[0] for word in theirs.split('_'))
    return 1.0 if ours == short else ratio(ours, theirs), ratio(name, field)

  return max(FIELDS, key=likeness)


def flatten(
  config: ml_collections.ConfigDict | Mapping[str, Any], prefix: str = ''
) -> dict[str, Any]:
  """Return {'section.field': value} of a config or a dict of dicts."""
  flat = {}
  for key in config:
    name, value = f'{prefix}{key}', config[key]
    is_section = hasattr(value, 'keys')
    flat |= flatten(value, f'{name}.') if is_section else {name: value}
  return flat


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Return a config as config.json holds it, sections of plain values."""
  return json.loads(config.to_json())


def _check_together(config):
  """Refuse values that do not go together."""
  data, loss, options = config.data, config.loss, config.localization
  best, retrain = config.eval.best_metric, config.stages.retrain
  no_levels = not len(options.cas_thresholds)
  aside = data.clicks_aside or data.agreement_clicks
  maps = ['average_mAP', *(f'mAP@{t:g}' for t in config.eval.tiou)]
  known = [maps[0], 'last', 'click_agreement', *maps[1:]]
  for is_wrong, message in (
    (data.annotator != 'all' and not data.clicks,
     f'data.annotator is {data.annotator!r}, but config.data.clicks names no '
     'file with annotators'),
    (not any(loss[name] for name in _FIRST_TERMS),
     f'loss.{", config.loss.".join(_FIRST_TERMS)}: every one is 0'),
    (no_levels and not len(options.magnitude_thresholds),
     'localization: cas_thresholds and magnitude_thresholds are both (), '
     'expected levels in one of them'),
    (no_levels and options.whole_video_score,
     f'localization.whole_video_score is {options.whole_video_score}, but '
     'there are no cas_thresholds, whose segments it goes with'),
    (retrain and not loss.frames,
     f'stages.retrain is {retrain}, but config.loss.frames, the weight of '
     'what is then learned, is 0'),
    (data.clicks_aside and not data.clicks,
     f'data.clicks_aside is {data.clicks_aside}, but config.data.clicks names '
     'no file to keep clicks of aside; what `prepare custom` wrote is '
     'clicks.csv'),
    (best == 'click_agreement' and not aside,
     "eval.best_metric is 'click_agreement', but no click is kept aside: "
     "config.data.clicks_aside is 0.0 and config.data.agreement_clicks is ''"),
    (best in maps and not data.eval_split,
     f"eval.best_metric is {best!r}, but config.data.eval_split is '', and "
     'without such a split there is no mAP; expected last or click_agreement'),
    (best not in known,
     f'eval.best_metric is {best!r}, expected one of {", ".join(known)}'),
  ):  # fmt: skip
    if is_wrong:
      raise errors.InputError(f'config.{message}')
