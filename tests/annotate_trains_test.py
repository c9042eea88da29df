"""What the click page writes trains as it is, and the study of proposals."""

import json
import types

import annotate_client
import numpy as np
from annotations_test import make_truth, make_video
from prepare_test import command

from backtal_jax import IGNORED, files
from backtal_jax.annotate import queue, reviews
from backtal_jax.metrics import segments
from experiments import proposals, review_cost, video_order

NAMES = 'a', 'b b', 'c%é'


def prepare(folder, names, *flags, **options):
  """Prepare what the page wrote, with features of some videos."""
  rng = np.random.default_rng(0)
  (folder / 'features').mkdir()
  for name in names:
    array = rng.normal(size=(20, 6)).astype(np.float32)
    np.save(folder / 'features' / f'{name}.npy', array)
  command(
    'custom', *flags, features=folder / 'features',
    ground_truth=folder / 'truth.json', labels=folder / 'labels.csv',
    clicks=folder / 'clicks.csv', num_snippets=20, fps=25,
    output=folder / 'root', **options,
  )  # fmt: skip


def test_prepare_takes_the_pages_files_as_they_are(tmp_path):
  video = make_video('test', 'test', 20.0, 25.0, (1.0, 3.0, 'run'))
  other = make_video('other', 'none', 20.0, 25.0, (5.0, 6.0, 'jump'))
  truth = make_truth(video, other, classes=('jump', 'run'))
  files.write_json(tmp_path / 'truth.json', truth.as_json())
  page = annotate_client.open_store(tmp_path, dict.fromkeys(NAMES))
  for name in NAMES:
    page.act({'kind': 'opened', 'video': name, 'duration': 20.0})
    page.act({'kind': 'labels', 'video': name, 'labels': ['run']})
    page.act({'kind': 'click', 'video': name, 'time': 10.5})
  page.act({'kind': 'click', 'video': 'a', 'time': 2, 'label': 'run'})
  page.close()
  prepare(tmp_path, (*NAMES, 'test'), eval_split='test')
  found = {
    path.stem: np.load(path)['point_label']
    for path in (tmp_path / 'root' / 'training').iterdir()
  }
  assert set(found) == set(NAMES)
  for name, clicked in found.items():
    assert clicked[10] == 2  # background, the index after the classes
    assert (clicked != IGNORED).sum() == (2 if name == 'a' else 1)
  assert found['a'][2] == 1


def test_prepare_and_metric_take_what_is_reviewed_as_it_is(tmp_path):
  path = files.path(tmp_path / 'truth.json')
  page = annotate_client.open_store(
    tmp_path, dict.fromkeys(NAMES), measure=lambda name: 20.0,
    annotated=reviews.File(path, 'validation'),
  )  # fmt: skip
  for name in NAMES:
    page.act({'kind': 'labels', 'video': name, 'labels': ['run', 'jump']})
    page.act({'kind': 'click', 'video': name, 'time': 10.5})
  said = {'x': [1, 3, 'run', 'accepted'], 'y': [5, 6, 'jump', 'accepted'],
          'z': [7, 9, 'jump', 'rejected']}  # fmt: skip
  page.act({'kind': 'review', 'video': 'a', 'segments': said})
  page.act({'kind': 'reviewed', 'video': 'a', 'reviewed': True})
  page.close()
  prepare(tmp_path, NAMES, '--lenient')
  root = tmp_path / 'root'
  assert [p.stem for p in (root / 'validation').iterdir()] == ['a']
  assert {p.stem for p in (root / 'training').iterdir()} == {'b b', 'c%é'}
  rows = [
    {'label': label, 'segment': [start, end], 'score': 1}
    for start, end, label, _ in said.values()
  ]
  predictions = tmp_path / 'p.json'
  predictions.write_text(json.dumps({'results': {'a': rows}}))
  truth, found = segments.read(path, 'validation', files.path(predictions))
  assert truth.videos == ['a'] and len(truth.segments.start) == 2
  assert len(found.start) == 3


_ACTIONS = (20.0, 40.0, 'x'), (40.3, 60.0, 'x')
TRUTH = make_truth(
  make_video('v', 'train', 100.0, 25.0, *_ACTIONS), classes=('x',)
)


