"""The files behind the page: nothing is called saved that is not on disk.

An event is first appended to the history (fsync), then the files it changes
are replaced atomically: `clicks.csv`, of checkboxes the labels file, of reviews
the annotations. If one fails, the event is taken back and nothing has changed.
A kill in between leaves files that lag behind by one event; the next start
mends them. One server at a time: the history is locked. Annotators that work
one after another share a file; each sees and undoes only what is their own,
but for reviews, which all see.
"""

import collections
import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from etils import epath

from backtal_jax import errors, files
from backtal_jax.annotate import acts, history, reviews
from backtal_jax.annotate import labels as labels_file
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import annotations, click_formats, video_names

_LONGEST_SPENT = 3600.0


class Store:
  """A click file that is being worked on.

  Args:
    path: Of the click file in our own form; it need not be there.
    annotator: Name of who clicks.
    videos: Names that may be clicked.
    classes: Names in order; () takes those of the files.
    labels: The labels of the videos.
    measure: Returns the seconds of a video's pictures, None where nothing but
      the page can tell.
    annotated: What reviews write.
    learn: Whether what is judged becomes clicks, too.

  Raises:
    errors.InputError: Another server has the file; it is of another form, of
      another set of videos or classes, or was changed since its history.
  """

  def __init__(
    self,
    path: epath.Path,
    annotator: str,
    videos: Collection[str],
    classes: Sequence[str],
    labels: labels_file.Labels,
    measure: Callable[[str], float | None],
    annotated: reviews.File,
    learn: bool = False,
  ) -> None:
    self.path, self.who, self.labels = path, annotator, labels
    self.annotated, self._learn = annotated, learn
    self.names, self._measure = videos, measure
    self._mutex = threading.RLock()
    files.make_folder(self.path.parent)
    log = history.log_path(path)
    self._log = open(log, 'a+b', buffering=0)  # noqa: SIM115, closed below
    try:
      files.lock(
        self._log,
        log,
        f'{self.path}: another server works on it ({log} is locked); end that '
        'one, or give every annotator a file: `prepare custom --clicks` takes '
        'several',
      )
      clicks = _read_own(self.path)
      reviewed = annotated.read()
      self._log.seek(0)
      head, self.history, whole = history.parse(self._log.readall(), log)
      self._log.truncate(whole)
      if head:
        self._agree(clicks, reviewed, log)
      else:
        self._import(clicks or [], reviewed)
      found = self.history.clicks()
      self.classes = self._classes(classes, found)
      known = {click.video for click in found}
      self.missing = sorted(known.difference(videos))
      if known and len(self.missing) == len(known):
        raise errors.InputError(
          f'{path}: none of its {len(known)} videos is in the folder, e.g. '
          f'{self.missing[0]!r}; expected clicks of the same set'
        )
      self.id = head.get('history') or secrets.token_hex(8)
      if not head:
        events = self.history.events
        self._append([{'history': self.id, 'imported': len(events)}, *events])
      self._mend_labels()
      if clicks != found:
        annotations.write_clicks(self.path, found)
      if not annotated.is_of(reviewed, self.history):
        self._annotate()
    except BaseException:
      empty = not os.fstat(self._log.fileno()).st_size
      self._log.close()
      if empty:
        log.unlink(missing_ok=True)
      raise

  def close(self) -> None:
    """Let others have the file."""
    self._log.close()

  def video(self, name: str) -> dict[str, Any]:
    """Return what the page shows of a video: this annotator's work."""
    with self._mutex:
      past = self.history
      return {
        'name': name,
        'clicks': [
          {'id': m.seq, 'time': m.time, 'label': m.label}
          for m in past.marks(name, self.who)
        ],
        'done': past.done(name, self.who),
        'seconds': round(past.seconds[self.who, name], 1),
        'segments': {key: x[:4] for key, x in past.segments(name).items()},
        'reviewed': past.is_reviewed(name),
        'labels': self.labels.get(name),
        'duration': self.duration(name),
        'pictures': self._measure(name),
        'shown': past.durations.get(name),
      }

  def duration(self, name: str) -> float | None:
    """Return a video's seconds: the labels file's, its own, or the page's."""
    return next(self._durations(name), None)

  def _durations(self, name):
    tell = self.labels.duration, self._measure, self.history.durations.get
    return (x for one in tell if (x := one(name)) is not None)

  def summary(self) -> list[list[Any]]:
    """Return [name, clicks, done, reviewed] of every video."""
    with self._mutex:
      past, who = self.history, self.who
      return [
        [
          name, len(past.marks(name, who)), past.done(name, who),
          past.is_reviewed(name),
        ]
        for name in self.names
      ]  # fmt: skip

  def judged(self, name: str) -> dict[str, history.Judged]:
    """Return what reviews say of a video's segments."""
    with self._mutex:
      return self.history.segments(name)

  def spoken(
    self, name: str
  ) -> tuple[list[annotations.Click], list[annotations.Click]]:
    """Return a video's clicks; and its answers without one, as clicks."""
    with self._mutex:
      past, who = self.history, self.who
      return [
        annotations.Click(name, m.time, m.label, who)
        for m in past.marks(name, who)
      ], [annotations.Click(name, t, '', who) for t in past.notes(name, who)]

  def act(self, request: history.Event) -> dict[str, Any]:
    """Do and save what the page asks for.

    Args:
      request: an event's kind, video, key and spent, and by kind: time and
        label (click), click (remove), labels, done, duration (opened); an
        answer has time, answer (background, action or skip), perhaps label
        and click, the number of the one that is checked again.

    Returns:
      {'event': what was done or, of an undo, undone (None if nothing was);
      'video': as `video`}.

    Raises:
      errors.InputError: the request makes no sense; nothing was done.
      OSError: it could not be saved; nothing was done.
    """
    with self._mutex:
      kind, video = request.get('kind'), request.get('video')
      key = str(request.get('key') or secrets.token_hex(8))[:64]
      undone = self.history.undoable(self.who) if kind == 'undo' else None
      if undone:
        video = undone['video']
      if key in self.history.keys or (kind == 'undo' and not undone):
        return self._answer(None, video)
      if not isinstance(video, str) or video not in self.names:
        raise errors.InputError(f'video {video!r} is not in the folder')
      if undone:
        fields = {'of': undone['seq']}
      else:
        known = acts.Known(
          self.who, self.classes, self.history, self.labels.get(video),
          self.end(video),
        )  # fmt: skip
        fields = acts.details(request, known)
      event = self._event(kind, video, {'key': key, **fields})
      if 'segments' in event and self._learn:
        event['learn'] = True
      spent = formats.number(request.get('spent', 0), 'the time spent')
      if spent > 0:
        event['spent'] = round(min(spent, _LONGEST_SPENT), 3)
      self._save(event, undone)
      return self._answer(undone or event, video)

  def end(self, name: str) -> float | None:
    """Return the most seconds that anything tells of a video.

    What was shown can be clicked, whatever a labels file says.
    """
    return max(self._durations(name), default=None)

  def _answer(self, event, video):
    known = video in self.names
    return {'event': event, 'video': self.video(video) if known else None}

  def _save(self, event, undone):
    end, changed = os.fstat(self._log.fileno()).st_size, undone or event
    try:
      self._append([event])
      self.history.add(event)
      is_truth = self.history.is_reviewed(event['video'])
      if 'reviewed' in changed or ('segments' in changed and is_truth):
        self._annotate()
      learns = 'segments' in changed and self.history.learns(event['video'])
      if learns or changed.keys() & {'add', 'remove'}:
        annotations.write_clicks(self.path, self.history.clicks())
      if 'labels' in changed:
        labels = changed['was' if undone else 'labels']
        video = event['video']
        self.labels.set(video, labels, self.duration(video))
    except BaseException:
      if self.history.events and self.history.events[-1] is event:
        self.history.pop()
        if 'segments' in changed:  # of two files, one was written
          with contextlib.suppress(OSError):
            self._annotate()
      self._log.truncate(end)
      raise

  def _annotate(self):
    """Write the annotations that reviews have made."""
    self.annotated.write(self.history, self.duration, self.classes)

  def _append(self, lines):
    text = ''.join(
      json.dumps(line, ensure_ascii=False) + '\n' for line in lines
    )
    data = memoryview(text.encode())
    while data:
      data = data[self._log.write(data) :]
    os.fsync(self._log.fileno())

  def _import(self, clicks, reviewed):
    """Let the history begin with what is there."""
    names = [click.video for click in clicks]
    names, _ = video_names.match(names, self.names)
    for click in clicks:
      event = {'add': [click.time, click.label], 'who': click.annotator}
      video = names.get(click.video, click.video)
      self.history.add(self._event('imported', video, event))
    names, _ = video_names.match(reviewed, self.names)
    for name, video in reviewed.items():
      segments = {
        f'imported {i}': [x.start, x.end, x.label, history.ACCEPTED]
        for i, x in enumerate(video.segments)
      }
      event = {'segments': segments, 'reviewed': True}
      if video.duration:
        event['duration'] = video.duration
      self.history.add(self._event('imported', names.get(name, name), event))

  def _event(self, kind, video, fields):
    """Return the event that comes next."""
    return {
      'seq': len(self.history.events) + history.FIRST,
      'at': round(time.time(), 3),
      'who': self.who,
      'kind': kind,
      'video': video,
      **fields,
    }

  def _agree(self, clicks, reviewed, log):
    """Refuse files that are not what their history says, now or before."""
    wrong = self._wrong(clicks, reviewed)
    if wrong and self.history.events:
      last = self.history.pop()
      before = self._wrong(clicks, reviewed)
      self.history.add(last)
      # Each of the files may lag behind.
      wrong = [path for path in wrong if path in before]
    if wrong:
      raise errors.InputError(
        f'{wrong[0]}: was changed by something else than the page since '
        f'{log.name}; move {log.name} away to go on from the file, or the file '
        'to go on from the history'
      )

  def _wrong(self, clicks, reviewed):
    """Return the paths of the files that are not what the history says."""
    found, past = collections.Counter(clicks or ()), self.history
    wrong = []
    if clicks is not None and found != collections.Counter(past.clicks()):
      wrong.append(self.path)
    file = self.annotated
    if file.path.exists() and not file.is_of(reviewed, past):
      wrong.append(file.path)
    return wrong

  def _mend_labels(self):
    """Write the labels of the last event, had a kill come before them."""
    for event in self.history.events[-1:]:
      old, new = 'was', 'labels'
      if 'of' in event:
        event = self.history.events[event['of'] - history.FIRST]
        old, new = new, old
      video = event['video']
      if new in event and self.labels.get(video) == event[old]:
        self.labels.set(video, event[new], self.duration(video))

  def _classes(self, classes, clicks):
    """Return the classes, in order, that may be used."""
    used = {click.label for click in clicks} | self.labels.names()
    for video in self.history.reviewed():
      used |= {x.label for x in self.history.segments(video).values()}
    used -= {annotations.BACKGROUND}
    for label in sorted(used.difference(classes)) if classes else ():
      raise errors.InputError(
        f'{self.path} or {self.labels.path}: class {label!r} is unknown, '
        f'expected one of {", ".join(classes)}'
      )
    return tuple(classes) or tuple(sorted(used))


def _read_own(path):
  """Return the clicks of a file in our own form, or None without one."""
  if not path.exists():
    return None
  format = click_formats.read(path).format
  if format != 'csv':
    raise errors.InputError(
      f'{path}: {format} clicks, expected our own CSV of '
      f'{",".join(click_formats.HEADER)}: `prepare convert-clicks` '
      'writes that'
    )
  return annotations.read_clicks(path)[0]
