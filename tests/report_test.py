"""The report: whole, self-contained, and right in a real browser."""

import json
import re

import chromium
import numpy as np
import pytest

from backtal_jax import errors, files
from backtal_jax.metrics import detection_map, segments
from backtal_jax.report import __main__ as command
from backtal_jax.report import comparison, pages, style, timelines
from backtal_jax.run import outputs

LABELS = ('<script>alert(1)</script>', 'salto é 跳水', 'a & $b$')
TIOU = [0.3, 0.5, 0.7]


def make_workdir(path, *, seed=0, num_videos=12, jitter=2.0, published=()):
  """Write what a run leaves: results of a made-up set of videos."""
  truth_rng, rng = np.random.default_rng(7), np.random.default_rng(seed)
  database, found, along = {}, {}, {}
  for i in range(num_videos):
    # A quote, markup and another script in the name of a video.
    name = f'video <b>"{i}"</b> 视频'
    database[name] = {'subset': 'test', 'duration': 100.0, 'annotations': []}
    found[name] = []
    for start in truth_rng.uniform(0, 80, size=3):
      label = LABELS[truth_rng.integers(3)]
      segment = [float(start), float(start + truth_rng.uniform(2, 18))]
      database[name]['annotations'] += [{'label': label, 'segment': segment}]
      noise = rng.normal(scale=jitter, size=2)
      found[name] += [
        {
          'label': label,
          'segment': (np.array(segment) + noise).tolist(),
          'score': float(rng.uniform()),
        },
        {'label': LABELS[0], 'segment': [1.0, 4.0], 'score': 0.1},
      ]
    along[name] = {
      'labels': list(LABELS),
      'cas': rng.normal(size=(3, 50)).astype(np.float16),
      'foreground': rng.uniform(size=50).astype(np.float16),
      'magnitude': rng.uniform(size=50).astype(np.float16),
      'background': np.arange(50) == 7,
      'action': np.where(np.arange(50) == 9, 1, -1),
    }
  ground_truth = {'database': database}
  predictions = {'results': found}
  files.write_json(path / 'gt.json', ground_truth)
  files.write_json(path / 'predictions.json', predictions)
  columns = segments.read(path / 'gt.json', 'test', path / 'predictions.json')
  metrics = detection_map.detection_map(*columns, TIOU) | {'epoch': 2}
  files.write_json(path / 'metrics.json', metrics)
  config = {
    'data': {'name': 'made up', 'root': str(path), 'ground_truth': 'gt.json',
             'eval_split': 'test'},
    'eval': {'published': published},
  }  # fmt: skip
  files.write_json(path / 'config.json', config)
  lines = [{'step': i, 'loss/total': 2 / i, 'loss/base': 1 / i}
           for i in range(1, 60)]  # fmt: skip
  lines += [{'step': 59, 'mAP@0.5': 0.4, 'average_mAP': 0.3, 'epoch': 2}]
  (path / 'metrics.jsonl').write_text(
    ''.join(json.dumps(line) + '\n' for line in lines) + '{"step": 6'
  )
  outputs.write_curves(path / 'curves.npz', along)
  return path


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """Two runs, the report of the second and their comparison."""
  folder = tmp_path_factory.mktemp('runs')
  a = make_workdir(folder / 'a', jitter=6)
  b = make_workdir(folder / 'b', published=[['mAP@0.5', 36.3]], seed=1)
  return a, b, pages.write(b), comparison.compare(a, b)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  """A headless Chromium."""
  with chromium.opened(tmp_path_factory.mktemp('profile')) as opened:
    yield opened


def show(browser, path, *, theme='light', width=1200, media='screen'):
  """Open a page in a theme, at a width in CSS pixels."""
  chromium.look(browser, theme=theme, width=width, media=media)
  browser.get(f'file://{path}')


