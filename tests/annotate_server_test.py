"""The click page's server: ranges, who may ask, the command line, kills."""

import contextlib
import http.client
import io
import json
import os
import random
import re
import shlex
import signal
import threading
import time
import types
from urllib import parse

import absl.logging
import annotate_client
import numbered_video
import numpy as np
import pytest

from backtal_jax import files
from backtal_jax.annotate import __main__ as command
from backtal_jax.annotate import videos
from backtal_jax.data import annotations

uvicorn = pytest.importorskip(
  'uvicorn', reason='needs uvicorn, of the extra annotate'
)
server = pytest.importorskip(
  'backtal_jax.annotate.server',
  reason='needs starlette, of the extra annotate',
)

NAMES = 'a', 'b b', '100% "q" <b>é', 'gone'
TOKEN = 'secret'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """A server in a thread, and its folder."""
  folder = tmp_path_factory.mktemp('our site')
  (folder / 'videos').mkdir()
  for name in NAMES:
    (folder / 'videos' / f'{name}.mp4').write_bytes(bytes(range(256)) * 4)
  (folder / 'secret.mp4').write_text('secret')
  with open(folder / 'videos' / 'large.webm', 'wb') as f:
    f.truncate(4 << 30)
    f.seek((4 << 30) - 3)
    f.write(b'end')
  found = videos.Folder(folder / 'videos')
  opened = annotate_client.open_store(folder, found)
  with annotate_client.running(
    server.make_app(
      opened, found, token=TOKEN, hosts=('127.0.0.1', 'localhost')
    )
  ) as port:
    client = annotate_client.Client(port, TOKEN)
    yield types.SimpleNamespace(folder=folder, client=client)
  opened.close()


def test_only_who_knows_the_token_gets_anything(site):
  ask = site.client.ask
  for path in ('/', '/page/main.js', '/api/state', '/api/video/a', '/video/a'):
    assert ask(path, auth=False).status == 403
    assert ask(f'{path}?token=wrong', auth=False).status == 403
    headers = {'Authorization': 'Bearer wrong', 'Cookie': 'annotate_1=wrong'}
    assert ask(path, auth=False, headers=headers).status == 403
    assert ask(path).status == 200
  assert ask('/api/act', {'kind': 'undo'}, auth=False).status == 403
  # The address of the page leaves a cookie that only this port's page has.
  entered = ask(f'/?token={TOKEN}', auth=False)
  assert (entered.status, entered.headers['location']) == (303, '/')
  cookie = entered.headers['set-cookie']
  assert 'HttpOnly' in cookie and 'SameSite=lax' in cookie
  assert cookie.startswith(f'annotate_{site.client.port}=')


@pytest.mark.parametrize(
  'headers',
  [
    {'Origin': 'https://evil.example'},
    {'Origin': 'null'},
    {'Origin': 'http://127.0.0.1:1'},
    {'Host': 'evil.example'},  # a name made to point here
    {'Host': 'evil.example', 'Origin': 'http://evil.example'},
  ],
)
def test_other_sites_change_and_see_nothing(site, headers):
  log = (site.folder / 'clicks.csv.log').read_bytes()
  action = {'kind': 'opened', 'video': 'a', 'duration': 9}
  assert site.client.ask('/api/act', action, headers=headers).status == 403
  assert site.client.ask('/api/state', headers=headers).status == 403
  assert (site.folder / 'clicks.csv.log').read_bytes() == log


def test_our_own_page_may(site):
  for host in ('127.0.0.1', 'localhost'):
    host = f'{host}:{site.client.port}'
    headers = {'Host': host, 'Origin': f'http://{host}'}
    assert site.client.ask('/api/act', {'kind': 'undo'}, headers=headers)
  answer = site.client.ask('/')
  policy = answer.headers['content-security-policy']
  assert "default-src 'none'" in policy and 'unsafe' not in policy
  assert answer.headers['cross-origin-resource-policy'] == 'same-origin'


