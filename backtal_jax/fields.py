"""The fields of a config, and the values that each may have.

One row a field, checked before a run reads or writes anything. The comments
of configs/thumos14.py say the same (tests/fields_test.py holds them to it): a
new field gets a row here and a line there.
"""

import difflib
import itertools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

from backtal_jax import errors, files


class Domain(NamedTuple):
  """The values that a field may have."""

  expected: str  # in errors
  comment: str  # in the comment of configs/thumos14.py
  holds: Callable[[Any], bool]


def _is_number(value, kinds=(int, float)):
  # True is an int; infinities and NaN are numbers to nobody.
  good = isinstance(value, kinds) and not isinstance(value, bool)
  return good and math.isfinite(value)


def _number(bound, holds):
  return Domain(
    f'a number {bound}', bound, lambda v: _is_number(v) and holds(v)
  )


def _integer(low, high=math.inf):
  bound = f'at least {low}' if high == math.inf else f'from {low} to {high}'
  return Domain(
    f'an integer, {bound}',
    bound,
    lambda v: _is_number(v, int) and low <= v <= high,
  )


def _one_of(*values):
  names = [v if isinstance(v, str) else repr(v) for v in values]
  return Domain(
    f'one of {", ".join(names)}',
    ' | '.join(names),
    lambda v: any(type(v) is type(known) and v == known for known in values),
  )


def _tuple(expected, comment, holds):
  # A config that was read from JSON has lists.
  is_tuple = lambda v: isinstance(v, (tuple, list))
  return Domain(expected, comment, lambda v: is_tuple(v) and holds(v))


def _is_range(value):
  """Check (start, stop, step) of a few levels, or ()."""
  if not len(value):
    return True
  if len(value) != 3 or not all(map(_is_number, value)):
    return False
  start, stop, step = value
  return 0 <= start < min(stop, 1) and 0 < stop - start <= 1000 * step


def _is_rising(value):
  """Check tIoU thresholds, which the names of metrics must be able to hold."""
  if not len(value) or not all(map(_is_number, value)):
    return False
  named = all(0 < v <= 1 and float(f'{v:g}') == v for v in value)
  return named and all(a < b for a, b in itertools.pairwise(value))


def _is_record(value):
  try:
    return value == '' or isinstance(files.parse_json(value, ''), dict)
  except (TypeError, ValueError):
    return False


def _is_text(value):
  return isinstance(value, str) and value == value.strip()


_TEXT = Domain(
  'a text, not empty and without spaces around it',
  '',
  lambda v: _is_text(v) and v != '',
)
_CLICKS = Domain(
  "files, a comma between them, or ''",
  "'' for none",
  lambda v: v == '' or (_is_text(v) and all(map(str.strip, v.split(',')))),
)
_WEIGHT = _number('at least 0', lambda v: v >= 0)
_POSITIVE = _number('more than 0', lambda v: v > 0)
_NOT_NEGATIVE = _number('at least 0', lambda v: v >= 0)
_SHARE = _number('more than 0, at most 1', lambda v: 0 < v <= 1)
_FRACTION = _number('at least 0, at most 1', lambda v: 0 <= v <= 1)
_BELOW_ONE = _number('at least 0, less than 1', lambda v: 0 <= v < 1)
_COSINE = _number('from -1 to 1', lambda v: -1 <= v <= 1)
_SWITCH = _one_of(False, True)
_LEVELS = _tuple(
  '(start, stop, step) with 0 <= start < 1, start < stop and at most 1000 '
  'steps, or ()',
  'start, stop, step',
  _is_range,
)


