"""What the browser talks to: the page, the videos by ranges, the clicks.

Whoever knows the token may do everything, nobody else anything. The token
comes once, in the address; a cookie keeps it. What changes anything must come
from our own page (Origin), under a name of this machine (Host): neither
another site nor a name that points here gets through.
"""

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING
from urllib import parse

from etils import epath
from starlette import (
  applications,
  concurrency,
  exceptions,
  requests,
  responses,
  routing,
  staticfiles,
  types,
)

from backtal_jax import errors, files
from backtal_jax.annotate import jobs, queue, reviews, videos
from backtal_jax.annotate import store as click_store
from backtal_jax.data import annotations

if TYPE_CHECKING:  # JAX takes seconds
  from backtal_jax import predict

PAGE = os.path.join(os.path.dirname(__file__), 'page')
_COMMAND = 'python -m backtal_jax.annotate'
_LARGEST_BODY = 1 << 16
_HEADERS = (
  ('content-security-policy',
   "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; "
   "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; "
   "base-uri 'none'; form-action 'none'"),
  ('cross-origin-resource-policy', 'same-origin'),
  ('cache-control', 'no-store'),
  ('referrer-policy', 'no-referrer'),
  ('x-content-type-options', 'nosniff'),
)  # fmt: skip
# Returns what may be reviewed in a video.
Segments = Callable[[click_store.Store, str], Iterable[reviews.Proposal]]
_TYPES = {'.webm': 'video/webm', '.ogv': 'video/ogg', '.mkv': 'video/webm'}


class Proposer:
  """A trained model and the features of the videos.

  Args:
    model: What finds segments.
    paths: Of the videos' feature files.
  """

  def __init__(
    self, model: 'predict.Model', paths: Iterable[epath.Path]
  ) -> None:
    self._model, self._mutex = model, threading.Lock()
    self._known, self._found = {}, {}
    self._paths = {path.stem: path for path in paths}

  def propose(self, store: click_store.Store, name: str) -> dict:
    """Return a video's curves, and what is worth a click now."""
    path = self._find(name)
    seconds, labels = store.duration(name), tuple(store.labels.get(name))
    if seconds is None:
      raise errors.InputError(f'video {name!r} was not opened yet')
    with self._mutex:
      if (name, labels) not in self._known:
        video = self._model.read(path, seconds)
        self._known[name, labels] = queue.curves(self._model, video, labels)
    found, every = self._known[name, labels]
    clicks, noted = store.spoken(name)
    ranked = queue.rank(found, every, seconds, clicks + noted)
    answered = {c.time for c in noted}
    return {
      'curves': {k: v.round(3).tolist() for k, v in found.items()},
      'proposals': [
        (time, reason, round(value, 3))
        for time, reason, value in ranked
        if reason != queue.CHECK or time not in answered
      ],
    }

  def segments(
    self, store: click_store.Store, name: str
  ) -> list[reviews.Proposal]:
    """Return what the model finds in a video, as the command line does."""
    path = self._find(name)
    with self._mutex:
      if name not in self._found:
        video = self._model.read(path, store.duration(name))
        (found,) = self._model.predict_videos([video])
        self._found[name] = [
          reviews.Proposal(start, end, x['label'], x['score'])
          for x in found.segments
          for start, end in [x['segment']]
        ]
    return self._found[name]

  def _find(self, name):
    path = self._paths.get(annotations.match_name(name, self._paths))
    if path is None:
      raise errors.InputError(f'no features of video {name!r}')
    return path


class Guard:
  """Lets through who knows the token and comes from our own page.

  Args:
    app: What is guarded.
    token: To be known.
    hosts: Names this server may be called by; () is any.
  """

  def __init__(
    self, app: types.ASGIApp, token: str, hosts: Collection[str]
  ) -> None:
    self._app, self._token, self._hosts = app, token, hosts

  async def __call__(
    self, scope: types.Scope, receive: types.Receive, send: types.Send
  ) -> None:
    if scope['type'] != 'http':  # the start and the end of the server
      await self._app(scope, receive, send)
      return

    async def send_with_headers(message):
      if message['type'] == 'http.response.start':
        added = [(k.encode(), v.encode()) for k, v in _HEADERS]
        message = message | {'headers': [*message['headers'], *added]}
      await send(message)

    request = requests.Request(scope)
    answer = self._refuse(request) or self._enter(request) or self._app
    await answer(scope, receive, send_with_headers)

  def _refuse(self, request):
    host = request.headers.get('host', '')
    name = parse.urlsplit(f'//{host}').hostname
    origin = request.headers.get('origin')
    if self._hosts and name not in self._hosts:
      return _text(403, f'not the host {host!r}')
    if origin is not None and parse.urlsplit(origin).netloc != host:
      return _text(403, f'requests from {origin!r} are not answered')
    told = (
      request.query_params.get('token'),
      request.cookies.get(_cookie(host)),
      request.headers.get('authorization', '').removeprefix('Bearer '),
    )
    if not any(
      secrets.compare_digest(x.encode(), self._token.encode())
      for x in told
      if x
    ):
      return _text(
        403,
        'Open the address that the server has printed, with its token: it is '
        'a new one with every start.',
      )
    return None

  def _enter(self, request):
    """Turn the token in the page's address into a cookie."""
    if request.url.path != '/' or 'token' not in request.query_params:
      return None
    answer = responses.RedirectResponse('/', 303)
    answer.set_cookie(
      _cookie(request.headers.get('host', '')), self._token,
      httponly=True, samesite='lax',
    )  # fmt: skip
    return answer