def column(browser, table, index):
  """Return the texts of a column of a table, by their numbers in the page."""
  return browser.execute_script(
    'return [...document.querySelectorAll("table")[arguments[0]].tBodies[0]'
    '.rows].map(row => row.cells[arguments[1]].textContent)',
    table,
    index,
  )


@pytest.mark.parametrize('theme', ['light', 'dark'])
@pytest.mark.parametrize('width', [1200, 400])
@pytest.mark.parametrize('which', [2, 3])
def test_page_in_a_browser(written, browser, theme, width, which):
  show(browser, written[which], theme=theme, width=width)
  assert not browser.get_log('browser')
  paper = browser.execute_script(
    'return getComputedStyle(document.body).backgroundColor'
  )
  expected = style.PALETTE['paper'][theme == 'dark'].lstrip('#')
  assert [*map(int, re.findall(r'\d+', paper))] == [*bytes.fromhex(expected)]
  sizes = browser.execute_script(
    'return [...document.querySelectorAll("svg")].map(e => ['
    'e.getBoundingClientRect().width, e.getBoundingClientRect().height,'
    'e.querySelectorAll("path").length, e.getAttribute("aria-label")])'
  )
  assert len(sizes) == (3 + 5 + 1 + 6 if which == 2 else 3)
  for w, h, paths, label in sizes:
    assert w > 200 and h > 40 and paths > 5 and label
  contrast = browser.execute_script(chromium.CONTRAST)
  assert len(contrast) > 100
  assert min(contrast)[0] >= 4.5, min(contrast)
  # Nothing but the boxes that scroll by themselves is wider than the page.
  overflow = browser.execute_script(
    'return document.documentElement.scrollWidth - innerWidth'
  )
  assert overflow <= 0
  requests = browser.execute_script(
    'return performance.getEntriesByType("resource").map(e => e.name)'
  )
  assert not [name for name in requests if not name.startswith('data:')]


def test_paper_is_light_whatever_the_theme(written, browser):
  show(browser, written[2], theme='dark', media='print')
  color = browser.execute_script('return getComputedStyle(document.body).color')
  ink = bytes.fromhex(style.PALETTE['ink'][0].lstrip('#'))
  assert color == f'rgb({", ".join(map(str, ink))})'


def test_tables_sort_by_mouse_and_by_keyboard(written, browser):
  keys = pytest.importorskip('selenium.webdriver').Keys
  show(browser, written[2])
  heads = browser.find_elements('css selector', 'table')[1].find_elements(
    'css selector', 'th'
  )
  before = column(browser, 1, 3)
  heads[3].find_element('css selector', 'button').click()
  numbers = [*map(int, column(browser, 1, 3))]
  assert numbers == sorted(numbers, reverse=True)
  assert sorted(numbers) == sorted(map(int, before))
  assert heads[3].get_attribute('aria-sort') == 'descending'
  for key in (keys.ENTER, keys.SPACE):
    # One tab from the third column's button is the fourth's.
    heads[2].find_element('css selector', 'button').send_keys(keys.TAB)
    browser.switch_to.active_element.send_keys(key)
    numbers = [*map(int, column(browser, 1, 3))]
    assert numbers == sorted(numbers, reverse=key == keys.SPACE)
  heads[0].find_element('css selector', 'button').click()
  names = column(browser, 1, 0)
  assert sorted(names) == sorted(LABELS)
  in_order = browser.execute_script(
    'return [...arguments[0]].sort((a, b) => a.localeCompare(b))', names
  )
  assert names == in_order
  assert heads[0].get_attribute('aria-sort') == 'ascending'
  assert heads[3].get_attribute('aria-sort') == 'none'


def test_page_needs_no_network_and_escapes_markup(written):
  for path in written[2:]:
    text = path.read_text()
    assert len(text.encode()) < 5e6
    for attribute in re.findall(r'(?:src|href)="([^"]*)"', text):
      assert attribute.startswith(('#', 'data:')), attribute
    assert not re.search(r'@import|url\((?!#)', text)
    assert text.count('<script') == 1
    assert '<b>"' not in text
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in text