FIELDS = {
  'model.num_classes': _integer(1),
  'model.feature_dim': _integer(1),
  'model.hidden_dim': _integer(1),
  'model.reduce_dim': _integer(1),
  'model.embedding_dim': _integer(1),
  'model.affinity': _one_of('official', 'paper'),
  'model.topk_ratio': _SHARE,
  'model.topk_by': _one_of('logits', 'probabilities'),
  'model.dropout_rate': _BELOW_ONE,
  'model.standardize': _SWITCH,
  'model.dtype': _one_of('float32', 'bfloat16'),
  'loss.base': _WEIGHT,
  'loss.supp': _WEIGHT,
  'loss.sparsity': _WEIGHT,
  'loss.click': _WEIGHT,
  'loss.separation': _WEIGHT,
  'loss.embedding': _WEIGHT,
  'loss.frames': _NOT_NEGATIVE,
  'loss.separation_topk_ratio': _SHARE,
  'loss.similar_min': _COSINE,
  'loss.different_max': _COSINE,
  'loss.label_warmup': _FRACTION,
  'loss.click_trim': _BELOW_ONE,
  'loss.click_trim_from': _FRACTION,
  'loss.click_doubt_from': _FRACTION,
  'data.name': _TEXT,
  'data.root': _TEXT,
  'data.generate': _SWITCH,
  'data.source': _one_of('npz', 'tfds'),
  'data.train_split': _TEXT,
  'data.eval_split': Domain(
    "a text without spaces around it, or '' for none", "'' for none", _is_text
  ),
  'data.num_snippets': _integer(1),
  'data.ground_truth': _TEXT,
  'data.clicks': _CLICKS,
  'data.clicks_aside': _BELOW_ONE,
  'data.agreement_clicks': _CLICKS,
  'data.features': Domain(
    "the JSON object of features.json, or ''", "'' for unknown", _is_record
  ),
  'data.annotator': _TEXT,
  'data.placement': _one_of('host', 'device'),
  'train.batch_size': _integer(1),
  'train.num_epochs': _integer(1),
  'train.learning_rate': _POSITIVE,
  'train.rate_warmup': _FRACTION,
  'train.weight_decay': _NOT_NEGATIVE,
  'train.betas': _tuple(
    'two numbers, each at least 0 and less than 1',
    'at least 0, less than 1',
    lambda v: len(v) == 2 and all(map(_BELOW_ONE.holds, v)),
  ),
  'train.seed': _integer(0, 2**32 - 1),
  'train.eval_every': _integer(1),
  'train.checkpoint_every': _integer(0),
  'train.on_nan': _one_of('stop', 'skip'),
  'train.shard_state': _SWITCH,
  'train.remat': _SWITCH,
  'localization.read': _one_of('logits', 'probabilities', 'product'),
  'localization.class_threshold': _FRACTION,
  'localization.cas_thresholds': _LEVELS,
  'localization.magnitude_thresholds': _LEVELS,
  'localization.outer_ratio': _NOT_NEGATIVE,
  'localization.confidence_weight': _NOT_NEGATIVE,
  'localization.nms_tiou': _SHARE,
  'localization.trim': _number(
    'at least 0, less than 0.5', lambda v: 0 <= v < 0.5
  ),
  'localization.whole_video_score': _NOT_NEGATIVE,
  'localization.probability_power': _NOT_NEGATIVE,
  'localization.nms_sigma': _NOT_NEGATIVE,
  'stages.without_clicks_below': _FRACTION,
  'stages.names': _one_of('em', 'probability'),
  'stages.every_instance': _SWITCH,
  'stages.retrain': _FRACTION,
  'stages.quality': _SWITCH,
  'eval.batch_size': _integer(1),
  'eval.tiou': _tuple(
    'rising numbers of at most 6 digits, each more than 0 and at most 1',
    'more than 0, at most 1, rising',
    _is_rising,
  ),
  'eval.best_metric': _TEXT,
  'eval.watch': _SWITCH,
  'eval.published': _tuple(
    'pairs of a metric and its percent',
    'pairs',
    lambda v: all(
      isinstance(p, (tuple, list)) and len(p) == 2
      and _is_text(p[0]) and _is_number(p[1]) and 0 <= p[1] <= 100
      for p in v
    ),
  ),
  'init_checkpoint': Domain("a path, or ''", "'' for none", _is_text),
  'mesh': _tuple(
    'a number of devices, as (8,), or () for all',
    '() for all',
    lambda v: len(v) == 0
    or (len(v) == 1 and _is_number(v[0], int) and v[0] > 0),
  ),
}  # fmt: skip

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


