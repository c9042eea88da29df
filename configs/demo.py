"""The embedded set: five classes, each with a context that fools video labels.

  python -m backtal_jax.main --config configs/demo.py

Makes its data on first use. The robust recipe (docs/recipe.md), or
`configs/demo.py:published`.
"""

from configs import recipes, thumos14


def get_config(recipe='robust'):
  """Return the config of the demo: THUMOS14's but for what is set here."""
  c = thumos14.get_config().unlock()
  c.model.num_classes = 5
  c.model.feature_dim = 32
  c.model.hidden_dim = 64
  c.model.reduce_dim = 32
  c.model.embedding_dim = 16
  c.model.dropout_rate = 0.3
  c.data.name = 'demo'
  c.data.root = 'data/demo'
  c.data.generate = True
  c.data.train_split = 'train'
  c.data.num_snippets = 100
  c.data.placement = 'device'  # 2 MB
  c.data.ground_truth = 'ground_truth.json'
  c.train.learning_rate = 1e-3
  c.train.num_epochs = 20
  c.train.eval_every = 10
  c.train.seed = 0
  c.eval.tiou = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
  c.eval.best_metric = 'last'  # nothing is chosen on the test split
  c.eval.published = ()
  return recipes.apply(c, recipe)