def test_headline_has_the_published_numbers_beside_ours(written, undrawn):
  a, b, path, _ = written
  metrics = files.read_json(b / 'metrics.json')
  ours = 100 * metrics['mAP'][TIOU.index(0.5)]
  difference = f'{ours - 36.3:+.1f}'.replace('-', '−')
  row = f'<td>mAP@0.5</td><td>{ours:.1f}</td><td>36.3</td><td>{difference}</td>'
  assert row in path.read_text()
  assert '<td>mAP@0.3</td>' in path.read_text()
  assert 'published' not in pages.write(a).read_text().split('<details>')[0]


def test_videos_go_from_best_to_worst(tmp_path):
  # Of three videos the first has its only segment found, the second behind
  # a wrong one, and the third not at all.
  annotated = [{'label': 'x', 'segment': [0, 10]}]
  database = {
    name: {'subset': 'test', 'duration': 50, 'annotations': annotated}
    for name in ('good', 'half', 'none')
  }
  right = {'label': 'x', 'segment': [0, 10], 'score': 0.5}
  wrong = {'label': 'x', 'segment': [30, 40], 'score': 0.7}
  found = {'good': [right], 'half': [right, wrong], 'none': [wrong]}
  files.write_json(tmp_path / 'g.json', {'database': database})
  files.write_json(tmp_path / 'p.json', {'results': found})
  columns = segments.read(tmp_path / 'g.json', 'test', tmp_path / 'p.json')
  drawn = timelines.select(*columns, {})
  assert list(drawn) == [
    'best 1: good, AP 100.0 %',
    'median 1: half, AP 50.0 %',
    'worst 1: none, AP 0.0 %',
  ]


def test_a_run_without_predictions_has_a_report(tmp_path):
  workdir = make_workdir(tmp_path)
  files.write_json(workdir / 'predictions.json', {'results': {}})
  for name in ('curves.npz', 'metrics.jsonl'):
    (workdir / name).unlink()
  text = pages.write(workdir).read_text()
  assert '0 predictions' in text
  assert '36 of 36 segments are missed' in text
  assert 'nan' not in re.sub(r'"[^"]*"', '', text).lower().split()
  compared = comparison.compare(workdir, workdir).read_text()
  assert '<td>average_mAP</td><td>0.0</td><td>0.0</td><td>+0.0</td>' in compared


