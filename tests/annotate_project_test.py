"""A project: from a folder of videos to reviewed segments, in one page."""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import annotate_client
import annotate_page_test as page_test
import numpy as np
import pytest

from backtal_jax import errors, files
from backtal_jax.annotate import jobs
from backtal_jax.annotate import project as projects
from backtal_jax.data import annotations

pytest.importorskip('av', reason='needs av, of the extra video')
ROOT = pathlib.Path(__file__).parents[1]


def open_project(path, videos='videos', features='features', classes=(),
                 fields=()):  # fmt: skip
  return projects.open_project(
    files.path(path), videos, features, classes, fields
  )


def test_a_project_remembers_what_it_was_given(tmp_path):
  first = open_project(tmp_path / 'p', classes=('a', 'b'), fields=['x.y=3'])
  assert not (tmp_path / 'p').exists()  # nothing half made
  first.save()
  assert open_project(tmp_path / 'p', None, None) == first
  assert os.path.isabs(first.videos)
  assert open_project(tmp_path / 'p', classes=('c',)).classes == ('c',)


@pytest.mark.parametrize(
  ('name', 'text', 'problem'),
  [
    ('project.json', '{"project": 2}', 'version 2, expected 1'),
    ('project.json', '[]', 'version None, expected 1'),
    ('project.json', '{', 'not JSON'),
    ('clicks.csv', '', 'is no project'),
    ('.project.json.1.tmp', '', '--videos'),  # killed when it began
  ],
)
def test_folders_that_are_no_project(tmp_path, name, text, problem):
  (tmp_path / name).write_text(text)
  with pytest.raises(errors.InputError, match=problem):
    open_project(tmp_path, None)


def test_bad_fields_and_a_missing_extra(tmp_path, monkeypatch):
  for text in ('epochs=3', 'train.num_epochs'):
    with pytest.raises(errors.InputError, match='expected FIELD=VALUE'):
      open_project(tmp_path, fields=[text])
  monkeypatch.setitem(sys.modules, 'av', None)
  with pytest.raises(errors.InputError, match=r'backtal-jax\[video\].*--feat'):
    open_project(tmp_path, features=None)
  assert open_project(tmp_path)


@pytest.fixture
def working(tmp_path, monkeypatch):
  """Return a project whose commands are what the test says, and its parts."""
  videos = dict.fromkeys(('a', 'b'))
  (tmp_path / 'features').mkdir()
  np.save(tmp_path / 'features' / 'a.npy', np.zeros((7, 4), np.float32))
  project = open_project(
    tmp_path / 'p', tmp_path, tmp_path / 'features', ('jump', 'run')
  )
  project.save()
  opened = annotate_client.open_store(
    project.path, videos, measure=lambda name: 10.0
  )
  runner = jobs.Runner(project, opened, len(videos))
  codes = {}
  real = projects.Project.steps

  def steps(self, folder):
    return [
      step._replace(
        arguments=lambda kind=step.kind: ['-c', codes[kind].format(folder)]
      )
      for step in real(self, folder)
    ]

  monkeypatch.setattr(projects.Project, 'steps', steps)
  codes |= {
    'prepare': 'import pathlib as p; f = p.Path("{}/data"); f.mkdir(); '
    '(f / "config.py").touch()',
    'train': 'pass',
    'predict': 'import json; json.dump({{"results": {{"a": [{{"label": "run", '
    '"segment": [1, 2], "score": 0.5}}]}}}}, open("{}/segments.json", "w"))',
  }
  yield project, opened, runner, codes
  runner.cancel()
  runner.close()
  opened.close()


def click(opened):
  opened.act({'kind': 'labels', 'video': 'a', 'labels': ['run']})
  opened.act({'kind': 'click', 'video': 'a', 'time': 5})


def wait(runner, until=lambda s: not s['doing']):
  end = time.monotonic() + 60
  while not until(status := runner.status()):
    assert time.monotonic() < end, status
    time.sleep(0.05)
  return status


