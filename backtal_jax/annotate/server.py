"""What the browser talks to: the page, the videos by ranges, the clicks.

Through the guard, see there.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from etils import epath
from starlette import (
  applications,
  concurrency,
  exceptions,
  responses,
  routing,
  staticfiles,
)

from backtal_jax import command_line, errors, files
from backtal_jax.annotate import guard, jobs, queue, reviews, videos
from backtal_jax.annotate import store as click_store
from backtal_jax.data import marks, video_names

if TYPE_CHECKING:  # JAX takes seconds
  from backtal_jax import predict

PAGE = os.path.join(os.path.dirname(__file__), 'page')
_LARGEST_BODY = 1 << 16
# Returns what may be reviewed in a video.
Segments = Callable[[click_store.Store, str], Iterable[reviews.Proposal]]
_TYPES = {'.webm': 'video/webm', '.ogv': 'video/ogg', '.mkv': 'video/webm'}


class Proposer:
  """A trained model, and the files of the videos' features."""

  def __init__(
    self, model: 'predict.Model', paths: Iterable[epath.Path]
  ) -> None:
    self._model, self._mutex = model, threading.Lock()
    self._known, self._found = {}, {}
    self._paths = {path.stem: path for path in paths}

  def propose(self, store: click_store.Store, name: str) -> dict[str, Any]:
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
    path = self._paths.get(video_names.match_one(name, self._paths))
    if path is None:
      raise errors.InputError(f'no features of video {name!r}')
    return path


class _Answers:
  """Answers the page's requests; see `make_app` for what each is made of."""

  def __init__(self, store, folder, proposer, segments, training, actions):
    self._store, self._folder, self._actions = store, folder, actions
    self._proposer, self._segments = proposer, segments
    self._training = training

  def state(self, request):
    transcode = command_line.command(
      '-m', 'backtal_jax.annotate', '--videos', self._folder.path, '--clicks',
      self._store.path, '--annotator', self._store.who, '--transcode',
    )  # fmt: skip
    return responses.JSONResponse(
      {
        'id': self._store.id,
        'file': str(self._store.path),
        'annotator': self._store.who,
        'actions': self._actions,
        'classes': self._store.classes,
        'proposals': self._proposer is not None,
        'segments': self._segments is not None,
        'project': self._training is not None,
        'transcode': transcode,
        'videos': self._store.summary(),
      }
    )

  def _known(self, request):
    name = request.path_params['name']
    if name not in self._folder:
      raise exceptions.HTTPException(404, f'no video {name!r}')
    return name

  def video(self, request):
    return responses.JSONResponse(self._store.video(self._known(request)))

  def proposals(self, request):
    if self._proposer is None:
      raise exceptions.HTTPException(404, 'no model: --checkpoint, --features')
    found = self._proposer.propose(self._store, self._known(request))
    return responses.JSONResponse(found)

  def proposed(self, request):
    name = self._known(request)
    found = self._segments(self._store, name) if self._segments else ()
    end = self._store.end(name)
    try:
      for x in found:
        marks.require_segment(x.start, x.end, end)
    except errors.InputError as e:
      raise errors.InputError(f'segments of video {name!r}: {e}') from e
    merged = reviews.merge(found, self._store.judged(name), end)
    return responses.JSONResponse({'segments': merged})

  def ordered(self, request):
    sure = {}
    for name in self._folder if self._segments else ():
      with contextlib.suppress(errors.InputError):  # of this one no features
        found = [x._asdict() for x in self._segments(self._store, name)]
        sure[name] = queue.sureness(found, self._store.labels.get(name))
    clicked = {name for name, clicks, *_ in self._store.summary() if clicks}
    names = queue.order(self._folder, clicked, sure)
    return responses.JSONResponse({'names': names})

  def file(self, request):
    path = self._folder.find(self._known(request))
    if path is None:
      raise exceptions.HTTPException(404, 'the file of this video is gone')
    kind = _TYPES.get(path.suffix.lower(), 'video/mp4')
    return responses.FileResponse(path, media_type=kind)

  async def act(self, request):
    body = b''
    async for part in request.stream():
      body += part
      if len(body) > _LARGEST_BODY:
        raise exceptions.HTTPException(413, 'too much at once')
    asked = files.parse_json(body, 'the request')
    if not isinstance(asked, dict):
      raise errors.InputError('no JSON object, expected one')
    done = await concurrency.run_in_threadpool(self._store.act, asked)
    return responses.JSONResponse(done)

  def job(self, request):
    return responses.JSONResponse(self._training.status())

  async def order_job(self, request):
    asked = request.path_params['what']
    orders = {'train': self._training.train, 'cancel': self._training.cancel}
    do = orders.get(asked)
    if do is None:
      raise exceptions.HTTPException(404, f'no {asked!r}')
    await concurrency.run_in_threadpool(do)
    return await concurrency.run_in_threadpool(self.job, request)

  def page(self, request):
    return responses.FileResponse(os.path.join(PAGE, 'index.html'))


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
) -> guard.Guard:
  """Return the ASGI application.

  Args:
    store, folder: The clicks and the videos.
    proposer: Where there is a model.
    segments: Returns what may be reviewed in a video of a store.
    training: Where there is a project.
    token, hosts: See guard.Guard.
    actions: Whether action clicks are wanted.
  """
  answers = _Answers(store, folder, proposer, segments, training, actions)
  routes = [
    routing.Route('/', answers.page),
    routing.Route('/api/state', answers.state),
    routing.Route('/api/video/{name:path}', answers.video),
    routing.Route('/api/proposals/{name:path}', answers.proposals),
    routing.Route('/api/act', answers.act, methods=['POST']),
    routing.Route('/api/segments/{name:path}', answers.proposed),
    routing.Route('/api/order', answers.ordered),
    routing.Route('/video/{name:path}', answers.file),
    routing.Mount('/page', staticfiles.StaticFiles(directory=PAGE)),
  ]
  if training is not None:
    routes += [
      routing.Route('/api/job', answers.job),
      routing.Route('/api/job/{what}', answers.order_job, methods=['POST']),
    ]
  handlers = {
    errors.InputError: lambda request, e: _problem(400, str(e)),
    OSError: lambda request, e: _problem(507, e.strerror or str(e)),
    exceptions.HTTPException: lambda request, e: _problem(
      e.status_code, e.detail
    ),
  }
  app = applications.Starlette(routes=routes, exception_handlers=handlers)
  return guard.Guard(app, token, hosts)


def _problem(status, text):
  return responses.JSONResponse({'problem': text}, status)
