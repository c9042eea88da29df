"""THUMOS14: the base of every config; each field is explained here.

  python -m backtal_jax.main --config configs/thumos14.py

Expected with the official features: mAP 54.4 45.5 36.3 26.2 14.8 at tIoU
0.3…0.7 (published). As published, the best epoch is chosen on the test split.
Time: not run here, the official features are not reachable; at 6 s for 16
videos on two CPU cores ... see docs/performance.md.
"""

import ml_collections

from configs import recipes


def get_config(recipe='published'):
  """Return the config of THUMOS14."""
  c = ml_collections.ConfigDict()
  c.model = ml_collections.ConfigDict()
  c.model.num_classes = 20  # C, without the background
  c.model.feature_dim = 2048  # D, both streams together
  c.model.hidden_dim = 2048  # H, width of the two affinity convolutions
  c.model.reduce_dim = 512  # inner width of embedding and filter
  c.model.embedding_dim = 32  # E
  c.model.affinity = 'official'  # official (published checkpoints) | paper
  c.model.topk_ratio = 0.125  # share of the snippets in the video score
  c.model.dropout_rate = 0.7  # share dropped before the classifier
  c.model.dtype = 'float32'  # of activations and products: or bfloat16

  c.loss = ml_collections.ConfigDict()
  # Weights of the terms; 0 switches a term off. Video labels alone:
  # --config.loss.click=0 --config.loss.separation=0 --config.loss.embedding=0
  c.loss.base = 1.0
  c.loss.supp = 1.0
  c.loss.sparsity = 1e-4
  c.loss.click = 1.0
  c.loss.separation = 1.0
  c.loss.embedding = 0.8
  c.loss.separation_topk_ratio = 0.125  # as topk_ratio, for separation
  c.loss.similar_min = 0.5  # least cosine within action and background
  c.loss.different_max = 0.1  # largest cosine between them
  # Base and supp grow to their weights over this share of the training.
  c.loss.label_warmup = 0.0
  # This share of a batch's clicks, those with the largest loss, is left out of
  # the click term once `click_trim_from`, a share of the training, is done.
  c.loss.click_trim = 0.0
  c.loss.click_trim_from = 0.0

  c.data = ml_collections.ConfigDict()
  c.data.name = 'THUMOS14'
  c.data.root = 'data/THUMOS14'  # holds the split folders
  c.data.generate = False  # make the embedded set where root is missing
  c.data.source = 'npz'  # npz | tfds, see prepare tfds
  c.data.train_split = 'val'  # folder under root, subset of the ground truth
  c.data.eval_split = 'test'
  c.data.num_snippets = 750  # T
  # ActivityNet format; looked up from the current folder, then from root.
  c.data.ground_truth = 'gt_thumos14.json'
  # Click files, a comma between them, that replace the npz files' own labels;
  # looked up as the ground truth is.
  c.data.clicks = ''
  c.data.annotator = 'all'  # of those: all, a name, or random (per epoch)
  # How the features were made, as features.json in root says; '' for unknown.
  c.data.features = ''
  c.data.placement = 'host'  # host | device: where the training split lives

  c.train = ml_collections.ConfigDict()
  c.train.batch_size = 16  # over all devices
  c.train.num_epochs = 40
  c.train.learning_rate = 1e-4
  c.train.weight_decay = 5e-4  # added to the gradient before Adam
  c.train.betas = (0.9, 0.999)
  c.train.seed = 38  # of parameters, order, dropout, clicks
  c.train.eval_every = 1  # epochs between evaluations
  c.train.checkpoint_every = 0  # steps between checkpoints; 0: each epoch
  c.train.on_nan = 'stop'  # a loss that is not finite: stop | skip the step
  c.train.shard_state = False  # split parameters and Adam over the devices
  c.train.remat = False  # recompute the wide intermediates to save memory

  c.localization = ml_collections.ConfigDict()
  c.localization.read = 'logits'  # of the CAS: logits | probabilities
  c.localization.class_threshold = 0.25  # least video score of a class
  c.localization.cas_thresholds = (0.0, 0.25, 0.025)  # start, stop, step
  c.localization.magnitude_thresholds = (0.3, 0.8, 0.075)  # () for none
  c.localization.outer_ratio = 0.25  # λ, of the proposal's length
  c.localization.confidence_weight = 0.2  # γ, of the video score
  c.localization.nms_tiou = 0.55
  c.localization.trim = 0.0  # share of the length cut off at each end
  c.localization.whole_video_score = 0.0  # of a whole-video proposal; 0: none

  c.eval = ml_collections.ConfigDict()
  c.eval.batch_size = 16
  c.eval.tiou = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
  # The best epoch's metric, on eval_split: average_mAP | mAP@0.5 | last
  c.eval.best_metric = 'mAP@0.5'
  # What others report on eval_split, in percent; the report shows it.
  c.eval.published = (
    ('mAP@0.3', 54.4),
    ('mAP@0.4', 45.5),
    ('mAP@0.5', 36.3),
    ('mAP@0.6', 26.2),
    ('mAP@0.7', 14.8),
  )

  c.init_checkpoint = ''  # start from these parameters
  c.mesh = ()  # devices in the data-parallel axis, (8,) say; (): all
  return recipes.apply(c, recipe)
