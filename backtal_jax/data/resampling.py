"""Resampling of features from one time grid to another."""

import numpy as np


def resample(features: np.ndarray, num_snippets: int) -> np.ndarray:
  """Resample features [T', D] linearly along time to [T, D].

  Both grids divide the same span into equal parts and meet at their parts'
  centres (OpenCV's INTER_LINEAR: half-pixel centres, no smoothing when
  shrinking), so T' = T is the identity. Beyond the first and last snippet the
  value stays (T' = 1 repeats). The floating type stays; integers become
  float64.
  """
  centres = np.arange(num_snippets) + 0.5
  return interpolate(features, centres * (len(features) / num_snippets) - 0.5)


def interpolate(features: np.ndarray, positions: np.ndarray) -> np.ndarray:
  """Return [T, D] of features [T', D] at T positions, where the i-th is at i.

  Linear between them, the edge value beyond them; types as of `resample`.
  """
  if not np.issubdtype(features.dtype, np.floating):
    features = features.astype(np.float64)
  positions = np.clip(positions, 0, len(features) - 1)
  left = positions.astype(np.int64)
  right = np.minimum(left + 1, len(features) - 1)
  weight = (positions - left).astype(features.dtype)[:, None]
  return features[left] * (1 - weight) + features[right] * weight
