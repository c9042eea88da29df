"""The files behind the click page: history, clicks, labels, folder, queue."""

import contextlib
import json
import os
import resource
import sys
import time
import types

import annotate_client
import numpy as np
import pytest

from backtal_jax import annotate, errors, files
from backtal_jax.annotate import __main__ as command
from backtal_jax.annotate import history, jobs, labels, project, queue, videos
from backtal_jax.data import annotations
from backtal_jax.prepare import inputs

NAMES = dict.fromkeys(('a', 'b b', 'c%"<i>é'))
HEADER = 'video_id,time,label,annotator\n'


@pytest.fixture
def opened(tmp_path):
  """Return a function that opens tmp_path/clicks.csv; close what it gave."""
  with contextlib.ExitStack() as stack:

    def open_store(who='A1'):
      stack.close()
      s = annotate_client.open_store(tmp_path, NAMES, who=who)
      stack.callback(s.close)
      for name in NAMES:
        if s.duration(name) is None:
          s.act({'kind': 'opened', 'video': name, 'duration': 60})
      return s

    yield open_store


def click(opened_store, video, time, label='background', **others):
  request = {'kind': 'click', 'video': video, 'time': time, 'label': label}
  return opened_store.act(request | others)


def rows(path):
  return path.read_text().splitlines()[1:]


def test_file_is_the_present_state_after_each_event(opened, tmp_path):
  path, s = tmp_path / 'clicks.csv', opened()
  assert path.read_text() == HEADER
  number = click(s, 'b b', 7.25)['event']['seq']
  assert rows(path) == ['b b,7.25,background,A1']
  click(s, 'a', 3, 'run')
  assert rows(path) == ['a,3.0,run,A1', 'b b,7.25,background,A1']
  s.act({'kind': 'remove', 'video': 'b b', 'click': number})
  assert rows(path) == ['a,3.0,run,A1']
  for expected in (2, 1, 0):  # undo: the removal, then the clicks
    s.act({'kind': 'undo'})
    assert len(rows(path)) == expected
  answer = s.act({'kind': 'undo'})
  assert answer == {'event': None, 'video': None}


def test_undo_goes_across_videos_and_restarts(opened, tmp_path):
  s = opened()
  click(s, 'a', 1)
  s.act({'kind': 'done', 'video': 'a', 'done': True})
  click(s, 'b b', 2)
  s = opened()
  assert [s.act({'kind': 'undo'})['video']['name'] for _ in range(3)] == [
    'b b', 'a', 'a',
  ]  # fmt: skip
  assert not s.video('a')['done'] and not rows(tmp_path / 'clicks.csv')
  kinds = [
    json.loads(line)['kind']
    for line in (tmp_path / 'clicks.csv.log').read_text().splitlines()[1:]
  ]
  assert kinds[3:] == ['click', 'done', 'click', 'undo', 'undo', 'undo']


def test_annotators_share_a_file_and_touch_only_what_is_theirs(
  opened, tmp_path
):
  click(opened('A1'), 'a', 1)
  s = opened('A2')
  assert s.video('a')['clicks'] == []
  click(s, 'a', 2)
  number = s.video('a')['clicks'][0]['id']
  assert rows(tmp_path / 'clicks.csv') == [
    'a,1.0,background,A1', 'a,2.0,background,A2',
  ]  # fmt: skip
  s = opened('A1')
  with pytest.raises(errors.InputError, match='no such click'):
    s.act({'kind': 'remove', 'video': 'a', 'click': number})
  s.act({'kind': 'undo'})
  assert s.act({'kind': 'undo'})['event'] is None
  assert rows(tmp_path / 'clicks.csv') == ['a,2.0,background,A2']


def test_second_server_is_refused(opened, tmp_path):
  opened()
  with pytest.raises(errors.InputError, match='another server works on it'):
    annotate_client.open_store(tmp_path, NAMES, (), who='A2')


def test_event_that_is_sent_twice_is_done_once(opened, tmp_path):
  s = opened()
  click(s, 'a', 1, key='k')
  click(s, 'a', 1, key='k')
  click(opened(), 'a', 1, key='k')
  assert rows(tmp_path / 'clicks.csv') == ['a,1.0,background,A1']


