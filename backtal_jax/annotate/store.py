"""The files behind the page: nothing is called saved that is not on disk.

An event is first appended to the history (fsync), then the files it changes
are replaced atomically: `clicks.csv` and, of checkboxes, the labels file. If
either fails, the event is taken back and nothing has changed. A kill between
the two leaves files that lag behind by one event; the next start mends them.
One server at a time: the history is locked. Annotators that work one after
another share a file; each sees and undoes only what is their own.
"""

import collections
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Sequence

from etils import epath

from backtal_jax import errors, files
from backtal_jax.annotate import acts, history
from backtal_jax.annotate import labels as labels_file
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import annotations, click_formats

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

  Raises:
    errors.InputError: another server has the file; it is of another form, of
      another set of videos or classes, or was changed since its history.
  """

  def __init__(
    self,
    path: epath.Path,
    annotator: str,
    videos: Collection[str],
    classes: Sequence[str],
    labels: labels_file.Labels,
    measure: Callable[[str], float | None] = lambda name: None,
  ) -> None:
    self.path, self.who, self.labels = path, annotator, labels
    self._videos, self._measure = videos, measure
    self._mutex = threading.RLock()
    self.path.parent.mkdir(parents=True, exist_ok=True)
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
      self._log.seek(0)
      head, self.history, whole = history.parse(self._log.readall(), log)
      self._log.truncate(whole)
      if head:
        self._agree(clicks, log)
      else:
        self._import(clicks or [])
      found = self.history.clicks()
      self.classes = self._classes(classes, {c.label for c in found})
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
    except BaseException:
      empty = not os.fstat(self._log.fileno()).st_size
      self._log.close()
      if empty:
        log.unlink(missing_ok=True)
      raise

  def close(self) -> None:
    """Let others have the file."""
    self._log.close()

  def video(self, name: str) -> dict:
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
        'labels': self.labels.get(name),
        'duration': self.duration(name),
        'pictures': self._measure(name),
        'shown': past.durations.get(name),
      }

  def duration(self, name: str) -> float | None:
    """Return a video's seconds: the labels file's, its own, or the page's."""
    return next((x for x in self._durations(name) if x is not None), None)

  def _durations(self, name):
    yield self.labels.duration(name)
    yield self._measure(name)
    yield self.history.durations.get(name)

  def summary(self) -> list[list]:
    """Return [name, clicks, done] of every video."""
    with self._mutex:
      past, who = self.history, self.who
      return [
        [name, len(past.marks(name, who)), past.done(name, who)]
        for name in self._videos
      ]

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

  def act(self, request: dict) -> dict:
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
      if not isinstance(video, str) or video not in self._videos:
        raise errors.InputError(f'video {video!r} is not in the folder')
      event = {'kind': kind, 'video': video, 'key': key}
      event |= (
        {'of': undone['seq']}
        if undone
        else acts.details(request, self._known(video))
      )
      spent = formats.number(request.get('spent', 0), 'the time spent')
      if spent > 0:
        event['spent'] = round(min(spent, _LONGEST_SPENT), 3)
      event = self._save(event, undone)
      return self._answer(undone or event, video)

  def _known(self, video):
    # What was shown can be clicked, whatever a labels file says.
    told = (x for x in self._durations(video) if x is not None)
    return acts.Known(
      self.who, self.classes, self.history, self.labels.get(video),
      max(told, default=None),
    )  # fmt: skip

  def _answer(self, event, video):
    known = video in self._videos
    return {'event': event, 'video': self.video(video) if known else None}

  def _save(self, event, undone):
    event = {
      'seq': len(self.history.events) + history.FIRST,
      'at': round(time.time(), 3),
      'who': self.who,
      **event,
    }
    end = os.fstat(self._log.fileno()).st_size
    try:
      self._append([event])
      self.history.add(event)
      changed = undone or event
      if changed.keys() & {'add', 'remove'}:
        annotations.write_clicks(self.path, self.history.clicks())
      if 'labels' in changed:
        labels = changed['was' if undone else 'labels']
        video = event['video']
        self.labels.set(video, labels, self.duration(video))
    except BaseException:
      if self.history.events and self.history.events[-1] is event:
        self.history.pop()
      self._log.truncate(end)
      raise
    return event

  def _append(self, lines):
    text = ''.join(
      json.dumps(line, ensure_ascii=False) + '\n' for line in lines
    )
    data = memoryview(text.encode())
    while data:
      data = data[self._log.write(data) :]
    os.fsync(self._log.fileno())

  def _import(self, clicks):
    """Let the history begin with the clicks that are there."""
    names = [click.video for click in clicks]
    names, _ = annotations.match_names(names, self._videos)
    for number, click in enumerate(clicks, history.FIRST):
      self.history.add(
        {
          'seq': number,
          'at': round(time.time(), 3),
          'who': click.annotator,
          'kind': 'imported',
          'video': names.get(click.video, click.video),
          'add': [click.time, click.label],
        }
      )

  def _agree(self, clicks, log):
    """Refuse a click file that is not what its history says."""
    if clicks is None:
      return
    found, past = collections.Counter(clicks), self.history
    if found == collections.Counter(past.clicks()):
      return
    if past.events:
      last = past.pop()
      before = collections.Counter(past.clicks())
      past.add(last)
      if found == before:
        return
    raise errors.InputError(
      f'{self.path}: was changed by something else than the page since '
      f'{log.name}; move {log.name} away to go on from the file, or the file '
      'to go on from the history'
    )

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

  def _classes(self, classes, used):
    """Return the classes, in order, that may be used."""
    used = (used | self.labels.names()) - {annotations.BACKGROUND}
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
