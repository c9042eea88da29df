"""The click page on this machine: python -m backtal_jax.annotate."""

import argparse
import contextlib
import errno
import os
import secrets
import socket
import sys
from collections.abc import Sequence

from backtal_jax import command_line, errors, files
from backtal_jax.annotate import jobs, labels, reviews, store, videos
from backtal_jax.annotate import project as projects
from backtal_jax.data import marks
from backtal_jax.video import needs

_PORT = 8765
_LOOPBACK = 'localhost', '127.0.0.1', '::1'
_ANY = '0.0.0.0', '::'


def _parser():
  parser = command_line.Parser(
    prog='python -m backtal_jax.annotate', description=__doc__
  )
  # fmt: off
  add = parser.add_argument
  add('--project', metavar='FOLDER', help='for everything: features, clicks, '
      'trainings, annotations; need not be there')
  add('--videos', metavar='FOLDER', help='of the videos')
  add('--clicks', metavar='FILE',
      help='CSV video_id,time,label,annotator; need not be there')
  add('--annotator', metavar='NAME', help='who clicks; of a project, you')
  add('--labels', metavar='FILE',
      help='CSV video_id,subset,label[,duration,fps] of the video labels, read '
      'and written; default CLICKS_labels.csv beside the clicks')
  add('--subset', default='training',
      help='of videos that get their first label')
  add('--classes', default='', metavar='A,B,C',
      help="in order; default those of the model, else the files'")
  add('--actions', action='store_true', help='keys 1…9 click actions, too')
  add('--checkpoint', help='of a model that proposes moments')
  add('--features', help='of the videos, for the model')
  add('--segments', metavar='FILE', help='predictions to review, as JSON')
  add('--annotations', metavar='FILE', help='JSON of the reviewed videos, read '
      'and written; default CLICKS_annotations.json')
  add('--review_subset', default='validation', metavar='SUBSET',
      help='of reviewed videos, in their annotations')
  add('--learn', action='store_true',
      help='what is accepted or rejected is a click, too')
  add('--fields', nargs='+', default=[], metavar='FIELD=VALUE', help="of the "
      "config of a project's trainings, e.g. train.num_epochs=50")
  add('--host', default=_LOOPBACK[1], help='address to listen on')
  add('--port', type=int, help=f'default {_PORT}, or a free one')
  add('--transcode', action='store_true',
      help='first copy the videos that browsers cannot play, as H.264')
  # fmt: on
  return parser


def _listen(host, port):
  """Return a socket; without a port, any free one if ours is taken."""
  if not 0 <= (port or 0) < 1 << 16:
    raise errors.InputError(f'--port is {port}, expected 0…65535')
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    address = host, _PORT if port is None else port
    return socket.create_server(address, family=family)
  except OSError as e:
    if port is None and e.errno == errno.EADDRINUSE:
      return socket.create_server((host, 0), family=family)
    raise errors.InputError(f'{host}:{address[1]}: {e.strerror or e}') from e


def _hosts(host, address):
  """Return the names the server answers to, () for any."""
  return () if address in _ANY else (*_LOOPBACK, host.lower(), address)


def _load(args):
  """Return the model, the files of features and the class names."""
  classes = _classes(args)
  if bool(args.checkpoint) != bool(args.features):
    raise errors.InputError('--checkpoint and --features go together')
  if not args.checkpoint:
    return None, [], classes
  from backtal_jax import predict  # JAX takes seconds
  from backtal_jax.video import reader

  model = predict.load(args.checkpoint)
  if classes and set(classes) != set(model.classes):
    raise errors.InputError(
      f'--classes has {", ".join(classes)}, the model '
      f'{", ".join(model.classes)}'
    )
  return model, reader.find(files.path(args.features)), classes or model.classes


