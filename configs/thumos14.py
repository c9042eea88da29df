"""THUMOS14: the base of every config; each field is explained here.

  python -m backtal_jax.main --config configs/thumos14.py

Expected with the official features: mAP 54.4 45.5 36.3 26.2 14.8 at tIoU
0.3…0.7 (published). As published, the best epoch is chosen on the test split.
Time: not run here, the official features are not reachable; docs/performance.md
has the time of a step.

Each comment says which values a field may have (backtal_jax/fields.py).
"""

import ml_collections

from configs import recipes


def get_config(recipe='published'):
  """Return the config of THUMOS14."""
  c = ml_collections.ConfigDict()
  c.model = ml_collections.ConfigDict()
  c.model.num_classes = 20  # C, without the background; at least 1
  c.model.feature_dim = 2048  # D, both streams together; at least 1
  # H, width of the two affinity convolutions; at least 1.
  c.model.hidden_dim = 2048
  c.model.reduce_dim = 512  # inner width of embedding, filter; at least 1
  c.model.embedding_dim = 32  # E; at least 1
  c.model.affinity = 'official'  # official | paper; published: official
  # Share of the snippets in the video score; more than 0, at most 1.
  c.model.topk_ratio = 0.125
  c.model.topk_by = 'logits'  # that choose them: logits | probabilities
  # Share dropped before the classifier; at least 0, less than 1.
  c.model.dropout_rate = 0.7
  # Shift and scale every channel of the features to mean 0, deviation 1 over
  # the training split; kept with the parameters: False | True.
  c.model.standardize = False
  c.model.dtype = 'float32'  # of activations, products: float32 | bfloat16

  c.loss = ml_collections.ConfigDict()
  # Weights of the terms, at least 0; 0 switches a term off. Video labels alone:
  # --config.loss.click=0 --config.loss.separation=0 --config.loss.embedding=0
  c.loss.base = 1.0
  c.loss.supp = 1.0
  c.loss.sparsity = 1e-4
  c.loss.click = 1.0
  c.loss.separation = 1.0
  c.loss.embedding = 0.8
  # Of the snippets of named segments, when trained again (config.stages); at
  # least 0.
  c.loss.frames = 1.0
  # As topk_ratio, for separation; more than 0, at most 1.
  c.loss.separation_topk_ratio = 0.125
  # Least cosine within action and background, largest between; from -1 to 1.
  c.loss.similar_min = 0.5
  c.loss.different_max = 0.1
  # Base and supp grow to their weights over this share of the training; at
  # least 0, at most 1.
  c.loss.label_warmup = 0.0
  # This share of a batch's clicks, those with the largest loss, is left out of
  # the click term (at least 0, less than 1) once `click_trim_from`, a share of
  # the training, is done (at least 0, at most 1).
  c.loss.click_trim = 0.0
  c.loss.click_trim_from = 0.0
  # Once this share of the training is done (at least 0, at most 1, which is
  # never), a background click is none where the network sees more foreground
  # than on average in the video.
  c.loss.click_doubt_from = 1.0
  # Once this share of the training is done (at least 0, at most 1, which is
  # never), the top-k snippets are chosen without dropout, whose noise favours
  # some in training that evaluation does not.
  c.loss.topk_clean_from = 1.0

  c.data = ml_collections.ConfigDict()
  c.data.name = 'THUMOS14'
  c.data.root = 'data/THUMOS14'  # holds the split folders
  # Make the embedded set where root is missing: False | True.
  c.data.generate = False
  c.data.source = 'npz'  # npz | tfds, see prepare tfds
  c.data.train_split = 'val'  # folder under root, subset of the ground truth
  # As train_split, with segments; '' for none: then there is no mAP.
  c.data.eval_split = 'test'
  c.data.num_snippets = 750  # T; at least 1
  # ActivityNet format; looked up from the current folder, then from root.
  c.data.ground_truth = 'gt_thumos14.json'
  # Click files, a comma between them, that replace the npz files' own labels;
  # looked up as the ground truth is; '' for none.
  c.data.clicks = ''
  c.data.annotator = 'all'  # of those: all, a name, or random (per epoch)
  # Share of each video's clicks in those files that are not trained on, for
  # found segments to be held against (click agreement); at least 0, less
  # than 1.
  c.data.clicks_aside = 0.0
  # Click files of somebody else, for the same; '' for none.
  c.data.agreement_clicks = ''
  # How the features were made, as features.json in root says; '' for unknown.
  c.data.features = ''
  c.data.placement = 'host'  # host | device: where the training split lives

  c.train = ml_collections.ConfigDict()
  c.train.batch_size = 16  # over all devices; at least 1
  c.train.num_epochs = 40  # at least 1
  c.train.learning_rate = 1e-4  # more than 0
  # It grows from nothing over this share of the training; at least 0, at most
  # 1.
  c.train.rate_warmup = 0.0
  c.train.weight_decay = 5e-4  # added to the gradient before Adam; at least 0
  c.train.betas = (0.9, 0.999)  # of Adam; each at least 0, less than 1
  # Of parameters, order, dropout and clicks; from 0 to 4294967295.
  c.train.seed = 38
  c.train.eval_every = 1  # epochs between evaluations; at least 1
  # Steps between checkpoints; at least 0, which is one after each epoch.
  c.train.checkpoint_every = 0
  # Where a loss is not finite, end or leave the step out: stop | skip.
  c.train.on_nan = 'stop'
  # Split parameters and Adam over the devices: False | True.
  c.train.shard_state = False
  # Recompute the wide intermediates to save memory: False | True.
  c.train.remat = False

  c.localization = ml_collections.ConfigDict()
  # What is localised of the CAS: logits | probabilities | product, of both.
  c.localization.read = 'logits'
  # Least video score of a class; at least 0, at most 1.
  c.localization.class_threshold = 0.25
  # Levels that make proposals: start, stop, step; () for none.
  c.localization.cas_thresholds = (0.0, 0.25, 0.025)
  c.localization.magnitude_thresholds = (0.3, 0.8, 0.075)
  c.localization.outer_ratio = 0.25  # λ, of a proposal's length; at least 0
  c.localization.confidence_weight = 0.2  # γ, of the video score; at least 0
  c.localization.nms_tiou = 0.55  # more than 0, at most 1
  # Share of the length cut off at each end; at least 0, less than 0.5.
  c.localization.trim = 0.0
  # Score of a whole-video proposal; at least 0, which is no such proposal.
  c.localization.whole_video_score = 0.0

  # A segment's score is times the largest probability of its class in it to
  # this power; at least 0, which leaves it.
  c.localization.probability_power = 0.0
  # Overlapping segments' scores are times exp(-tIoU^2 / this) instead of being
  # dropped by nms_tiou; at least 0, which is dropping.
  c.localization.nms_sigma = 0.0

  c.stages = ml_collections.ConfigDict()
  # Where at the end of a training fewer training videos than this share are
  # found to be of one of their classes, trained anew without clicks; at least
  # 0, at most 1.
  c.stages.without_clicks_below = 0.0
  # Who names the segments found in training videos: em | probability.
  c.stages.names = 'em'
  # Action clicks that name every label of a video are on each of its instances:
  # what none of them names is background. False | True.
  c.stages.every_instance = True
  # With these as labels of snippets, trained on for this share of num_epochs,
  # where 3 % of them or more are named otherwise than the network would; at
  # least 0, at most 1.
  c.stages.retrain = 0.0
  # A head learns from these segments how well proposals fit: False | True.
  c.stages.quality = False

  c.eval = ml_collections.ConfigDict()
  # Look at 100 training videos, too: False | True.
  c.eval.watch = False
  c.eval.batch_size = 16  # at least 1
  # Each more than 0, at most 1, rising.
  c.eval.tiou = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
  # The best epoch's metric, on eval_split: average_mAP | mAP@0.5 | last; or
  # click_agreement, on the training videos (config.data.clicks_aside).
  c.eval.best_metric = 'mAP@0.5'
  # What others report on eval_split, in percent, as pairs; the report shows it.
  c.eval.published = (
    ('mAP@0.3', 54.4),
    ('mAP@0.4', 45.5),
    ('mAP@0.5', 36.3),
    ('mAP@0.6', 26.2),
    ('mAP@0.7', 14.8),
  )

  c.init_checkpoint = ''  # start from these parameters; '' for none
  c.mesh = ()  # devices in the data-parallel axis, (8,) say; () for all
  return recipes.apply(c, recipe)
