"""ActivityNet 1.2.

  python -m backtal_jax.main --config configs/activitynet12.py

Expected with the official features: average mAP 27.0, 41.5 at tIoU 0.5, 27.3
at 0.75, 4.7 at 0.95 (published). As published, the best epoch is chosen on the
validation split that is also reported. Not run here: the features are not
reachable.
"""

from configs import recipes, thumos14


def get_config(recipe='published'):
  """Return the config of ActivityNet 1.2."""
  c = thumos14.get_config().unlock()
  c.model.num_classes = 100
  c.model.topk_ratio = 0.6
  c.loss.separation = 0.1
  c.loss.separation_topk_ratio = 0.2
  c.data.name = 'ActivityNet1.2'
  c.data.root = 'data/ActivityNet1.2'
  c.data.train_split = 'training'
  c.data.eval_split = 'validation'
  c.data.num_snippets = 100
  c.data.ground_truth = 'activity_net.v1-2.min.json'
  c.train.batch_size = 128
  c.train.num_epochs = 25
  c.train.learning_rate = 2e-4
  c.train.seed = 5
  c.localization.class_threshold = 0.1
  c.localization.cas_thresholds = (0.0, 0.15, 0.025)
  c.localization.magnitude_thresholds = ()
  c.localization.outer_ratio = 20.0
  c.localization.confidence_weight = 0.6
  c.localization.nms_tiou = 0.7
  c.localization.trim = 0.02
  c.localization.whole_video_score = 0.6
  c.eval.batch_size = 128
  c.eval.tiou = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
  c.eval.best_metric = 'average_mAP'
  c.eval.published = (
    ('mAP@0.5', 41.5),
    ('mAP@0.75', 27.3),
    ('mAP@0.95', 4.7),
    ('average_mAP', 27.0),
  )
  return recipes.apply(c, recipe)
