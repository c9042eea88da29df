"""The recipes that every config knows, one switch between them.

  --config configs/hapt.py:robust      --config configs/hapt.py:published
  --config configs/hapt.py:staged

docs/recipe.md shows what each change is for.
"""

import ml_collections

NAMES = ('published', 'robust', 'staged')


def apply(
  config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
  """Return a config with a recipe, locked.

  Args:
    config: of a data set, as the method was published.
    name: one of NAMES; 'robust' does the same on every data set, and so does
      'staged', which is robust with all stages.

  Raises:
    ValueError: there is no such recipe.
  """
  if name not in NAMES:
    raise ValueError(f'recipe {name!r}, expected one of {", ".join(NAMES)}')
  c = config.unlock()
  if name in ('robust', 'staged'):
    c.model.standardize = True
    c.model.topk_by = 'probabilities'
    c.loss.click = 1.0
    c.loss.label_warmup = 0.1
    c.loss.click_doubt_from = 0.3
    c.loss.topk_clean_from = 0.5
    c.train.learning_rate *= 2
    c.train.rate_warmup = 0.02
    c.localization.read = 'product'
    c.localization.magnitude_thresholds = ()
  if name == 'staged':
    c.localization.probability_power = 0.5
    c.localization.nms_sigma = 0.5
    c.stages.without_clicks_below = 0.2
    c.stages.retrain = 0.33
    c.stages.quality = True
    c.eval.watch = True
  return c.lock()
