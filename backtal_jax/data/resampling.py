"""Resampling of features from one time grid to another."""

import numpy as np

from backtal_jax import errors


def resample(features: np.ndarray, num_snippets: int) -> np.ndarray:
  """Resample features [T', D] linearly along time to [T, D].

  Both grids divide the same span into equal parts and meet at their parts'
  centres (OpenCV's INTER_LINEAR: half-pixel centres, no smoothing when
  shrinking), so T' = T is the identity. Beyond the first and last snippet the
  value stays (T' = 1 repeats). The floating type stays; integers become
  float64.

  Raises:
    errors.InputError: `features` is not [T', D] with T' ≥ 1.
  """
  centres = np.arange(num_snippets) + 0.5
  return _interpolate(features, centres * (len(features) / num_snippets) - 0.5)


def resample_times(
  features: np.ndarray,
  times: np.ndarray,
  duration: float | int,
  num_snippets: int,
) -> np.ndarray:
  """Resample features [T', D] on any time grid to T equal parts of the video.

  Args:
    features: [T', D].
    times: [T'] increasing, seconds: where the source snippets are centred.
    duration: Seconds; the result is centred in T equal parts of [0, duration].
    num_snippets: T.

  Returns:
    [T, D], linear between centres, the edge value outside them.

  Raises:
    errors.InputError: As for `resample`; or `times` do not fit `features` or
      do not increase; or `duration` is not positive.
  """
  times = np.asarray(times, np.float64)
  if times.shape != np.shape(features)[:1]:
    raise errors.InputError(
      f'{times.shape} snippet times for features {np.shape(features)}'
    )
  if not np.all(np.diff(times) > 0):
    raise errors.InputError('snippet times do not increase')
  if not 0 < duration < np.inf:
    raise errors.InputError(f'duration is {duration} s, expected more than 0')
  wanted = (np.arange(num_snippets) + 0.5) * (duration / num_snippets)
  # np.interp refuses an empty grid; `_interpolate` says what is wrong with it.
  places = np.arange(len(times))
  return _interpolate(
    features, np.interp(wanted, times, places) if len(times) else wanted
  )


def _interpolate(features, positions):
  """Return features at positions, where source snippet i sits at i."""
  features = np.asarray(features)
  if features.ndim != 2 or not len(features):
    raise errors.InputError(
      f"features have shape {features.shape}, expected [T', D] with T' ≥ 1"
    )
  if not np.issubdtype(features.dtype, np.floating):
    features = features.astype(np.float64)
  positions = np.clip(positions, 0, len(features) - 1)
  left = positions.astype(np.int64)
  right = np.minimum(left + 1, len(features) - 1)
  weight = (positions - left).astype(features.dtype)[:, None]
  return features[left] * (1 - weight) + features[right] * weight