def make_app(
  store: click_store.Store,
  folder: videos.Folder,
  proposer: Proposer | None = None,
  segments: Segments | None = None,
  training: jobs.Runner | None = None,
  *,
  token: str,
  actions: bool = False,
  hosts: Collection[str] = (),
) -> Guard:
  """Return the ASGI application.

  Args:
    store: The clicks.
    folder: The videos.
    proposer: Where there is a model.
    segments: Returns what may be reviewed in a video of a store.
    training: Where there is a project.
    token: See Guard.
    actions: Whether action clicks are wanted.
    hosts: See Guard.
  """

  def state(request):
    return responses.JSONResponse(
      {
        'id': store.id,
        'file': str(store.path),
        'annotator': store.who,
        'actions': actions,
        'classes': store.classes,
        'proposals': proposer is not None,
        'segments': segments is not None,
        'project': training is not None,
        'review': store.annotated is not None,
        'transcode': f'{_COMMAND} --videos {folder.path} --clicks {store.path} '
        f'--annotator {store.who} --transcode',
        'videos': store.summary(),
      }
    )

  def known(request):
    name = request.path_params['name']
    if name not in folder:
      raise exceptions.HTTPException(404, f'no video {name!r}')
    return name

  def video(request):
    return responses.JSONResponse(store.video(known(request)))

  def proposals(request):
    if proposer is None:
      raise exceptions.HTTPException(404, 'no model: --checkpoint, --features')
    return responses.JSONResponse(proposer.propose(store, known(request)))

  def proposed(request):
    name = known(request)
    found, end = segments(store, name) if segments else (), store.end(name)
    for x in found:
      reviews.check(x.start, x.end, end, f'segments of video {name!r}')
    merged = reviews.merge(found, store.judged(name), end)
    return responses.JSONResponse({'segments': merged})

  def ordered(request):
    sure = {}
    for name in folder if segments else ():
      with contextlib.suppress(errors.InputError):  # of this one no features
        found = [x._asdict() for x in segments(store, name)]
        sure[name] = queue.sureness(found, store.labels.get(name))
    clicked = {name for name, clicks, *_ in store.summary() if clicks}
    names = queue.order(folder, clicked, sure)
    return responses.JSONResponse({'names': names})

  def file(request):
    path = folder.find(known(request))
    if path is None:
      raise exceptions.HTTPException(404, 'the file of this video is gone')
    kind = _TYPES.get(path.suffix.lower(), 'video/mp4')
    return responses.FileResponse(path, media_type=kind)

  async def act(request):
    body = b''
    async for part in request.stream():
      body += part
      if len(body) > _LARGEST_BODY:
        raise exceptions.HTTPException(413, 'too much at once')
    asked = files.parse_json(body, 'the request')
    if not isinstance(asked, dict):
      raise errors.InputError('no JSON object, expected one')
    done = await concurrency.run_in_threadpool(store.act, asked)
    return responses.JSONResponse(done)

  def job(request):
    return responses.JSONResponse(training.status())

  async def order_job(request):
    asked = request.path_params['what']
    do = {'train': training.train, 'cancel': training.cancel}.get(asked)
    if do is None:
      raise exceptions.HTTPException(404, f'no {asked!r}')
    await concurrency.run_in_threadpool(do)
    return await concurrency.run_in_threadpool(job, request)

  def page(request):
    return responses.FileResponse(os.path.join(PAGE, 'index.html'))

  routes = [
    routing.Route('/', page),
    routing.Route('/api/state', state),
    routing.Route('/api/video/{name:path}', video),
    routing.Route('/api/proposals/{name:path}', proposals),
    routing.Route('/api/act', act, methods=['POST']),
    routing.Route('/api/segments/{name:path}', proposed),
    routing.Route('/api/order', ordered),
    routing.Route('/video/{name:path}', file),
    routing.Mount('/page', staticfiles.StaticFiles(directory=PAGE)),
  ]
  if training is not None:
    routes += [
      routing.Route('/api/job', job),
      routing.Route('/api/job/{what}', order_job, methods=['POST']),
    ]
  handlers = {
    errors.InputError: lambda request, e: _problem(400, str(e)),
    OSError: lambda request, e: _problem(507, e.strerror or str(e)),
    exceptions.HTTPException: lambda request, e: _problem(
      e.status_code, e.detail
    ),
  }
  app = applications.Starlette(routes=routes, exception_handlers=handlers)
  return Guard(app, token, hosts)


def _cookie(host):
  # Cookies do not tell the ports of a machine apart.
  return f'annotate_{parse.urlsplit(f"//{host}").port}'


def _problem(status, text):
  return responses.JSONResponse({'problem': text}, status)


def _text(status, text):
  return responses.PlainTextResponse(text, status)