@pytest.mark.parametrize(
  'name, change, message',
  [
    ('config.json', {}, "KeyError.*'data'"),
    ('metrics.json', {'mAP': []}, "KeyError.*'tiou'"),
    ('config.json', None, 'config.json: no such file, expected the workdir'),
    ('gt.json', None, 'no such file'),
    ('metrics.json', None, 'metrics.json: no such file, expected the workd'),
    (
      'predictions.json',
      {'results': {'v': [{'label': 'a & $b$', 'segment': [0, 1],
                          'score': float('nan')}]}},
      'score is nan, expected a finite number',
    ),
  ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_told(tmp_path, name, change, message):
  workdir = make_workdir(tmp_path, num_videos=1)
  if change is None:
    (workdir / name).unlink()
  else:
    (workdir / name).write_text(json.dumps(change))
  with pytest.raises(errors.InputError, match=message):
    pages.write(workdir)
  with pytest.raises(SystemExit) as told:
    command.main(['--workdir', str(workdir)])
  assert '\n' not in told.value.code


def test_command_line(tmp_path, capsys, undrawn):
  a, b = (make_workdir(tmp_path / name, num_videos=3) for name in 'ab')
  command.main(['--workdir', str(a)])
  assert (a / 'report.html').exists()
  command.main(['--compare', str(a), str(b), '--output', str(tmp_path / 'c')])
  assert (tmp_path / 'c').read_text().startswith('<!doctype html>')
  assert capsys.readouterr().out.split() == [
    str(a / 'report.html'),
    str(tmp_path / 'c'),
  ]
  other = make_workdir(tmp_path / 'other', num_videos=2)
  with pytest.raises(errors.InputError, match='ground truth is not that of'):
    comparison.compare(a, other)


def test_agreement_is_compared_on_the_same_clicks_only(tmp_path, undrawn):
  a, b = (make_workdir(tmp_path / name, num_videos=3) for name in 'ab')
  assert 'Click agreement' not in comparison.compare(a, b).read_text()
  of = lambda total: {f'v{i}': [[total, 2.0], [0.0, 0.0]] for i in range(9)}
  files.write_json(a / 'agreement.json', of(1.0))
  files.write_json(b / 'agreement.json', of(1.5))
  text = comparison.compare(a, b).read_text()
  assert '<td>click agreement</td><td>50.0</td><td>75.0</td><td>+25.0' in text
  files.write_json(b / 'agreement.json', of(1.5) | {'w': [[1, 1], [0, 0]]})
  assert (
    'Not compared: the two runs kept other'
    in comparison.compare(a, b).read_text()
  )


def test_curves_come_back_as_they_were(tmp_path):
  rng = np.random.default_rng(0)
  classes = ['run', 'éa', 'c']
  video = {
    'cas': rng.normal(size=(20, 4)) * 10,
    'foreground': rng.uniform(size=20),
    'magnitude': rng.uniform(3, 5, size=20) * 1e6,  # beyond float16
  }
  click = np.array([3, 1, -100, 3] + 16 * [-100])
  taken = outputs.take(video, click, [1, 0, 1], classes)
  assert taken['labels'] == ['run', 'éa']
  assert taken['action'].tolist() == [-1, 1] + [-1] * 18
  np.testing.assert_allclose(taken['cas'], video['cas'].T[:2], rtol=1e-3)
  read = outputs.take(video, click, [0, 1], classes, 'probabilities')
  power = np.exp(video['cas'])
  share = (power / power.sum(1, keepdims=True)).T[:2]
  np.testing.assert_allclose(read['cas'], share, 1e-3, 1e-7)
  m = video['magnitude']
  scaled = (m - m.min()) / (m.max() - m.min())
  np.testing.assert_allclose(taken['magnitude'], scaled, atol=1e-3)
  assert np.flatnonzero(taken['background']).tolist() == [0, 3]
  nothing = outputs.take(video, np.full(20, -100), [], classes)
  outputs.write_curves(tmp_path / 'c.npz', {'ü': taken, 'none': nothing})
  read = outputs.read_curves(tmp_path / 'c.npz')
  assert list(read) == ['ü', 'none']
  assert read['none']['labels'] == [] and read['none']['cas'].shape == (0, 20)
  for key, value in taken.items():
    np.testing.assert_array_equal(read['ü'][key], value)
  assert outputs.read_curves(tmp_path / 'absent.npz') == {}
  (tmp_path / 'broken.npz').write_bytes(b'PK')
  with pytest.raises(errors.InputError, match='not a whole .npz file'):
    outputs.read_curves(tmp_path / 'broken.npz')


def test_tensorboard_gets_the_table_and_the_timelines(tmp_path):
  event_accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
  )
  from backtal_jax.run import log  # brings TensorFlow

  plan = np.zeros((1, 1, 2), int)
  with log.Log(files.path(tmp_path), plan, 0, ['a'], 'stop') as run_log:
    image = np.zeros((20, 30, 3), np.uint8)
    run_log.show(7, 'tIoU 0.5\nmAP 12.3', {'best': image})
  events = event_accumulator.EventAccumulator(str(tmp_path))
  events.Reload()
  (text,) = events.Tensors('results')
  assert text.step == 7 and b'mAP 12.3' in text.tensor_proto.string_val[0]
  (image,) = events.Tensors('best')
  _, _, png = image.tensor_proto.string_val
  assert png.startswith(b'\x89PNG')