def serve(args: argparse.Namespace) -> None:
  """Serve until the process is ended."""
  for module in ('uvicorn', 'starlette'):
    errors.need(module, 'annotate', 'the page')
  import uvicorn

  from backtal_jax.annotate import server

  project = _open_project(args)
  for name in ('videos', 'clicks', 'annotator'):
    if getattr(args, name) is None:
      raise errors.InputError(f'--{name} is missing (or give --project)')
  folder = videos.Folder(files.path(args.videos))
  if not args.annotator.strip():
    raise errors.InputError('--annotator is empty, expected a name')
  model, paths, classes = _load(args)
  if args.transcode:
    folder.transcode()
  if project and not (project.path / projects.NAME).exists():
    project.save()  # first, so that the folder is known for one
  with contextlib.ExitStack() as stack:
    opened = _open_store(args, folder, classes)
    stack.callback(opened.close)
    proposer = server.Proposer(model, paths) if model else None
    runner = None
    if project:
      project.save()
      segments = project.found(opened.classes)
      runner = jobs.Runner(project, opened, len(folder))
      stack.callback(runner.close)
    else:
      segments = _segments(args, folder, opened.classes, proposer)
    with contextlib.suppress(errors.InputError):
      needs('av')  # now, rather than when the first video is opened
    listening = stack.enter_context(_listen(args.host, args.port))
    address, port = listening.getsockname()[:2]
    token = secrets.token_urlsafe(24)
    app = server.make_app(
      opened, folder, proposer, segments, runner, token=token,
      actions=args.actions, hosts=_hosts(args.host, address),
    )  # fmt: skip
    _greet(args, folder, address, port, token)
    if runner:
      runner.extract()
    # Its own configuration of logging would close absl's stream, which is
    # whatever standard error was when absl was imported.
    config = uvicorn.Config(
      app, log_config=None, log_level='warning', access_log=False,
      timeout_graceful_shutdown=1,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


def _open_store(args, folder, classes):
  """Return the files that the page works on, opened."""
  stem = args.clicks.removesuffix('.csv')
  path = args.labels or f'{stem}_labels.csv'
  annotated = args.annotations or f'{stem}_annotations.json'
  for name, ending in ((args.clicks, '.csv'), (path, '.csv'),
                       (annotated, '.json')):  # fmt: skip
    files.require_ending(files.path(name), ending)
  opened = store.Store(
    files.path(args.clicks), args.annotator, folder, classes,
    labels.Labels(files.path(path), args.subset), folder.measure,
    reviews.File(files.path(annotated), args.review_subset), args.learn,
  )  # fmt: skip
  if opened.missing:
    print(
      f'{args.clicks}: {len(opened.missing)} of its videos are not in '
      f'{args.videos}, their clicks are kept: {", ".join(opened.missing)}',
      file=sys.stderr,
    )
  return opened


def _open_project(args):
  """Return the project, whose files the options then name; None without."""
  if not args.project:
    if args.fields:
      raise errors.InputError('--fields are of --project, which is missing')
    return None
  for name in ('clicks', 'labels', 'annotations', 'segments', 'checkpoint'):
    if getattr(args, name):
      raise errors.InputError(
        f'--{name}: a project has its own; expected --project without it'
      )
  folder = files.path(args.project)
  files.require_ending(folder)
  project = projects.open_project(
    folder, args.videos, args.features, _classes(args), args.fields
  )
  args.videos, args.features = project.videos, None
  args.classes = ','.join(project.classes)
  args.clicks, args.labels = f'{folder}/clicks.csv', f'{folder}/labels.csv'
  args.annotations = f'{folder}/annotations.json'
  args.annotator = args.annotator or os.environ.get('USER', 'annotator')
  return project


def _classes(args):
  classes = tuple(x.strip() for x in args.classes.split(',') if x.strip())
  for name in classes:
    if classes.count(name) > 1 or name.casefold() == marks.BACKGROUND:
      raise errors.InputError(f'--classes has {name!r} twice, or as a class')
  return classes


def _segments(args, folder, classes, proposer):
  """Return what finds the segments of a video, None without any."""
  if not args.segments:
    return proposer and proposer.segments
  path = files.path(args.segments)
  found, others = reviews.read_predictions(path, folder, classes)
  if others:
    print(
      f'{path}: {len(others)} of its videos are not in {args.videos}: '
      f'{errors.few(others)}',
      file=sys.stderr,
    )
  return lambda _, name: found.get(name, ())


def _greet(args, folder, host, port, token):
  """Print where the page is, and who else can see it."""
  if args.host not in _LOOPBACK:
    print(
      f'listening on {host}: everyone who reaches this machine and learns the '
      'address below can see the videos and click, and nothing is encrypted '
      'on the way',
      file=sys.stderr,
    )
    host = socket.gethostname() if host in _ANY else host
  host = f'[{host}]' if ':' in host else host
  print(f'{len(folder)} videos, clicks of {args.annotator} in {args.clicks}')
  print(f'http://{host}:{port}/?token={token}', flush=True)


def main(argv: Sequence[str] | None = None) -> None:
  """Serve the page; a user error ends in one line and exit status 1."""
  with errors.one_line():
    serve(_parser().parse_args(argv))


if __name__ == '__main__':
  main()