def test_annotator_of_the_study_clicks_background_only():
  # The gap of 0.3 s is shorter than the margins on both sides.
  assert proposals.rooms(TRUTH) == [('v', 0.25, 19.75), ('v', 60.25, 99.75)]
  rng = np.random.default_rng(0)
  found = proposals.at_random(TRUTH, 200, rng)
  early = [c.time for c in found if c.time < 50]
  assert all(0.25 <= t <= 19.75 for t in early)
  assert 0.2 < len(early) / 200 < 0.5  # of 19.5 and 39.5 s
  found = proposals.one_a_gap(TRUTH, 2, rng)
  assert sorted(c.time < 50 for c in found) == [False, True]


def test_annotator_of_the_study_answers_the_best_first():
  answers = []
  proposed = [(0.5, 'v', 10.0), (0.9, 'v', 30.0), (0.8, 'v', 70.0),
              (0.4, 'v', 80.0)]  # fmt: skip
  made = proposals.answer(TRUTH, proposed, answers, 2)
  assert [c.time for c in made] == [70.0, 10.0]
  assert [(c.time, c.label) for c in answers] == [
    (30.0, ''), (70.0, 'background'), (10.0, 'background'),
  ]  # fmt: skip
  # What was answered is not proposed again.
  curve = np.full(100, 0.9)
  video = types.SimpleNamespace(duration=100.0)
  found = queue.rank({'x': curve}, {'x': curve}, video.duration, answers[:1])
  assert found == []


def test_table_of_the_study():
  run = lambda x: {'tiou': [0.3, 0.5, 0.7], 'mAP': [x, x, x], 'average_mAP': x}
  text = proposals.table({'proposals': [run(0.1), run(0.3)]})
  assert text.splitlines()[-1].startswith('| proposals | 20.0 ± 14.1 (2) |')


def test_annotator_of_the_order_clicks_every_gap_of_a_clip():
  rooms = [('a', 0, 2), ('a', 5, 6), ('b', 1, 2), ('c', 0, 9)]
  left = ['b', 'a', 'c']
  found = video_order.visit(rooms, left, 3, np.random.default_rng(0))
  assert [c.video for c in found] == ['b', 'a', 'a'] and left == ['c']
  assert 1 <= found[0].time <= 2 and 5 <= found[2].time <= 6
  found = video_order.visit(rooms, left, 3, np.random.default_rng(0))
  assert [c.video for c in found] == ['c']


def test_table_of_the_order():
  rounds = lambda x: [{'average_mAP': x}] * 4
  text = video_order.table({'model': [rounds(0.1), rounds(0.3)]})
  assert text.splitlines()[-1].endswith('| 20.0 ± 14.1 (2) | 10.0, 30.0 |')


def test_reviewer_goes_the_shortest_way():
  walk = review_cost.Walk(25, 0.0)
  for time, keys in ((1.08, '→..'), (0.96, ',,,'), (5.8, '},,,,'),
                     (0.8, '{')):  # fmt: skip
    before = len(walk.keys)
    walk.go(time)
    assert len(walk.keys) - before == len(keys), (time, walk.keys[before:])
    assert walk.at == round(25 * time)
  walk = review_cost.Walk(25, 0.1)  # two frames may be missed
  walk.go(1.08)
  assert walk.keys == ['→'] and walk.at == 25


def test_keys_of_a_perfect_reviewer():
  found = [(1.0, 3.0, 'x', 0.9), (5.0, 6.0, 'x', 0.8), (8.0, 9.0, 'y', 0.9)]
  instances = [(1.0, 3.0, 'x'), (5.0, 7.0, 'x'), (10.0, 11.0, 'x')]
  walk = review_cost.Walk(25, 0.0)
  proposed = [reviews.Proposal(*x) for x in found]
  review_cost.review(walk, proposed, instances, ['x', 'x', 'x'], 0.1)
  # Accepted; its end set, two seconds on; rejected; then drawn from 8 s.
  assert ''.join(walk.keys) == 'fa→→ef' + 'x' + '→→m→m'
  walk = review_cost.Walk(25, 0.0)
  review_cost.draw(walk, instances[:1], ['x'])
  assert ''.join(walk.keys) == '→m→→m'