@pytest.mark.parametrize(
  'request_, message',
  [
    ({'kind': 'click', 'video': 'z', 'time': 1}, "video 'z' is not in"),
    ({'kind': 'click', 'video': ['a'], 'time': 1}, 'is not in the folder'),
    ({'kind': 'click', 'video': 'a', 'time': 60.2}, 'expected 0…60 s'),
    ({'kind': 'click', 'video': 'a', 'time': -0.1}, 'expected 0…60 s'),
    ({'kind': 'click', 'video': 'a', 'time': float('nan')}, 'finite number'),
    ({'kind': 'click', 'video': 'a'}, 'the time is missing'),
    ({'kind': 'click', 'video': 'a', 'time': 1, 'label': 'fly'}, "class 'fly'"),
    ({'kind': 'click', 'video': 'a', 'time': 1, 'label': {}}, 'class {}'),
    ({'kind': 'labels', 'video': 'a', 'labels': ['fly']}, 'some of the'),
    ({'kind': 'labels', 'video': 'a', 'labels': [{}]}, 'some of the'),
    ({'kind': 'opened', 'video': 'a', 'duration': 0}, 'the duration is 0'),
    ({'kind': 'remove', 'video': 'a', 'click': 99}, 'no such click'),
    ({'kind': 'answer', 'video': 'a', 'time': 1}, 'answer None'),
    ({'kind': 'spent', 'video': 'a', 'spent': 'x'}, 'the time spent'),
    ({'kind': 'imported', 'video': 'a'}, "kind 'imported'"),
    ({}, 'video None'),
  ],
)
def test_requests_that_make_no_sense_change_nothing(
  opened, tmp_path, request_, message
):
  s = opened()
  log = (tmp_path / 'clicks.csv.log').read_bytes()
  with pytest.raises(errors.InputError, match=message):
    s.act(request_)
  assert (tmp_path / 'clicks.csv.log').read_bytes() == log


def test_video_that_was_not_opened_takes_no_click(tmp_path):
  s = annotate_client.open_store(tmp_path, NAMES, ())
  with pytest.raises(errors.InputError, match='not opened yet'):
    click(s, 'a', 1)
  s.close()


def test_full_disk_takes_nothing_back_and_says_so(opened, tmp_path):
  path, s = tmp_path / 'clicks.csv', opened()
  for i in range(50):
    click(s, 'a', i)
  before, log = path.read_text(), path.with_name('clicks.csv.log').read_bytes()
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  # First the history cannot grow, then the click file cannot be written.
  for limit in (len(log) + 10, len(before) - 5):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
      with pytest.raises(OSError):
        click(s, 'a', 55)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == before
    assert path.with_name('clicks.csv.log').read_bytes() == log
    assert len(s.video('a')['clicks']) == 50
  click(s, 'a', 55)
  assert len(rows(path)) == 51
  assert sorted(os.listdir(tmp_path)) == ['clicks.csv', 'clicks.csv.log']


def test_kill_between_the_two_files_is_mended(opened, tmp_path):
  path, s = tmp_path / 'clicks.csv', opened()
  click(s, 'a', 1)
  before = path.read_bytes()
  click(s, 'a', 2)
  s.close()
  path.write_bytes(before)  # the history has it, the file not yet
  with open(f'{path}.log', 'a') as f:
    f.write('{"seq": 7, "at"')  # cut off: nobody was told that it is saved
  s = opened()
  assert len(rows(path)) == 2
  click(s, 'a', 3)
  assert len(opened().video('a')['clicks']) == 3


def test_kill_while_a_file_is_taken_over_begins_again(opened, tmp_path):
  path = tmp_path / 'clicks.csv'
  path.write_text(HEADER + 'a,1,background,A1\na,2,run,A2\n')
  opened().close()
  log = tmp_path / 'clicks.csv.log'
  lines = log.read_text().splitlines(keepends=True)
  log.write_text(''.join(lines[:2]))
  opened()
  assert log.read_text().count('imported') == 3  # the head, and two clicks
  assert len(rows(path)) == 2