def test_a_round_from_clicks_to_segments(working):
  project, opened, runner, _ = working
  with pytest.raises(errors.InputError, match='no video has a label yet'):
    runner.train()
  opened.act({'kind': 'labels', 'video': 'a', 'labels': ['run']})
  with pytest.raises(errors.InputError, match='nobody has clicked yet'):
    runner.train()
  assert not project.rounds()
  click(opened)
  runner.train()
  status = wait(runner)
  assert (status['segments'], status['problem']) == (1, '')
  (found,) = project.found(('run',))(opened, 'a')
  assert found == (1, 2, 'run', 0.5)
  assert (project.path / 'rounds/1/clicks.csv').read_bytes() == (
    opened.path.read_bytes()
  )
  assert len((project.path / 'commands.log').read_text().splitlines()) == 3
  # Of classes that have changed since.
  with pytest.raises(errors.InputError, match="class 'run' is unknown"):
    project.found(('jump',))(opened, 'a')


def test_the_commands_are_the_ordinary_ones(tmp_path):
  folder = files.path(tmp_path / 'p' / 'rounds' / '1')
  (tmp_path / 'p' / 'features').mkdir(parents=True)
  np.save(tmp_path / 'p' / 'features' / 'a.npy', np.zeros((7, 4), np.float32))
  project = projects.Project(
    folder.parent.parent, 'v', '', (), {'train.num_epochs': '3'}
  )
  said = lambda step: (step.arguments(), ' '.join(step.arguments()))
  (made, prepare), (_, train), (_, predict) = map(said, project.steps(folder))
  assert made[:3] == ['-m', 'backtal_jax.prepare', 'custom']
  assert '--num_snippets=7' in made and '--fps' not in prepare
  assert f'--clicks={folder}/clicks.csv' in made
  assert train.startswith('-m backtal_jax.main --config=')
  assert '--config.train.num_epochs=3' in train
  assert predict.endswith(f'--output={folder}/segments.json')
  # Features of which nothing is told, made elsewhere.
  elsewhere = projects.dataclasses.replace(project, features=str(tmp_path))
  (made, _), _, (_, predict) = map(said, elsewhere.steps(folder))
  assert f'--features={tmp_path}' in made and '--fps=30' in made
  assert predict.endswith(f'--video_list={folder}/videos.csv')


def test_lengths_of_videos_are_told_or_asked_for(working, monkeypatch):
  project, opened, runner, _ = working
  click(opened)
  runner.train()
  wait(runner)
  assert (project.path / 'rounds/1/videos.csv').read_text() == (
    'video_id,duration\na,10.0\nb,10.0\n'
  )
  opened.act({'kind': 'click', 'video': 'a', 'time': 6})
  monkeypatch.setattr(opened, 'duration', lambda name: None)
  with pytest.raises(errors.InputError, match="how long 'a' is: open it in"):
    runner.train()


def test_two_trainings_at_once_and_a_cancelled_one_goes_on(working):
  project, opened, runner, codes = working
  click(opened)
  train, codes['train'] = codes['train'], 'import time; time.sleep(60)'
  runner.train()
  wait(runner, lambda s: s['doing'] == 'train')
  with pytest.raises(errors.InputError, match='under way already'):
    runner.train()
  with contextlib.closing(jobs.Runner(project, opened, 2)) as other:
    wait(other, lambda s: s['doing'] == 'train')  # of another server
    with pytest.raises(errors.InputError, match='train of an earlier server'):
      other.train()
    other.cancel()
    status = wait(runner)
    assert status['resumable'] and status['problem']
  codes['train'] = train
  runner.train()
  assert wait(runner)['segments'] == 1  # of the same round, which went on
  opened.act({'kind': 'click', 'video': 'a', 'time': 6})
  runner.train()
  assert wait(runner)['segments'] == 2


