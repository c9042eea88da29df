"""The click page's server, in a thread or a process, and who asks it."""

import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
import time

from backtal_jax import files
from backtal_jax.annotate import labels, reviews, store


class Client:
  """Asks a server on this machine."""

  def __init__(self, port, token):
    self.port, self.url = port, f'http://127.0.0.1:{port}/?token={token}'
    self.headers = {'Authorization': f'Bearer {token}'}

  def ask(self, path, body=None, *, method=None, headers=None, auth=True):
    """Return the response, its body read as `response.body`."""
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=30)
    sent = (self.headers if auth else {}) | (headers or {})
    method = method or ('GET' if body is None else 'POST')
    if body is not None and not isinstance(body, bytes):
      body = json.dumps(body)
    with contextlib.closing(connection):
      connection.request(method, path, body, sent)
      with connection.getresponse() as response:
        response.body = response.read()
        return response

  def act(self, **action):
    return self.ask('/api/act', action)


@contextlib.contextmanager
def running(app):
  """Run an ASGI application in a thread; yield its port."""
  import uvicorn

  server = uvicorn.Server(
    uvicorn.Config(
      app, port=0, log_level='warning', ws='none', timeout_graceful_shutdown=1
    )
  )
  thread = threading.Thread(target=server.run)
  thread.start()
  while not server.started:
    time.sleep(0.01)
  try:
    yield server.servers[0].sockets[0].getsockname()[1]
  finally:
    server.should_exit = True
    thread.join()


def start(folder, *options, port=0):
  """Start the command; return the process and a Client."""
  process = subprocess.Popen(
    [sys.executable, '-m', 'backtal_jax.annotate', f'--videos={folder}/videos',
     f'--clicks={folder}/clicks.csv', '--annotator=A1', f'--port={port}',
     *options],
    stdout=subprocess.PIPE, text=True,
  )  # fmt: skip
  for line in process.stdout:
    if found := re.fullmatch(r'http://127.0.0.1:(\d+)/\?token=(.*)\n', line):
      return process, Client(int(found[1]), found[2])
  raise AssertionError(f'exit status {process.wait()}')


@contextlib.contextmanager
def started(folder, *options, port=0):
  """Start the command, and kill it in the end; yield a Client."""
  process, client = start(folder, *options, port=port)
  try:
    yield client
  finally:
    process.kill()
    process.wait()
    process.stdout.close()


def open_store(
  folder, names, classes=('jump', 'run'), who='A1', measure=lambda name: None,
  annotated=None, learn=False,
):  # fmt: skip
  """Open the clicks, labels and annotations of a folder."""
  found = labels.Labels(files.path(folder / 'labels.csv'), 'training')
  path = files.path(folder / 'clicks.csv')
  annotated = annotated or reviews.File(
    files.path(folder / 'clicks_annotations.json'), 'validation'
  )
  return store.Store(
    path, who, names, classes, found, measure, annotated, learn
  )
