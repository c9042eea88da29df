"""What a reviewed video costs: the keys of a perfect reviewer.

  python -m experiments.review_cost --ground_truth G --predictions P \
      --subset S [--videos FOLDER]

Counts the keys of docs/annotate.md that turn the segments of a model into the
ground truth, and beside them those that draw every segment by hand. A segment
that overlaps an instance of its class by a tIoU of 0.3 or more is taken for it;
an edge that is off by more than --edge seconds is set, all others that are
shown are rejected, what is missing is drawn, as exactly. The way to a frame is
the shortest by jumps of 5 s and 1 s and steps. With --videos the keys are
pressed in the page, in Chromium, and timed; what it writes is compared.
"""

import argparse
import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from backtal_jax import command_line, errors, files
from backtal_jax.annotate import reviews
from backtal_jax.data import annotations

_SAME = 0.3  # tIoU
_READY = 'return video.readyState >= 2 && !video.seeking'
_FAR, _NEAR, _STEP = ('}', '{'), ('→', '←'), ('.', ',')  # 5 s, 1 s, a frame


class Walk:
  """Keys that are pressed, and the frame that is on screen then.

  Args:
    fps: Frames a second.
    edge: Seconds by which a frame may be missed.
  """

  def __init__(self, fps: int, edge: float) -> None:
    self.keys: list[str] = []
    self.at, self.fps, self._off = 0, fps, int(edge * fps)

  def press(self, key: str) -> None:
    """Press a key that goes nowhere."""
    self.keys.append(key)

  def go(self, time: float) -> None:
    """Go to a moment, in seconds, with the fewest keys."""
    fps, end = self.fps, round(time * self.fps)
    ways = []
    far = (end - self.at) // (5 * fps)
    for fives in range(min(far, 0) - 1, max(far, 0) + 3):
      rest = end - self.at - 5 * fps * fives
      for ones in {int(rest / fps), round(rest / fps), rest // fps}:
        left = rest - fps * ones
        left = int(np.sign(left)) * max(0, abs(left) - self._off)
        ways.append(((fives, 5 * fps), (ones, fps), (left, 1)))
    way = min(ways, key=lambda way: sum(abs(n) for n, _ in way))
    for keys, (count, frames) in zip((_FAR, _NEAR, _STEP), way, strict=True):
      self.keys += [keys[count < 0]] * abs(count)
      self.at += count * frames


def draw(walk: Walk, instances, labels) -> None:
  """Draw instances [(start, end, label)]; the first of `labels` is drawn."""
  for start, end, label in instances:
    walk.go(start)
    walk.press('m')
    walk.go(end)
    walk.press('m')
    if label != labels[0]:
      walk.press('c')


def review(walk: Walk, shown, instances, labels, edge: float) -> None:
  """Turn proposals into instances.

  Args:
    walk: Gets the keys.
    shown: reviews.Proposal of the video.
    instances: What is true, [(start, end, label)].
    labels: Classes of the video.
    edge: Seconds by which an edge may be wrong.
  """
  shown = sorted(shown)
  owner = {}
  for one in instances:
    same = [p for p in shown if p.label == one[2] and p not in owner]
    best = max(same, key=lambda p: _overlap(p, one), default=None)
    if best is not None and _overlap(best, one) >= _SAME:
      owner[best] = one
  for i, segment in enumerate(shown):
    if i == 0 or walk.keys[-1] in ('s', 'e'):
      walk.press('f')  # what was judged has gone on by itself
    walk.at = round(segment.start * walk.fps)
    one = owner.get(segment)
    if one is None:
      walk.press('x')
      continue
    edges = ('s', one[0], segment.start), ('e', one[1], segment.end)
    wrong = [(key, to) for key, to, at in edges if abs(to - at) > edge]
    # An edge that would pass the other one has to wait for it.
    if len(wrong) == 2 and one[0] >= segment.end:
      wrong.reverse()
    for key, to in wrong:
      walk.go(to)
      walk.press(key)
    if not wrong:
      walk.press('a')
  draw(walk, [x for x in instances if x not in owner.values()], labels)


def _overlap(segment, one):
  shared = min(segment.end, one[1]) - max(segment.start, one[0])
  return max(0, shared) / (
    max(segment.end, one[1]) - min(segment.start, one[0])
  )


def plans(truth, predictions, fps, edge) -> dict[str, tuple[list[str], ...]]:
  """Return {video: (keys of the review, keys of drawing all)}."""
  found = {}
  for name, video in sorted(truth.items()):
    instances = sorted((s.start, s.end, s.label) for s in video.segments)
    labels = [label for _, _, label in instances]
    ways = Walk(fps, edge), Walk(fps, edge)
    review(ways[0], predictions.get(name, []), instances, labels, edge)
    draw(ways[1], instances, labels)
    found[name] = tuple([*way.keys, 'd'] for way in ways)
  return found


def table(found, truth) -> str:
  """Lay out the keys a video and a segment."""
  count = sum(len(truth[name].segments) for name in found)
  lines = ['| | keys a video | keys a segment |', '| --- | --- | --- |']
  for i, heading in enumerate(('review', 'by hand')):
    keys = np.array([len(plan[i]) for plan in found.values()])
    lines.append(
      f'| {heading} | {keys.mean():.1f} (median {np.median(keys):.0f}) | '
      f'{keys.sum() / max(1, count):.1f} |'
    )
  return '\n'.join(lines)


def main(argv=None):
  """Print the table; press the keys, if there are videos."""
  parser = command_line.Parser(
    description=__doc__.split('\n')[0],
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  add('--ground_truth', type=files.path, required=True, help='any format')
  add('--predictions', type=files.path, required=True, help='ActivityNet JSON')
  add('--subset', required=True, help='that is reviewed')
  add('--fps', type=int, default=25, help='frames a second of the videos')
  add('--edge', type=float, default=0.1, help='seconds that may be wrong')
  add('--score', type=float, default=0.3, help='from which segments are shown')
  add('--videos', type=files.path, help='press the keys in the page')
  args = parser.parse_args(argv)
  with errors.one_line():
    truth = annotations.read_ground_truth(args.ground_truth)
    videos = truth.subset(args.subset)
    predictions, _ = reviews.read_predictions(
      args.predictions, videos, truth.classes
    )
    predictions = {
      name: [p for p in found if p.score >= args.score]
      for name, found in predictions.items()
    }
    found = plans(videos, predictions, args.fps, args.edge)
    count = sum(len(v.segments) for v in videos.values())
    print(f'{len(found)} videos, {count} segments')
    print(table(found, videos))
    if args.videos:
      for i, heading in enumerate(('review', 'by hand')):
        keys = {name: plan[i] for name, plan in found.items()}
        seconds, right = press(args, keys, videos, truth.classes, bool(i))
        print(
          f'{heading}: {seconds / len(found):.1f} s a video in the page; '
          f'{right} of {len(found)} videos are the ground truth'
        )


def press(args, keys, truth, classes, by_hand):
  """Press {video: keys} in the page; return the seconds, and videos right."""
  with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
    folder = pathlib.Path(name)
    (folder / 'videos').mkdir()
    for path in pathlib.Path(args.videos).iterdir():
      if path.stem in keys:
        shutil.copy(path, folder / 'videos')
    (folder / 'labels.csv').write_text(
      'video_id,subset,label\n'
      + ''.join(f'{n},training,{truth[n].segments[0].label}\n' for n in keys)
    )
    empty = folder / 'none.json'
    empty.write_text(json.dumps({'results': {n: [] for n in keys}}))
    process = subprocess.Popen(
      [sys.executable, '-m', 'backtal_jax.annotate',
       f'--videos={folder}/videos', f'--clicks={folder}/clicks.csv',
       '--annotator=A1', '--port=0',
       f'--labels={folder}/labels.csv', f'--classes={",".join(classes)}',
       f'--segments={empty if by_hand else args.predictions}'],
      stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    stack.callback(process.wait)
    stack.callback(process.terminate)
    lines = iter(process.stdout)
    address = next(x for x in lines if x.startswith('http')).strip()
    seconds = _press_all(address, keys, folder, args.score)
    written = files.path(folder / 'clicks_annotations.json')
    done = annotations.read_ground_truth(written).videos
    right = sum(_is_same(done[n], truth[n], args) for n in keys if n in done)
    process.stdout.close()
  return seconds, right


def _is_same(done, video, args):
  rows = lambda v: sorted((s.label, s.start, s.end) for s in v.segments)
  ours, theirs = rows(done), rows(video)
  return len(ours) == len(theirs) and all(
    a[0] == b[0]
    and max(abs(a[1] - b[1]), abs(a[2] - b[2])) <= args.edge + 1 / args.fps
    for a, b in zip(ours, theirs, strict=True)
  )


def _press_all(address, keys, folder, score):
  from selenium import webdriver

  options = webdriver.ChromeOptions()
  for flag in ('headless', 'no-sandbox', 'disable-gpu',
               f'user-data-dir={folder}/profile'):  # fmt: skip
    options.add_argument(f'--{flag}')
  options.binary_location = shutil.which('chromium')
  service = webdriver.ChromeService(shutil.which('chromedriver'))
  browser = webdriver.Chrome(options=options, service=service)
  try:
    browser.get(address)
    _until(browser, lambda: 'clicks in' in _text(browser, 'status'))
    _press(browser, 'v')
    for _ in range(20):
      _press(browser, '-')
    for _ in range(round(score / 0.05)):
      _press(browser, '=')
    seconds = 0.0
    for name, pressed in keys.items():
      _until(browser, lambda name=name: _text(browser, 'name') == name)
      _until(browser, lambda: _text(browser, 'saved') == 'all saved')
      _until(browser, lambda: browser.execute_script(_READY))
      time.sleep(0.5)
      start = time.perf_counter()
      for key in pressed:
        _press(browser, key)
        _until(browser, lambda: browser.execute_script(_READY))
      _until(browser, lambda: _text(browser, 'saved') == 'all saved')
      seconds += time.perf_counter() - start
    return seconds
  finally:
    browser.quit()


def _press(browser, key):
  """Press a key as it is written here, and wait until it has its picture."""
  special = {'→': 'ArrowRight', '←': 'ArrowLeft', '}': 'ArrowRight',
             '{': 'ArrowLeft'}  # fmt: skip
  browser.execute_async_script(
    """const [key, shiftKey, done] = arguments;
    const before = document.getElementById('time').textContent;
    document.dispatchEvent(new KeyboardEvent('keydown',
      {key, shiftKey, bubbles: true, cancelable: true}));
    const moves = /Arrow|[.,]/.test(key);
    const end = performance.now() + (moves ? 2000 : 30);
    const look = () => (moves
      && document.getElementById('time').textContent !== before)
      || performance.now() > end ? setTimeout(done, 30) : setTimeout(look, 10);
    look();""",
    special.get(key, key),
    key in _FAR,
  )


def _text(browser, name):
  return browser.execute_script(
    'return document.getElementById(arguments[0]).textContent', name
  )


def _until(browser, condition):
  end = time.monotonic() + 30
  while not condition():
    if time.monotonic() > end:
      raise TimeoutError(re.sub(r'\s+', ' ', _text(browser, 'status')))
    time.sleep(0.02)


if __name__ == '__main__':
  main()
