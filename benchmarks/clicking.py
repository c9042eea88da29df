"""The click page's server: how long an act takes until it is on disk."""

import contextlib
import http.client
import json
import pathlib
import tempfile
import threading
import time

import numpy as np

from backtal_jax import files
from backtal_jax.annotate import labels, reviews, store, videos
from benchmarks import measure

_VIDEOS, _ACTS, _SEGMENTS, _LIMIT = 200, 300, 10, 0.05


def run() -> dict:
  """Click 300 times over HTTP, in a folder of 200 videos that have clicks.

  Returns:
    The median time of an answer, beside the 50 ms that it may take.
  """
  return _run(lambda video, i: {'kind': 'click', 'video': video, 'time': 2 + i})


def run_review() -> dict:
  """Review 300 segments of 200 reviewed videos with ten segments each.

  Returns:
    See `run`.
  """

  def act(video, i):
    said = {f's{i % _SEGMENTS}': [i, i + 1.5, 'run', 'accepted']}
    return {'kind': 'review', 'video': video, 'segments': said}

  return _run(act)


def _run(act):
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / 'videos').mkdir()
    for i in range(_VIDEOS):
      (folder / 'videos' / f'{i}.mp4').touch()
    found = videos.Folder(files.path(folder / 'videos'))
    with (
      contextlib.closing(
        store.Store(
          files.path(folder / 'clicks.csv'), 'A1', found, ('run',),
          labels.Labels(files.path(folder / 'labels.csv'), 'training'),
          lambda name: None,
          reviews.File(files.path(folder / 'truth.json'), 'test'),
        )
      ) as opened,
      _serve(opened, found) as ask,
    ):  # fmt: skip
      for name in found:
        ask({'kind': 'opened', 'video': name, 'duration': 1e4})
        ask({'kind': 'click', 'video': name, 'time': 1})
        ask({'kind': 'review', 'video': name, 'segments': {
          f's{i}': [i, i + 0.5, 'run', 'accepted'] for i in range(_SEGMENTS)
        }})  # fmt: skip
        ask({'kind': 'reviewed', 'video': name, 'reviewed': True})
      acts = [act(str(i % _VIDEOS), i) for i in range(_ACTS)]
      times = [measure.seconds(lambda one=x: ask(one)) for x in acts]
  return measure.result(float(np.median(times)), _LIMIT)


@contextlib.contextmanager
def _serve(opened, found):
  """Serve in a thread; yield what sends an action."""
  import uvicorn

  from backtal_jax.annotate import server

  app = server.make_app(opened, found, token='t')
  running = uvicorn.Server(uvicorn.Config(app, port=0, log_level='warning'))
  thread = threading.Thread(target=running.run)
  thread.start()
  while not running.started:
    time.sleep(0.01)
  port = running.servers[0].sockets[0].getsockname()[1]
  connection = http.client.HTTPConnection('127.0.0.1', port)

  def ask(action):
    header = {'Authorization': 'Bearer t'}
    connection.request('POST', '/api/act', json.dumps(action), header)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()

  try:
    yield ask
  finally:
    connection.close()
    running.should_exit = True
    thread.join()