def test_lost_click_file_comes_back_a_changed_one_is_refused(opened, tmp_path):
  path, s = tmp_path / 'clicks.csv', opened()
  click(s, 'a', 1)
  click(s, 'a', 2)
  whole = path.read_text()
  path.unlink()
  opened().close()
  assert path.read_text() == whole
  path.write_text(HEADER + 'a,9,background,A1\n')
  with pytest.raises(errors.InputError, match='changed by something else'):
    opened()
  assert rows(path) == ['a,9,background,A1']
  (tmp_path / 'clicks.csv.log').rename(tmp_path / 'old.log')
  assert opened().video('a')['clicks'][0]['time'] == 9


@pytest.mark.parametrize(
  'text, message',
  [
    (HEADER + 'x,1,background,A1\n', 'none of its 1 videos is in the folder'),
    (HEADER + 'a,1,fly,A1\n', "class 'fly' is unknown"),
    (HEADER + 'a,nan,run,A1\n', 'finite number'),
    ('a,1,run\n', 'sfnet clicks, expected our own CSV'),
  ],
)
def test_files_of_another_set_are_refused_and_left(
  opened, tmp_path, text, message
):
  (tmp_path / 'clicks.csv').write_text(text)
  with pytest.raises(errors.InputError, match=message):
    opened()
  assert os.listdir(tmp_path) == ['clicks.csv']
  assert (tmp_path / 'clicks.csv').read_text() == text


def test_clicks_of_videos_that_vanished_are_kept(opened, tmp_path):
  text = HEADER + 'a,1.0,background,A1\ngone,2.0,background,A1\n'
  (tmp_path / 'clicks.csv').write_text(text)
  s = opened()
  assert s.missing == ['gone']
  click(s, 'a', 3)
  assert 'gone,2.0,background,A1' in rows(tmp_path / 'clicks.csv')


def test_damaged_history_is_named(opened, tmp_path):
  click(opened(), 'a', 1)
  opened().close()
  log = tmp_path / 'clicks.csv.log'
  lines = log.read_text().splitlines(keepends=True)
  log.write_text(''.join([*lines[:2], lines[3], lines[2], *lines[4:]]))
  with pytest.raises(errors.InputError, match=r'log:3: .* no line of a click'):
    opened()


def test_labels_are_what_prepare_reads(opened, tmp_path):
  path = tmp_path / 'labels.csv'
  path.write_text(
    'video_id,subset,label,duration,fps\nv_a,val,run,61.5,25\nother,test,run,,\n'
  )
  s = opened()
  assert s.video('a')['labels'] == ['run'] and s.duration('a') == 61.5
  for name in ('a', 'c%"<i>é'):
    s.act({'kind': 'labels', 'video': name, 'labels': ['run', 'jump']})
  s.act({'kind': 'labels', 'video': 'b b', 'labels': ['run']})
  s.act({'kind': 'labels', 'video': 'b b', 'labels': []})
  told, found = inputs.read_labels(path)
  assert found == {
    'v_a': {'run', 'jump'}, 'other': {'run'}, 'c%"<i>é': {'run', 'jump'},
    'b b': set(),
  }  # fmt: skip
  assert (told['v_a'].subset, told['v_a'].fps) == ('val', 25)
  assert (told['b b'].subset, told['b b'].duration) == ('training', 60)
  s.act({'kind': 'undo'})
  assert inputs.read_labels(path)[1]['b b'] == {'run'}


def test_labels_may_tell_durations_as_spreadsheets_do(tmp_path):
  path = files.path(tmp_path / 'l.csv')
  path.write_text(
    'video_id;subset;label;duration\na;training;cafe\u0301;0:40,5\n'
  )
  found = labels.Labels(path, 'training')
  assert found.duration('a') == 40.5
  assert found.get('a') == ['caf\xe9']


def test_kill_before_the_labels_is_mended(opened, tmp_path):
  path, s = tmp_path / 'labels.csv', opened()
  s.act({'kind': 'labels', 'video': 'a', 'labels': ['run']})
  before = path.read_bytes()
  s.act({'kind': 'labels', 'video': 'a', 'labels': ['jump']})
  path.write_bytes(before)
  assert opened().video('a')['labels'] == ['jump']


