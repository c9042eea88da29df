"""The history of a click file: everything that was done, a JSON line each.

`clicks.csv.log` lies beside `clicks.csv` and is only ever appended to. Its
first line identifies it and says how many clicks it began with; every other
line is an event:

  seq, at     number of the line, seconds since 1970
  kind        one of KINDS
  who, video  annotator and video
  key         the page's name for the event: sent twice, it is done once
  add         [time, label]: a click, whose number is this event's
  remove      number of a click that is no more
  note        time of a moment that needs no proposal any more
  labels, was the video's labels, now and before
  done        whether the annotator is through with the video
  segments    {name: [start, end, label, verdict]}: what a review says of
              segments from here on, in seconds, and one of VERDICTS
  learn       whether these segments are clicks, too
  reviewed    whether the video's segments are its ground truth
  duration    of the video, seconds
  of          number of the event that an undo takes back
  spent       seconds of work since the event before, pauses left out
"""

import collections
from typing import Any, NamedTuple

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotations

UNDOABLE = (
  'click', 'remove', 'answer', 'labels', 'done', 'review', 'reviewed'
)  # fmt: skip
VERDICTS = ACCEPTED, REJECTED = 'accepted', 'rejected'
# The number of the first event: that of its line.
FIRST = 2
KINDS = (*UNDOABLE, 'undo', 'opened', 'spent', 'imported')
# A line, see above.
Event = dict[str, Any]


class Mark(NamedTuple):
  """A click that stands, and the number by which it is removed."""

  seq: int
  time: float  # seconds
  label: str
  who: str


class Judged(NamedTuple):
  """What a review says of a segment; in seconds."""

  start: float
  end: float
  label: str
  verdict: str
  who: str
  learn: bool  # whether it is a click, too


def log_path(clicks: epath.Path) -> epath.Path:
  """Return where the history of a click file lies."""
  return files.path(f'{clicks}.log')


class History:
  """What the events add up to; `add` one, or take the last one away.

  Attributes:
    events: in their order.
    durations: {video: seconds}, where the page has told, the last time.
    seconds: {(annotator, video): seconds of work}.
    keys: Keys of all events that have one.
  """

  def __init__(self) -> None:
    self.events, self.durations, self.keys = [], {}, set()
    self.seconds = collections.Counter()
    self._undone = set()
    self._changes = collections.defaultdict(list)  # of a video
    self._marks = collections.defaultdict(dict)  # of a video, by number
    self._judged = collections.defaultdict(dict)  # of a video, by name
    self._reviewed: dict[str, bool] = {}  # by video

  def add(self, event: Event) -> None:
    """Take in an event."""
    video = event['video']
    self.events.append(event)
    self.keys |= {event['key']} if 'key' in event else set()
    self.seconds[event['who'], video] += event.get('spent', 0)
    if 'duration' in event:
      self.durations[video] = event['duration']  # it may grow in playing
    if 'of' in event:
      self._undone.add(event['of'])
      self._replay(video)
    elif event['kind'] not in ('opened', 'spent'):
      self._changes[video].append(event)
      self._apply(event)

  def pop(self) -> Event:
    """Forget the last event, which could not be written, and return it."""
    event = self.events.pop()
    video = event['video']
    self.keys.discard(event.get('key'))
    self.seconds[event['who'], video] -= event.get('spent', 0)
    self._undone.discard(event.get('of'))
    if event in self._changes[video][-1:]:
      self._changes[video].pop()
    self._replay(video)
    return event

  def marks(self, video: str, who: str) -> list[Mark]:
    """Return an annotator's clicks that stand on a video, by time."""
    found = self._marks.get(video, {}).values()
    return sorted((m for m in found if m.who == who), key=lambda m: m[1:])

  def clicks(self) -> list[annotations.Click]:
    """Return all clicks that stand, by video and time."""
    found = [
      annotations.Click(video, m.time, m.label, m.who)
      for video, marks in self._marks.items()
      for m in marks.values()
    ]
    found += [c for video in self._judged for c in self._learn(video)]
    key = lambda click: (click.video, click.time, click.label, click.annotator)
    return sorted(found, key=key)

  def segments(self, video: str) -> dict[str, Judged]:
    """Return what reviews said of a video's segments, of all annotators."""
    return dict(self._judged.get(video, ()))

  def learns(self, video: str) -> bool:
    """Return whether segments of a video ever were clicks, undone or not."""
    return any('learn' in event for event in self._changes.get(video, ()))

  def reviewed(self) -> list[str]:
    """Return the videos whose segments are ground truth, by name."""
    return sorted(video for video, is_so in self._reviewed.items() if is_so)

  def is_reviewed(self, video: str) -> bool:
    """Return whether a video's segments are ground truth, whoever said so."""
    return self._reviewed.get(video, False)

  def undoable(self, who: str) -> Event | None:
    """Return the last event that an undo of an annotator takes back."""
    found = (
      event
      for event in reversed(self.events)
      if event['who'] == who
      and event['kind'] in UNDOABLE
      and event['seq'] not in self._undone
    )
    return next(found, None)

  def done(self, video: str, who: str) -> bool:
    """Return whether an annotator called a video done."""
    return any(self._told(video, who, 'done')[-1:])

  def notes(self, video: str, who: str) -> list[float]:
    """Return the times that an annotator answered without a click."""
    return self._told(video, who, 'note')

  def _told(self, video, who, field):
    return [
      e[field]
      for e in self._changes.get(video, ())
      if field in e and e['who'] == who and e['seq'] not in self._undone
    ]

  def _replay(self, video):
    self._marks[video], self._judged[video] = {}, {}
    self._reviewed[video] = False
    for event in self._changes[video]:
      if event['seq'] not in self._undone:
        self._apply(event)

  def _apply(self, event):
    marks, who = self._marks[event['video']], event['who']
    marks.pop(event.get('remove'), None)
    if 'add' in event:
      marks[event['seq']] = Mark(event['seq'], *event['add'], who)
    if 'reviewed' in event:
      self._reviewed[event['video']] = event['reviewed']
    for name, said in event.get('segments', {}).items():
      learn = event.get('learn', False)
      self._judged[event['video']][name] = Judged(*said, who, learn)

  def _learn(self, video):
    """Return the clicks that the judged segments of a video are.

    The middle of a rejected one is no background where an accepted one lies.
    """
    judged = self._judged[video].values()
    accepted = [x for x in judged if x.verdict == ACCEPTED]
    found = []
    for x in judged:
      time, label = round((x.start + x.end) / 2, 6), x.label
      if x.verdict == REJECTED:
        label = annotations.BACKGROUND
        if any(other.start <= time <= other.end for other in accepted):
          continue
      if x.learn:
        who = f'{x.who} (review)'
        found.append(annotations.Click(video, time, label, who))
    return found


