"""Make a set of short videos to try the road of docs/video.md with.

python docs/make_videos.py FOLDER

18 clips of 8 s (or as many as the environment's CLIPS says) and their
annotations.json (ActivityNet's format), and one more clip, unseen.mp4. Three
classes of action: a shape that moves in its own way, twice a clip. Each has a
context, a scene in which it always happens, and which is there before, between
and after: labels alone cannot tell the two apart.
"""

import json
import os
import pathlib
import sys

import av
import numpy as np

FPS, SECONDS, SIZE = 25, 8, 112
COUNT = int(os.environ.get('CLIPS', 18))  # a third of them to evaluate on
CLASSES = {  # colours of the scene, and how far the shape goes a second
  'slide': ((40, 80, 200), (120, 0)),
  'drop': ((40, 160, 60), (0, 120)),
  'shake': ((200, 120, 40), None),
}
_Y, _X = np.mgrid[:SIZE, :SIZE]


def draw(rng, label, time, actions):
  """Return one frame [SIZE, SIZE, 3]; actions are (start, end) in seconds."""
  scene, speed = CLASSES[label]
  stripes = (_X + _Y) // 14 % 2 if speed else (_X // 14 + _Y // 14) % 2
  picture = (1 + stripes[..., None]) * np.array(scene) * 0.5
  for start, end in actions:
    gone = time - start
    if not start <= time < end:
      continue
    if speed:
      x, y = ((SIZE / 2 + gone * v) % SIZE for v in speed)
    else:
      x, y = SIZE / 2 + 24 * np.array([np.sin(21 * gone), np.cos(17 * gone)])
    picture[(_X - x) ** 2 + (_Y - y) ** 2 < 24**2] = 250
  return np.uint8(np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255))


def write(path, rng, label, actions):
  """Write one clip."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=FPS)
    stream.width = stream.height = SIZE
    stream.pix_fmt = 'yuv420p'
    for i in range(SECONDS * FPS):
      picture = draw(rng, label, i / FPS, actions)
      frame = av.VideoFrame.from_ndarray(picture, 'rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def main():
  """Write the clips, then what happens in them."""
  folder = pathlib.Path(sys.argv[1])
  (folder / 'clips').mkdir(parents=True, exist_ok=True)
  rng, database = np.random.default_rng(0), {}
  for i in range(COUNT + 1):
    label = list(CLASSES)[i % len(CLASSES)]
    starts = rng.uniform(0.8, 1.4), rng.uniform(4.4, 5)
    actions = [(start, start + rng.uniform(1.6, 2.4)) for start in starts]
    if i == COUNT:
      write(folder / 'unseen.mp4', rng, label, actions)
      print(f'unseen.mp4: {label}', *(f'{s:.1f}–{e:.1f} s' for s, e in actions))
      break
    write(folder / 'clips' / f'clip_{i:02}.mp4', rng, label, actions)
    database[f'clip_{i:02}'] = {
      'subset': 'training' if i < 2 * COUNT // 3 else 'validation',
      'duration': SECONDS,
      'annotations': [{'label': label, 'segment': a} for a in actions],
    }
  text = json.dumps({'database': database}, indent=1)
  (folder / 'annotations.json').write_text(text)


if __name__ == '__main__':
  main()
