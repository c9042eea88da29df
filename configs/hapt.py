"""HAPT: real, untrimmed, human-labelled wearable recordings.

  python -m backtal_jax.prepare hapt --archive "HAPT Data Set.zip" \
      --output data/HAPT
  python -m backtal_jax.main --config configs/hapt.py

The robust recipe (docs/recipe.md), or `configs/hapt.py:published`. The other
settings are those the official program was tried with on such features, but
for the published `loss.click`: of 1, 4 and 10 it was chosen on 5 of the 21
training people (3, 8, 16, 22 and 27), the others training, by the average mAP
of the last epoch over seeds 0, 1 and 2 (30.2, 33.1 and 32.2). Tried there too,
and not kept: learning rate 3e-4 for 45 epochs (28.6), and features clipped at
±4 (30.2, with loss.click 4 35.3; but the data set is defined without). The test
people chose nothing, and the last epoch is what is reported.
"""

from configs import recipes, thumos14


def get_config(recipe='robust'):
  """Return the config of HAPT: THUMOS14's but for what is set here."""
  c = thumos14.get_config().unlock()
  c.model.num_classes = 9
  c.model.feature_dim = 64
  c.model.hidden_dim = 256
  c.model.reduce_dim = 128
  c.model.dropout_rate = 0.3
  c.loss.click = 4.0  # tuned, on training people: see above
  c.data.name = 'HAPT'
  c.data.root = 'data/HAPT'
  c.data.train_split = 'train'
  c.data.num_snippets = 128
  c.data.placement = 'device'  # 6 MB
  c.data.ground_truth = 'ground_truth.json'
  c.train.batch_size = 16
  c.train.num_epochs = 30
  c.train.learning_rate = 1e-3
  c.train.seed = 0
  c.train.eval_every = 10
  c.localization.class_threshold = 0.05
  c.eval.tiou = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
  c.eval.best_metric = 'last'  # nothing is chosen on the test people
  c.eval.published = ()
  return recipes.apply(c, recipe)