def parse(text: bytes, path: epath.Path) -> tuple[Event, History, int]:
  """Read a history; the path is what errors name.

  Returns:
    The first line's object, or {} of an empty file; the history; the bytes up
    to the end of the last whole line: what a kill has cut off after that was
    never reported as saved.

  Raises:
    errors.InputError: A line that is no event, or not the next one.
  """
  head, history, whole = {}, History(), text.rfind(b'\n') + 1
  for number, line in enumerate(text[:whole].splitlines(), 1):
    try:
      event = files.parse_json(line, path)
      if number == 1:
        head, imported = event, int(event['imported'])
        head['history'] += ''
        continue
      if event['seq'] != number or event['kind'] not in KINDS:
        raise ValueError(f'event {event["seq"]}, expected event {number}')
      history.add(event)
    except (ValueError, KeyError, TypeError) as e:
      raise errors.InputError(
        f'{path}:{number}: {line[:80]!r} is no line of a click history: {e!r}'
      ) from e
  if head and len(history.events) < imported:  # killed when it began
    return {}, History(), 0
  return head, history, whole


def rates(clicks: epath.Path) -> dict[str, dict[str, float]]:
  """Count the time that the clicks of a file took, where it has a history.

  Returns:
    {annotator: {'clicks' (made in the page, that stand), 'seconds'}} of
    those who spent any time.
  """
  path = log_path(clicks)
  if not path.is_file():
    return {}
  _, history, _ = parse(path.read_bytes(), path)
  seconds, counts = collections.Counter(), collections.Counter()
  for (who, video), spent in history.seconds.items():
    seconds[who] += spent
    marks = history.marks(video, who)
    events = [history.events[mark.seq - FIRST] for mark in marks]
    counts[who] += sum(event['kind'] != 'imported' for event in events)
  return {
    who: {'clicks': counts[who], 'seconds': spent}
    for who, spent in sorted(seconds.items())
    if spent
  }