@pytest.mark.parametrize(
  'path',
  [
    '/video/../secret', '/video/..%2fsecret', '/video/%2e%2e%2fsecret.mp4',
    '/video/..%252fsecret', '/video//etc/passwd', '/video/%2fetc%2fpasswd',
    '/video/secret', '/video/a.mp4', '/video/', '/video/%00',
    '/video/..%5csecret', '/page/../server.py', '/page/%2e%2e/server.py',
    '/page/..%2fserver.py', '/api/video/..%2fsecret', '/api/video/nothing',
  ],
)  # fmt: skip
def test_nothing_outside_of_the_folder(site, path):
  answer = site.client.ask(path)
  assert answer.status == 404 and b'secret\n' not in answer.body


def test_any_name_is_served(site):
  for name in NAMES[:3]:
    answer = site.client.ask(f'/video/{parse.quote(name)}')
    assert answer.status == 200 and len(answer.body) == 1024
  (site.folder / 'videos' / 'gone.mp4').unlink()
  answer = site.client.ask('/video/gone')
  assert answer.status == 404 and b'the file of this video is gone' in (
    answer.body
  )


def test_ranges_of_a_large_file(site):
  ask = lambda value: site.client.ask('/video/large', headers={'Range': value})
  start, size = time.perf_counter(), 4 << 30
  answer = ask('bytes=-3')
  assert answer.status == 206 and answer.body == b'end'
  assert answer.headers['content-range'] == (
    f'bytes {size - 3}-{size - 1}/{size}'
  )
  assert len(ask('bytes=1000-1999').body) == 1000
  assert ask(f'bytes={size}-').status == 416
  assert time.perf_counter() - start < 5
  answer = site.client.ask('/video/large', method='HEAD')
  assert answer.headers['accept-ranges'] == 'bytes'
  small = site.client.ask('/video/a', headers={'Range': 'bytes=3-5'})
  assert small.body == b'\3\4\5'
  assert small.headers['content-type'] == 'video/mp4'


def test_bad_bodies(site):
  for body in (b'', b'{', b'[]', b'"x"', b'\xff', b'[' * 60000):
    answer = site.client.ask('/api/act', body)
    assert answer.status == 400 and json.loads(answer.body)['problem']
  assert site.client.ask('/api/act', b'x' * 70000).status == 413
  act = site.client.act
  assert act(kind='opened', video='a', duration=10).status == 200
  log = (site.folder / 'clicks.csv.log').read_bytes()
  for action in (
    {'time': float('nan')}, {'time': 10.2}, {'time': -1}, {'time': 1e999},
    {'video': 'no'}, {'label': 'fly', 'time': 1}, {'label': ['x'], 'time': 1},
  ):  # fmt: skip
    answer = act(**{'kind': 'click', 'video': 'a'} | action)
    assert answer.status == 400 and json.loads(answer.body)['problem']
  assert (site.folder / 'clicks.csv.log').read_bytes() == log
  assert site.client.ask('/api/proposals/a').status == 404
  assert site.client.ask('/api/act').status == 405


def test_click_is_in_the_file_when_it_is_answered(site):
  act = site.client.act
  act(kind='opened', video='b b', duration=10)
  answer = act(kind='click', video='b b', time=2.5, spent=1.5)
  assert json.loads(answer.body)['video']['clicks'][0]['time'] == 2.5
  clicks, _ = annotations.read_clicks(site.folder / 'clicks.csv')
  assert annotations.Click('b b', 2.5, 'background', 'A1') in clicks
  state = json.loads(site.client.ask('/api/state').body)
  assert ['b b', 1, False, False] in state['videos']
  assert TOKEN not in json.dumps(state)
  told = shlex.split(state['transcode'])
  assert told[3:5] == ['--videos', str(site.folder / 'videos')]