def check_saved(found: object, where: object) -> None:
  """Refuse the config of a run that somebody has changed into none.

  Another version's may lack fields, or have others, but of the network.

  Raises:
    errors.InputError: Says `where` it is, names the field and its value.
  """
  if not isinstance(found, dict) or not all(
    isinstance(found.get(section), dict) for section in _SECTIONS
  ):
    raise errors.InputError(f'{where}: holds no config')
  for name, value in flatten(found).items():
    domain = FIELDS.get(name)
    if domain and not domain.holds(value):
      raise errors.InputError(
        f'{where}: {name} is {value!r}, expected {domain.expected}'
      )
    if not domain and name.startswith('model.'):
      raise errors.InputError(f'{where}: {name}: no such field')


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
    flat |= (
      flatten(value, f'{name}.') if hasattr(value, 'keys') else {name: value}
    )
  return flat


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Return a config as config.json holds it, sections of plain values."""
  return json.loads(config.to_json())


def _check_together(config):
  """Refuse values that do not go together."""
  if config.data.annotator != 'all' and not config.data.clicks:
    raise errors.InputError(
      f'config.data.annotator is {config.data.annotator!r}, but '
      'config.data.clicks names no file with annotators'
    )
  weights = [name for name, domain in FIELDS.items() if domain is _WEIGHT]
  if not any(config.loss[name.removeprefix('loss.')] for name in weights):
    raise errors.InputError(f'every one of config.{", ".join(weights)} is 0')
  options = config.localization
  if not len(options.cas_thresholds):
    if not len(options.magnitude_thresholds):
      raise errors.InputError(
        'config.localization: cas_thresholds and magnitude_thresholds are '
        'both (), expected levels in one of them'
      )
    if options.whole_video_score:
      raise errors.InputError(
        'config.localization.whole_video_score is '
        f'{options.whole_video_score}, but there are no cas_thresholds, whose '
        'segments it goes with'
      )
  if config.stages.retrain and not config.loss.frames:
    raise errors.InputError(
      f'config.stages.retrain is {config.stages.retrain}, but '
      'config.loss.frames, the weight of what is then learned, is 0'
    )
  _check_ranking(config)


def _check_ranking(config):
  """Refuse clicks that cannot be kept aside, and a ranking by no number."""
  data, best = config.data, config.eval.best_metric
  if data.clicks_aside and not data.clicks:
    raise errors.InputError(
      f'config.data.clicks_aside is {data.clicks_aside}, but '
      'config.data.clicks names no file to keep clicks of aside; what '
      '`prepare custom` wrote is clicks.csv'
    )
  maps = ['average_mAP', *(f'mAP@{t:g}' for t in config.eval.tiou)]
  if best == 'click_agreement' and not (
    data.clicks_aside or data.agreement_clicks
  ):
    raise errors.InputError(
      "config.eval.best_metric is 'click_agreement', but no click is kept "
      'aside: config.data.clicks_aside is 0.0 and '
      "config.data.agreement_clicks is ''"
    )
  known = ['last', 'click_agreement']
  if best in maps and not data.eval_split:
    raise errors.InputError(
      f"config.eval.best_metric is {best!r}, but config.data.eval_split is '', "
      f'and without such a split there is no mAP; expected {" or ".join(known)}'
    )
  if best not in (known := ['average_mAP', *known, *maps[1:]]):
    raise errors.InputError(
      f'config.eval.best_metric is {best!r}, expected one of {", ".join(known)}'
    )
