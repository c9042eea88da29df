"""HACS Segments.

  python -m backtal_jax.main --config configs/hacs.py

Expected with the official features: average mAP 20.0, 31.5 at tIoU 0.5, 19.5
at 0.75, 4.7 at 0.95 (published). As published, the best epoch is chosen on the
validation split that is also reported. Not run here: the features are not
reachable.
"""

from configs import activitynet12, recipes


def get_config(recipe='published'):
  """Return the config of HACS: ActivityNet's but for what is set here."""
  c = activitynet12.get_config().unlock()
  c.model.num_classes = 200
  c.data.name = 'HACS'
  c.data.root = 'data/HACS'
  c.data.num_snippets = 200
  c.data.ground_truth = 'HACS_segments_v1.1.1.json'
  c.train.batch_size = 64
  c.train.num_epochs = 8
  c.train.learning_rate = 1e-4
  c.localization.class_threshold = 0.075
  c.localization.cas_thresholds = (0.0, 0.2, 0.025)
  c.localization.outer_ratio = 200.0
  c.localization.nms_tiou = 0.71
  c.eval.batch_size = 64
  c.eval.published = (
    ('mAP@0.5', 31.5),
    ('mAP@0.75', 19.5),
    ('mAP@0.95', 4.7),
    ('average_mAP', 20.0),
  )
  return recipes.apply(c, recipe)