def test_answers_to_proposals(opened, tmp_path):
  s = opened()
  reply = {'kind': 'answer', 'video': 'a'}
  s.act(reply | {'time': 5, 'answer': 'background'})
  s.act(reply | {'time': 10, 'answer': 'action'})  # a note
  s.act(reply | {'time': 15, 'answer': 'action', 'label': 'run'})
  s.act(reply | {'time': 20, 'answer': 'skip'})
  path = tmp_path / 'clicks.csv'
  assert rows(path) == ['a,5.0,background,A1', 'a,15.0,run,A1']
  assert [c.time for c in s.spoken('a')[1]] == [10, 20]
  first, second = (c['id'] for c in s.video('a')['clicks'])
  # Checked again: the first stays, then goes; the second was wrong.
  s.act(reply | {'time': 5, 'answer': 'background', 'click': first})
  assert len(rows(path)) == 2
  s.act(reply | {'time': 5, 'answer': 'action', 'click': first})
  s.act(reply | {'time': 15, 'answer': 'background', 'click': second})
  assert rows(path) == ['a,15.0,background,A1']
  s.act({'kind': 'undo'})
  assert rows(path) == ['a,15.0,run,A1']


def test_rates_count_clicks_that_were_made_and_stand(opened, tmp_path):
  path = tmp_path / 'clicks.csv'
  path.write_text(HEADER + 'a,1,background,A1\n')
  s = opened()
  click(s, 'a', 2, spent=4.5)
  click(s, 'b b', 3, spent=5.5)
  click(s, 'b b', 4, spent=1)
  s.act({'kind': 'undo', 'spent': 1})
  s.act({'kind': 'spent', 'video': 'a', 'spent': 8})
  opened('A2')
  assert history.rates(path) == {'A1': {'clicks': 2, 'seconds': 20.0}}
  assert s.video('a')['seconds'] == 12.5
  assert history.rates(tmp_path / 'none.csv') == {}


def test_what_the_page_has_shown_can_be_clicked(opened, tmp_path):
  (tmp_path / 'labels.csv').write_text(
    'video_id,subset,label,duration\na,training,jump,8.0\n'
  )
  s = opened()
  for name, told in (('a', None), ('b b', 60.0)):
    assert s.video(name)['shown'] == told
    # A browser learns where the video ends when it gets there.
    for duration in (8.0, 8.96):
      s.act({'kind': 'opened', 'video': name, 'duration': duration})
    assert s.video(name)['shown'] == 8.96
    assert click(s, name, 8.9)['event']['add'] == [8.9, 'background']
    with pytest.raises(errors.InputError, match=r'expected 0…8\.96 s'):
      click(s, name, 9.5)
  assert (s.duration('a'), s.duration('b b')) == (8.0, 8.96)


def test_pictures_tell_the_duration_before_the_page_does(tmp_path):
  with contextlib.closing(
    annotate_client.open_store(tmp_path, NAMES, measure=lambda name: 8.0)
  ) as s:
    assert s.video('a')['pictures'] == 8.0
    click(s, 'a', 7.5)  # before it was opened
    s.act({'kind': 'opened', 'video': 'a', 'duration': 10.0})  # of the sound
    s.act({'kind': 'labels', 'video': 'a', 'labels': ['jump']})
  assert rows(tmp_path / 'labels.csv') == ['a,training,jump,8.0,']


def test_time_that_is_left_is_told_as_bars_of_progress_do(tmp_path):
  path = files.path(tmp_path)
  (tmp_path / 'features').mkdir()
  runner = jobs.Runner(project.Project(path, 'v', '', (), {}), None, 4)
  assert runner._extracted() == (0.0, '')
  runner._since = time.time() - 30
  (tmp_path / 'features' / 'a.npy').touch()
  assert runner._extracted() == (0.25, '01:30')
  runner.close()