@pytest.mark.parametrize(
  ('code', 'problem'),
  [
    ('import sys; sys.exit("error: step 3: the loss is not finite")',
     'step 3: the loss is not finite'),
    ('import sys; sys.exit(9)', 'train ended with status 9: see '),
    ('import os; os.kill(os.getpid(), 9)', 'train ended with signal 9: see '),
  ],
)  # fmt: skip
def test_a_training_that_fails_is_told(working, code, problem):
  _, opened, runner, codes = working
  click(opened)
  codes['train'] = code
  runner.train()
  status = wait(runner)
  assert status['problem'].startswith(problem) and not status['segments']
  assert status['resumable']


def test_full_disk_is_told(working, monkeypatch):
  project, opened, runner, _ = working
  click(opened)

  def full(*_):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch, pytest.raises(OSError, match='space'):
    patch.setattr(files, 'atomic', full)
    runner.train()
  assert not runner.status()['doing'] and not project.rounds()


def test_features_are_made_where_some_are_missing(working, monkeypatch):
  project, _, runner, _ = working
  ours = projects.dataclasses.replace(project, features='')
  monkeypatch.setattr(runner, '_project', ours)
  folder = project.path / 'features'
  folder.mkdir()
  for name in ('videos.csv', 'a.npy', 'b.failed'):
    assert [s.kind for s in runner._missing()] == ['features']
    (folder / name).touch()
  assert not runner._missing()
  assert runner.status()['failed'] == 1


def test_progress_of_logs(tmp_path):
  log = tmp_path / 'log'
  log.write_text(
    'told\n  0%|          | 0/72 [00:00<?, ?video/s]\r 57%|█████▋    | 41/72 '
    '[00:54<00:43, 72.19video/s, base=1.24]'
  )
  assert jobs._progress(files.path(log)) == (0.57, '00:43')
  (tmp_path / 'metrics.jsonl').write_text(
    '{"step": 1, "loss/total": 3, "loss/base": 1}\n{"step": 2, "mAP": 1}\n'
    '{"step": 3, "loss/total": 2, "loss/base": 1}\n{"ste'
  )
  assert jobs._losses(files.path(tmp_path / 'metrics.jsonl')) == (
    {'total': 2, 'base': 1}, [3, 2],
  )  # fmt: skip


# A network in I3D's place that is quick: it sees colours and what is bright.
_PYTHON = """#!{python}
import runpy, sys
import jax, jax.numpy as jnp, numpy as np
sys.argv = sys.argv[2:]
if sys.argv[1:2] == ['video']:
  from backtal_jax.video import i3d, weights
  mixed = np.random.default_rng(0).normal(size=(5, 1024)).astype(np.float32)
  def encode(params, clips, *, dtype):
    unit = i3d.to_unit(clips)
    bright = (unit.min(-1) > 0.8).mean((1, 2, 3))[:, None]
    seen = [unit.mean((1, 2, 3)), 10 * bright, jnp.ones_like(bright)]
    return jax.nn.relu(jnp.concatenate(seen, axis=1) @ mixed)
  i3d.encode = jax.jit(encode, static_argnames='dtype')
  weights.load = lambda *_: {{'a': np.ones(1)}}
runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
"""
_COMMAND = """
import sys
sys.executable = {executable!r}
from backtal_jax.annotate import __main__
__main__.main(sys.argv[1:])
"""


@contextlib.contextmanager
def served(folder, *options):
  """Start the one command on folder/clips; yield its address."""
  executable = folder / 'python'
  executable.write_text(_PYTHON.format(python=sys.executable))
  executable.chmod(0o755)
  process = subprocess.Popen(
    [sys.executable, '-c', _COMMAND.format(executable=str(executable)),
     f'--project={folder}/p', f'--videos={folder}/clips', '--annotator=A1',
     '--port=0', *options],
    stdout=subprocess.PIPE, text=True,
  )  # fmt: skip
  try:
    for line in process.stdout:
      if found := re.fullmatch(r'http://[\d.]+:(\d+)/\?token=(.*)\n', line):
        yield annotate_client.Client(int(found[1]), found[2])
        break
  finally:
    process.send_signal(signal.SIGTERM)
    process.wait()
    process.stdout.close()


