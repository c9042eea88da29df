"""The click page's server: how long a click takes until it is on disk."""

import contextlib
import http.client
import json
import pathlib
import tempfile
import threading
import time

import numpy as np

from backtal_jax.annotate import labels, store, videos
from benchmarks import measure

_VIDEOS, _CLICKS, _LIMIT = 200, 300, 0.05


def run() -> dict:
  """Click 300 times over HTTP, in a folder of 200 videos that have clicks.

  Returns:
    The median time of an answer, beside the 50 ms that it may take.
  """
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / 'videos').mkdir()
    for i in range(_VIDEOS):
      (folder / 'videos' / f'{i}.mp4').touch()
    found = videos.Folder(folder / 'videos')
    with (
      contextlib.closing(
        store.Store(
          folder / 'clicks.csv', 'A1', found, (),
          labels.Labels(folder / 'labels.csv', 'training'),
        )
      ) as opened,
      _serve(opened, found) as ask,
    ):  # fmt: skip
      for name in found:
        ask({'kind': 'opened', 'video': name, 'duration': 1e4})
        ask({'kind': 'click', 'video': name, 'time': 1})
      clicks = [
        {'kind': 'click', 'video': str(i % _VIDEOS), 'time': 2 + i}
        for i in range(_CLICKS)
      ]
      times = [measure.seconds(lambda click=c: ask(click)) for c in clicks]
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