def test_folder_has_videos_and_no_links_that_lead_out(tmp_path, capsys):
  folder = tmp_path / 'videos'
  (folder / 'more.mp4').mkdir(parents=True)
  secret = tmp_path / 'secret.mp4'
  for path in (
    secret, folder / 'a.1.mp4', folder / 'b.WEBM', folder / '.hidden.mp4',
    folder / 'notes.txt', folder / '100% "q" <b>é.mkv',
  ):  # fmt: skip
    path.write_bytes(b'x')
  (folder / 'out.mp4').symlink_to(secret)
  (folder / 'in.mp4').symlink_to(folder / 'a.1.mp4')
  (folder / 'gone.mp4').symlink_to(folder / 'nothing.mp4')
  found = videos.Folder(folder)
  assert list(found) == ['100% "q" <b>é', 'a.1', 'b', 'in']
  told = capsys.readouterr().err
  assert "'out.mp4' is a link that leads out" in told
  assert "'gone.mp4' is no file" in told and "'more.mp4' is no file" in told
  assert 'left out, not named as videos: notes.txt\n' in told
  assert found.find('a.1') == folder / 'a.1.mp4'
  for name in ('out', '../secret', 'secret', '/etc/passwd', '', '..'):
    assert found.find(name) is None
  # What becomes a link, or vanishes, after the start.
  (folder / 'b.WEBM').unlink()
  assert found.find('b') is None
  (folder / 'b.WEBM').symlink_to(secret)
  assert found.find('b') is None
  (folder / 'a.1.webm').write_bytes(b'x')
  with pytest.raises(errors.InputError, match=r"is video 'a\.1', too"):
    videos.Folder(folder)
  with pytest.raises(errors.InputError, match='no such folder'):
    videos.Folder(tmp_path / 'none')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(errors.InputError, match='empty: no video'):
    videos.Folder(tmp_path / 'empty')


def test_missing_extra_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'uvicorn', None)
  with pytest.raises(
    SystemExit, match=r"pip install 'backtal-jax\[annotate\]'"
  ):
    command.main(
      [f'--videos={tmp_path}', f'--clicks={tmp_path}/c', '--annotator=A']
    )


def test_proposals():
  # 100 snippets of 1 s; 'run' is high in 10–20, 40–60 and, less, in 80–90.
  cas = np.zeros((100, 3))
  cas[:, 2] = 5
  for start, end, logit in ((10, 20, 10), (40, 60, 12), (80, 90, 8)):
    cas[start:end, 1] = logit
  cas[50, 1] = 14
  cas[5, 0] = 20  # another class, that is not in the video
  video = types.SimpleNamespace(duration=100.0, label=np.zeros(2))
  click = lambda time, label='background': annotations.Click(
    'v', float(time), label, 'A1'
  )
  curves = {'cas': cas, 'score': np.array([0.1, 0.9, 0.0])}
  model = types.SimpleNamespace(
    classes=('jump', 'run'),
    predict_videos=lambda *_, **__: [(video, curves, [{'label': 'run'}])],
  )
  propose = lambda *clicks: annotate.proposals(model, video, clicks)
  softmax = lambda *logits: 1 / sum(np.exp(x - logits[0]) for x in logits)
  assert propose() == [
    (50.5, queue.UNCLICKED, pytest.approx(softmax(14, 5, 0))),
    (10.5, queue.UNCLICKED, pytest.approx(softmax(10, 5, 0))),
    (80.5, queue.UNCLICKED, pytest.approx(softmax(8, 5, 0))),
  ]
  # Two stretches are spoken for; beside the third, 2 s are kept free; the
  # click that says background there is to be checked again.
  found = propose(click(9.5), click(45), click(85, 'run'))
  assert found == [
    (11.5, queue.UNCLICKED, pytest.approx(softmax(10, 5, 0))),
    (45, queue.CHECK, pytest.approx(softmax(12, 5, 0))),
  ]
  found = propose(click(30, 'run'), click(15, ''), click(50, ''), click(85, ''))
  assert found == [
    (30, queue.CHECK, pytest.approx(1 - softmax(0, 0, 5))),
  ]
  # The labels of the video go before what the model finds.
  video.label = np.array([1, 0])
  assert [time for time, _, _ in propose()] == [5.5]