browser = page_test.browser


def make_clips(folder, count):
  """Make clips of three classes; return {name: (label, actions)}."""
  spec = importlib.util.spec_from_file_location(
    'make_videos', ROOT / 'docs' / 'make_videos.py'
  )
  made = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(made)
  (folder / 'clips').mkdir()
  rng, found = np.random.default_rng(0), {}
  for i in range(count):
    label = list(made.CLASSES)[i % len(made.CLASSES)]
    actions = [(s, s + 2.0) for s in (1.0, 4.6)]
    made.write(folder / 'clips' / f'clip_{i:02}.mp4', rng, label, actions)
    found[f'clip_{i:02}'] = label, actions
  return found


@pytest.mark.slow
def test_from_videos_to_reviewed_segments(browser, tmp_path):
  clips = make_clips(tmp_path, 12)
  options = (
    '--classes=slide,drop,shake', '--fields', 'model.hidden_dim=64',
    'model.reduce_dim=32', 'model.dropout_rate=0.3', 'train.num_epochs=100',
    'train.eval_every=100', 'model.topk_ratio=0.35',
    'loss.separation_topk_ratio=0.35', 'train.learning_rate=1e-3',
    'train.batch_size=8',
  )  # fmt: skip
  with served(tmp_path, *options) as client:
    page = page_test.Page(browser, client.url)
    said = lambda text: page.until(lambda: text in page.text('status'), 60)
    for name, (label, _) in list(clips.items())[:6]:
      page.until(lambda name=name: page.text('name') == name)
      page.until(lambda: page.run('return video.readyState') >= 2)
      page.run(
        'document.querySelector(`#labels [value=${arguments[0]}]`).click()',
        label,
      )
      said(f'labels: {label}')
      page.press('\ue012', 'b')  # at 0 s
      for _ in range(4):
        page.press('\ue014')
      page.until(lambda: page.now() == 4.0)
      page.press('b')
      said('Saved: background click at 0:04.00')
      for _ in range(3):
        page.press('\ue014')
      page.until(lambda: page.now() == 7.0)
      page.press('b')
      said('Saved: background click at 0:07.00')
      page.press('d')
    page.until(lambda: page.text('progress') == '6 of 12 videos done')
    page.run('document.getElementById("train").click()')
    page.until(
      lambda: 'Segments of training 1' in page.text('doing'), timeout=200
    )
    # It is the review now.
    page.until(lambda: not page.run('return document.getElementById("review")'
                                    '.hidden'))  # fmt: skip
    page.press(*['p'] * 6)
    page.until(lambda: page.text('name') == 'clip_00')
    listed = 'return document.querySelectorAll("#segments li").length'
    page.until(lambda: page.run(listed) > 0)
    page.press('y')
    said('accepted')
    page.press('d')
    page.until(lambda: page.text('name') == 'clip_01')
    page.until(lambda: page.text('progress').endswith('1 reviewed'))
    assert not page.errors()
    browser.get('about:blank')
  project = tmp_path / 'p'
  truth = annotations.read_ground_truth(
    files.path(project / 'annotations.json')
  )
  (video,) = truth.videos.values()
  assert video.name == 'clip_00' and video.duration == 8
  assert {s.label for s in video.segments} == {'slide'}
  best = max(
    max(0, min(s.end, 3) - max(s.start, 1)) / (max(s.end, 3) - min(s.start, 1))
    for s in video.segments
  )
  assert best > 0.4
  # The segments are those of the command line, to the bit.
  *_, predict = (project / 'commands.log').read_text().splitlines()
  before = (project / 'rounds' / '1' / 'segments.json').read_bytes()
  again = predict.replace('segments.json', 'again.json').split()
  subprocess.run([sys.executable, *again[1:]], check=True, capture_output=True)
  assert (project / 'rounds' / '1' / 'again.json').read_bytes() == before
  assert len(json.loads(before)['results']) == 12
