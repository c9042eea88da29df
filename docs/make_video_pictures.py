"""Make the pictures of docs/video.md from the features of the two real videos.

  python -m backtal_jax.prepare video --videos ../shared/data/video \\
    --output features/real
  python docs/make_video_pictures.py ../shared/data/video features/real
"""

import pathlib
import sys

import make_pictures
import numpy as np

from backtal_jax import files
from backtal_jax.data import feature_records
from backtal_jax.report import figures
from backtal_jax.video import decode, i3d, weights

# Kinetics' class, and ActivityNet's ground truth in seconds, if there is any.
_VIDEOS = {
  'v_GGSY1Qvo990': ('clean and jerk', 59, [(5.82, 16.20)]),
  'women_long_jump': ('long jump', 182, []),
}


def main(videos, features):
  """Draw what I3D itself says of the videos."""
  path = weights.locate(weights.PACKAGE)
  params = weights.load(path, 'rgb', weights.checksum(path))
  output = pathlib.Path(__file__).parent / 'pictures'
  for name, (label, index, truth) in _VIDEOS.items():
    found = np.load(f'{features}/{name}.npy')
    grid = feature_records.read_grid(features / f'{name}.npy')
    probability = np.asarray(i3d.classify(params, found))[:, [index]]
    figure = figures.timeline(
      name,
      grid.duration,
      cas={f'I3D: {label}': grid.resample(probability, 200)[:, 0]},
      ground_truth=[{'label': label, 'segment': s} for s in truth],
      strip=decode.read_strip(f'{videos}/{name}.mp4'),
    )
    figure.axes[-1].set_ylabel('probability')
    make_pictures.save(output / f'video_{name}.png', figure)


if __name__ == '__main__':
  main(*map(files.path, sys.argv[1:]))
