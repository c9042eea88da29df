"""How cost grows, with the exponent of the last half of each curve."""

import jax
import numpy as np

from backtal_jax import localization, models, predict
from backtal_jax.metrics import detection_map
from benchmarks import measure


def _inference(length):
  model = models.BackTAL(20, 256, 256, 64)
  params = models.init(model, jax.random.key(0), length)
  x = np.random.default_rng(0).random((1, length, 256), np.float32)
  return lambda: predict.predict_step(params, x, model=model)


def _classes(num_classes):
  """Localise one video in which every class is looked for."""
  rng = np.random.default_rng(0)
  cas = rng.normal(size=(200, num_classes + 1)).astype(np.float32)
  score = np.full(num_classes + 1, 1.0, np.float32)
  options = dict(
    class_threshold=0.1, cas_thresholds=(0, 0.2, 0.025), outer_ratio=0.25,
    magnitude_thresholds=(), confidence_weight=0.2, nms_tiou=0.5, trim=0.0,
    whole_video_score=0.0, frame_num=3000, duration=100.0,
  )  # fmt: skip
  return lambda: localization.localize(cas, score, None, **options)


def _detections(predictions, videos):
  rng = np.random.default_rng(0)

  def segments(video):
    count = len(video)
    start = rng.random(count) * 200
    end = start + 5 + 40 * rng.random(count)
    # One class a video, so that there are as many truths for any number.
    return segments.Segments(video, video % 100, start, end, rng.random(count))

  names = [f'{i:06}' for i in range(videos)]
  labels = [f'{i:03}' for i in range(100)]
  right = segments(np.repeat(np.arange(videos), 3))
  truth = segments.Truth(names, labels, right)
  found = segments(np.sort(rng.integers(videos, size=predictions)))
  tiou = [0.5, 0.75, 0.95]
  return lambda: detection_map.detection_map(truth, found, tiou)


CURVES = {
  'snippets T (prediction)': (_inference, (100, 200, 400, 750, 1500, 3000)),
  'classes C (localisation)': (_classes, (20, 50, 100, 200, 500, 1000)),
  'proposals (mAP, 10^4 videos)': (
    lambda n: _detections(n, 10**4),
    (10**3, 10**4, 10**5, 10**6),
  ),
  'videos (mAP, 10 proposals each)': (
    lambda n: _detections(10 * n, n),
    (10**2, 10**3, 10**4, 10**5),
  ),
}


def run() -> dict:
  """Return {name: sizes, seconds, exponent}."""
  found = {}
  for name, (make, sizes) in CURVES.items():
    seconds = [measure.interleaved(make(n), repeats=3)[0] for n in sizes]
    half = len(sizes) // 2
    slope, _ = np.polyfit(np.log(sizes[half:]), np.log(seconds[half:]), 1)
    found[name] = {
      'sizes': list(sizes),
      'seconds': seconds,
      'exponent': float(slope),
    }
  return found


def plot(growth, path):
  """Draw the curves on one figure."""
  from matplotlib import figure

  drawn = figure.Figure((10, 2.6), layout='constrained')
  for axis, (name, curve) in zip(
    drawn.subplots(1, len(growth)), growth.items(), strict=True
  ):
    axis.loglog(curve['sizes'], curve['seconds'], 'o-')
    axis.set_title(f'{name}\nexponent {curve["exponent"]:.2f}', fontsize=8)
    axis.set_ylabel('seconds', fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
  drawn.savefig(path, dpi=90)