def test_proposals_of_a_model(tmp_path):
  class Model:
    classes = 'jump', 'run'

    def read(self, path, duration):
      return types.SimpleNamespace(label=np.zeros(2), duration=duration)

    def predict_videos(self, videos, batch_size):
      cas = np.zeros((20, 3))
      cas[10:15, 0] = 5
      yield next(iter(videos)), {'cas': cas, 'score': np.ones(3)}, []

  s = annotate_client.open_store(tmp_path, dict.fromkeys('ab'))
  with pytest.raises(ValueError, match='not opened yet'):
    server.Proposer(Model(), [tmp_path / 'v_a.npy']).propose(s, 'a')
  for name in 'ab':
    s.act({'kind': 'opened', 'video': name, 'duration': 40})
  proposer = server.Proposer(Model(), [tmp_path / 'v_a.npy'])
  found = proposer.propose(s, 'a')
  assert list(found['curves']) == ['jump']
  assert [p[:2] for p in found['proposals']] == [(21.0, 'high, no click')]
  s.act({'kind': 'answer', 'video': 'a', 'time': 21, 'answer': 'background'})
  ((at, reason, _),) = proposer.propose(s, 'a')['proposals']
  assert (at, reason) == (21.0, 'check again')
  (mark,) = s.video('a')['clicks']
  s.act({'kind': 'answer', 'video': 'a', 'time': 21, 'answer': 'background',
         'click': mark['id']})  # fmt: skip
  assert proposer.propose(s, 'a')['proposals'] == []
  with pytest.raises(ValueError, match="no features of video 'b'"):
    proposer.propose(s, 'b')
  s.close()


def test_ten_thousand_videos(tmp_path):
  (tmp_path / 'videos').mkdir()
  for i in range(10_000):
    (tmp_path / 'videos' / f'video {i}.mp4').touch()
  process, client = annotate_client.start(tmp_path)
  try:
    state = json.loads(client.ask('/api/state').body)
    assert len(state['videos']) == 10_000
  finally:
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) in (0, -signal.SIGTERM)
    process.stdout.close()


def test_command_line_errors_are_one_line(tmp_path):
  folder = tmp_path / 'videos'
  folder.mkdir()

  def error(*options):
    with pytest.raises(SystemExit) as e:
      command.main(
        [f'--videos={folder}', f'--clicks={tmp_path}/c.csv', '--annotator=A',
         *options]
      )  # fmt: skip
    assert '\n' not in str(e.value)
    return str(e.value)

  assert 'videos: no video (' in error()
  (folder / 'a.mp4').touch()
  assert 'go together' in error('--checkpoint=runs/x')
  assert "'background' twice, or as a class" in error('--classes=background')
  assert "'Background' twice, or as a class" in error('--classes=a,Background')
  for option in ('clicks=c.json', 'labels=l.json', 'annotations=a.csv'):
    assert 'which is not what is written' in error(f'--{option}')
  assert 'expected a name' in error('--annotator= ')
  assert 'expected 0…65535' in error('--port=70000')
  (tmp_path / 'c.csv').write_text('video_id,time,label,annotator\nx,1,y,z\n')
  (tmp_path / 'c.csv.log').unlink()
  assert 'none of its 1 videos is in the folder' in error()
  assert '--fields are of --project' in error('--fields', 'train.seed=1')
  assert 'a project has its own' in error(f'--project={tmp_path}/p')
  with pytest.raises(SystemExit, match='--clicks is missing'):
    command.main([f'--videos={folder}', '--annotator=A'])
  assert sorted(os.listdir(tmp_path)) == ['c.csv', 'videos']


def test_address_that_others_reach_is_said(tmp_path, capsys, monkeypatch):
  (tmp_path / 'a.mp4').touch()
  monkeypatch.setattr(uvicorn.Server, 'run', lambda *args, **kwargs: None)
  options = [f'--videos={tmp_path}', f'--clicks={tmp_path}/c.csv',
             '--annotator=A', '--port=0']  # fmt: skip
  command.main(options)
  assert not capsys.readouterr().err
  stream = io.StringIO()  # an earlier standard error, which absl remembers
  handler = absl.logging.PythonHandler(stream)
  command.main([*options, '--host=0.0.0.0'])
  handler.flush()
  assert not stream.closed
  assert 'nothing is encrypted' in capsys.readouterr().err


