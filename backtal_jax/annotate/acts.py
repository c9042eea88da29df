"""What the page asks for, checked, as the fields of an event (see history)."""

from collections.abc import Sequence
from typing import NamedTuple

from backtal_jax import errors
from backtal_jax.annotate import history
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import marks


class Known(NamedTuple):
  """What a request is checked against."""

  who: str  # the annotator
  classes: Sequence[str]
  past: history.History
  labels: list[str]  # of the video, now
  end: float | None  # seconds of the video, as far as anybody knows


def details(request: history.Event, known: Known) -> history.Event:
  """Return the fields that an event of the request's kind has.

  The request is that of store.Store.act, on a video of the folder.

  Raises:
    errors.InputError: It makes no sense.
  """
  kind, video = request['kind'], request['video']
  if kind == 'spent':
    return {}
  if kind == 'opened':
    seconds = formats.number(request.get('duration'), 'the duration')
    if seconds <= 0:
      raise errors.InputError(f'the duration is {seconds}, expected more')
    return {'duration': seconds}
  if kind == 'done':
    return {'done': bool(request.get('done'))}
  if kind == 'labels':
    return {'labels': _labels(request, known), 'was': known.labels}
  if kind == 'click':
    time = _time(request.get('time'), video, known.end)
    return {'add': [time, _label(request, known)]}
  if kind == 'remove':
    return {'remove': _mark(request, known).seq}
  if kind == 'answer':
    return _reply(request, known)
  if kind == 'review':
    return {'segments': _segments(request, known)}
  if kind == 'reviewed':
    return {'reviewed': bool(request.get('reviewed'))}
  raise errors.InputError(f'kind {kind!r}, expected a click or the like')


def _labels(request, known):
  labels = request.get('labels')
  if not isinstance(labels, list) or any(
    label not in known.classes for label in labels
  ):
    raise errors.InputError(f'labels {labels!r}, expected some of the classes')
  return [label for label in known.classes if label in labels]


def _segments(request, known):
  """Return what a review says; it is complete, whatever is proposed now."""
  said = request.get('segments')
  if not isinstance(said, dict) or not said:
    raise errors.InputError(f'segments {said!r}, expected some by name')
  found = {}
  for name, values in said.items():
    if not isinstance(values, list) or len(values) != 4:
      raise errors.InputError(
        f'segment {values!r}, expected [start, end, label, verdict]'
      )
    *times, label, verdict = values
    start, end = (_time(x, request['video'], known.end) for x in times)
    marks.require_segment(start, end, known.end)
    _require_class(label, known)
    if verdict not in history.VERDICTS:
      raise errors.InputError(
        f'verdict {verdict!r}, expected one of {", ".join(history.VERDICTS)}'
      )
    found[name] = [start, end, label, verdict]
  return found


def _reply(request, known):
  """Return the fields of the answer to a proposal."""
  time = _time(request.get('time'), request['video'], known.end)
  said = request.get('answer')
  if said not in ('background', 'action', 'skip'):
    raise errors.InputError(f'answer {said!r}, expected background, action')
  label = marks.BACKGROUND if said == 'background' else None
  if said == 'action' and request.get('label'):
    label = _label(request, known)
  if request.get('click') is None:
    return {'add': [time, label]} if label else {'note': time}
  mark = _mark(request, known)
  agreed = (mark.label == marks.BACKGROUND) == (said == 'background')
  if said == 'skip' or agreed:
    return {'note': time}
  added = {'add': [mark.time, label]} if label else {}
  return {'remove': mark.seq, 'note': time} | added


def _time(value, video, end):
  seconds = formats.number(value, 'the time')
  if end is None:
    raise errors.InputError(f'video {video!r} was not opened yet')
  if not 0 <= seconds <= end + marks.BEYOND:
    raise errors.InputError(f'the time is {seconds:g} s, expected 0…{end:g} s')
  return round(min(seconds, end), 6)


def _label(request, known):
  label = request.get('label', marks.BACKGROUND)
  if label != marks.BACKGROUND:
    _require_class(label, known)
  return label


def _require_class(label, known):
  if label not in known.classes:
    raise errors.InputError(f'class {label!r}, expected one of the classes')


def _mark(request, known):
  for mark in known.past.marks(request['video'], known.who):
    if mark.seq == request.get('click'):
      return mark
  raise errors.InputError('no such click (removed in another tab?)')