def test_address_that_is_printed_is_answered(tmp_path, monkeypatch):
  (tmp_path / 'a.mp4').touch()
  apps, out, err = [], io.StringIO(), io.StringIO()
  with (
    monkeypatch.context() as patch,
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
  ):
    run = lambda self, **_: apps.append(self.config.app)
    patch.setattr(uvicorn.Server, 'run', run)
    # Stands for a name of this machine: it is not the address that it has.
    command.main([f'--videos={tmp_path}', f'--clicks={tmp_path}/c.csv',
                  '--annotator=A', '--port=0', '--host=127.2'])  # fmt: skip
  printed = r'http://(127\.0\.0\.2:\d+)/\?token=(.*)\n'
  host, token = re.search(printed, out.getvalue()).groups()
  with annotate_client.running(*apps) as port:
    client = annotate_client.Client(port, token)
    assert client.ask('/', headers={'Host': host}).status == 200
    assert client.ask('/', headers={'Host': '127.0.0.3'}).status == 403


def test_copies_are_made_of_what_browsers_cannot_play(tmp_path, capsys):
  for name in ('a.avi', 'b.mp4', 'c.webm'):
    numbered_video.make(tmp_path / name, num_frames=30, fps=10)
  folder = videos.Folder(tmp_path)
  for _ in range(2):  # the second time there is nothing to do
    folder.transcode()
  assert capsys.readouterr().out.count('making') == 1
  assert os.listdir(tmp_path / '.playable') == ['a.avi.mp4']
  assert folder.find('a') == tmp_path / '.playable' / 'a.avi.mp4'
  assert folder.find('b') == tmp_path / 'b.mp4'
  import av

  with av.open(str(folder.find('a'))) as container:
    frames = list(container.decode(video=0))
  assert [f.time for f in frames] == pytest.approx(np.arange(30) / 10)
  for number in (0, 17, 29):
    seen = frames[number].to_ndarray(format='rgb24')
    np.testing.assert_allclose(
      seen[4:12, 4::16, 0], numbered_video.frame(number)[4:12, 4::16, 0],
      atol=40,
    )  # fmt: skip
  # One that cannot be copied is named, and keeps no other from being served.
  (tmp_path / 'A bad.avi').write_text('no video')
  numbered_video.make(tmp_path / 'd.avi', num_frames=3, fps=10)
  folder = videos.Folder(tmp_path)
  folder.transcode()
  (problem,) = capsys.readouterr().err.splitlines()
  assert problem.startswith('no copy is made: ') and 'A bad.avi' in problem
  assert folder.find('A bad') == tmp_path / 'A bad.avi'
  assert folder.find('d') == tmp_path / '.playable' / 'd.avi.mp4'


@pytest.mark.slow
def test_twenty_kills_lose_no_click_and_no_review(tmp_path):
  (tmp_path / 'videos').mkdir()
  (tmp_path / 'videos' / 'a.mp4').touch()
  path = files.path(tmp_path / 'clicks_annotations.json')
  moments, saved, sent = random.Random(0), ([], []), 0
  for _ in range(20):
    process, client = annotate_client.start(tmp_path, '--classes=run')
    client.act(kind='opened', video='a', duration=1e6)
    client.act(kind='reviewed', video='a', reviewed=True)
    threading.Timer(moments.uniform(0.02, 0.4), process.kill).start()
    try:
      while True:  # first, as the page does, what had no answer
        at = float(sent // 2)
        judged = {f's{at}': [at, at + 0.5, 'run', 'accepted']}
        said = ({'kind': 'click', 'time': at},
                {'kind': 'review', 'segments': judged})[sent % 2]  # fmt: skip
        assert client.act(**said, video='a', key=f'k{sent}').status == 200
        saved[sent % 2].append(at)
        sent += 1
    except (OSError, http.client.HTTPException):
      assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    clicks, _ = annotations.read_clicks(tmp_path / 'clicks.csv')
    found = annotations.read_ground_truth(path).videos if path.exists() else {}
    segments = [s.start for video in found.values() for s in video.segments]
    for told, times in zip(
      saved, ([click.time for click in clicks], segments), strict=True
    ):
      assert set(told) <= set(times)
      assert len(times) == len(set(times)) <= len(told) + 1
  assert sent > 40
