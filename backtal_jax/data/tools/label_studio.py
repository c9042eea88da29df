"""Label Studio's exports of tasks on videos: JSON, JSON-MIN, CSV and TSV.

Marks on the timeline are frames, which count from 1 at the `frameRate` of the
labelling configuration, 24 if that has none, whatever the video's own rate.
"""

import base64
import collections
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import marks, tables

_TASK = {'annotations', 'completions', 'predictions'}  # and data
_ROW = {'annotation_id', 'annotator', 'lead_time'}
# What an upload's name begins with.
_UPLOAD = re.compile(r'^[0-9a-f]{8}-')
_READ = 'timelinelabels', 'labels of sound', 'videorectangle'


class _Result(NamedTuple):
  """A region of an annotation."""

  data: Mapping[str, Any]  # of the task
  target: str  # what it was made on
  annotator: str
  value: Any
  kind: str


def fits(data: object) -> bool:
  """Return whether a JSON file is an export, or one task of it."""
  tasks = data if isinstance(data, list) else [data]
  return all(
    isinstance(task, dict)
    and (('data' in task and _TASK & task.keys()) or _is_row(task))
    for task in tasks
  )


def _is_row(task: Mapping[str, Any]) -> bool:
  """Return whether an object is a row of JSON-MIN."""
  regions = [x for x in task.values() if isinstance(x, list) and x]
  return 'annotation_id' in task or any(
    isinstance(x[0], dict) and {'ranges', 'sequence'} & x[0].keys()
    for x in regions
  )


def read(path: epath.Path, data: Any) -> marks.Marks:
  """Read an export: timelines, regions of sound, boxes.

  What was skipped, and what is about a whole video, is left out.
  """
  left_out: collections.Counter[str] = collections.Counter()
  found = []
  for task in data if isinstance(data, list) else [data]:
    results = _results(task, left_out) if 'data' in task else _row(task)
    for result in results:
      made = _marks(result)
      if made is None:
        left_out[result.kind] += 1
        continue
      name = _video(path, result), result.annotator
      found += [(*name, *mark) for mark in made]
  if left_out and not found and set(left_out) != {'skipped annotation'}:
    raise errors.InputError(
      f'{path}: no {" or ".join(_READ)}, but {_listed(left_out)}; expected '
      'moments or intervals of a video'
    )
  note = (_listed(left_out),) if left_out else ()
  # Frames begin at 1, but at 0 in the files of some exporters.
  starts = [start for *_, start, _, unit in found if unit != 'seconds']
  first = {'seconds': 0.0, 'frames of the tool': min([1.0, *starts])}
  rows = [
    marks.Mark(
      number, video, (start - first[unit], end - first[unit]), label, who, unit
    )
    for number, (video, who, label, start, end, unit) in enumerate(found, 1)
  ]  # fmt: skip
  return marks.Marks('labelstudio', rows, [], note, True, _as_uploaded)


def fits_csv(text: str) -> bool:
  """Return whether a text is a CSV or TSV export."""
  return set(re.findall(r'\w+', text.partition('\n')[0])) >= _ROW


def read_csv(path: epath.Path, text: str) -> marks.Marks:
  """Read a CSV or TSV export, whose cells are those of JSON-MIN."""
  (_, header), *rows = tables.split(path, text, lambda x: set(x) >= _ROW)
  cells = lambda row: (json.loads(x) if x[:2] == '[{' else x for x in row)
  return read(
    path, [dict(zip(header, cells(row), strict=True)) for _, row in rows]
  )


def _results(
  task: Mapping[str, Any], left_out: collections.Counter[str]
) -> Iterator[_Result]:
  """Yield the regions of a task of the JSON export."""
  for annotation in task.get('annotations', task.get('completions', ())):
    if annotation.get('was_cancelled') or annotation.get('skipped'):
      left_out['skipped annotation'] += 1
      continue
    who = annotation.get('completed_by', '')
    for item in annotation['result']:
      yield _Result(
        task['data'], item.get('to_name', ''), _who(who),
        item.get('value', {}), item.get('type', 'region'),
      )  # fmt: skip


def _row(task: Mapping[str, Any]) -> Iterator[_Result]:
  """Yield the regions of a row of JSON-MIN: whatever lists objects."""
  for key, values in task.items():
    for value in values if isinstance(values, list) else ():
      if isinstance(value, dict):
        yield _Result(task, '', _who(task.get('annotator', '')), value, key)


def _who(said: object) -> str:
  return said.get('email', '') if isinstance(said, dict) else str(said)


def _marks(
  result: _Result,
) -> list[tuple[str, float, float, marks.Unit]] | None:
  """Return (label, start, end, unit) of a region, None of no stretch of time.

  A box of one key frame is a moment; of several, it lasts from one to the next
  that ends it, or to the end of the video.
  """
  value = result.value
  unit: marks.Unit = 'seconds'
  if 'ranges' in value:
    spans = [(x['start'], x['end']) for x in value['ranges']]
    unit, labels = 'frames of the tool', value.get('timelinelabels')
  elif 'sequence' in value:
    frame = value['duration'] / value['framesCount']
    labels = value.get('labels')
    spans = [
      (frame * (start - 1), frame * (end - 1))
      for start, end in _lifespans(value['sequence'], value['framesCount'])
    ]
  elif 'labels' in value and not {'text', 'startOffset'} & value.keys():
    spans, labels = [(value['start'], value['end'])], value['labels']
  else:
    return None
  return [
    (label, float(start), float(end), unit)
    for label in labels or ['']
    for start, end in spans
  ]


def _lifespans(sequence: Any, count: int) -> list[tuple[int, int]]:
  """Return (first, last) frame of each stretch in which a box is there."""
  frames = [key['frame'] for key in sequence]
  if len(frames) == 1:
    return [(frames[0], frames[0])]
  found, start = [], None
  for key in sequence:
    start = key['frame'] if start is None else start
    if not key.get('enabled', True):
      found.append((start, key['frame']))
      start = None
  return found if start is None else [*found, (start, count)]


def _video(path: epath.Path, result: _Result) -> str:
  """Return the video's name that a task's data have, in one of its fields."""
  texts = {k: v for k, v in result.data.items() if isinstance(v, str)}
  names = {key: _file(text) for key, text in texts.items()}
  is_video = lambda x: x.casefold().endswith(files.VIDEO_SUFFIXES)
  videos = {k: x for k, x in names.items() if is_video(x)}
  paths = {k: names[k] for k, x in texts.items() if re.search(r'[/\\]', x)}
  chosen = videos or paths or names
  if not chosen:
    raise errors.InputError(f'{path}: a task whose data name no video')
  file = chosen.get(result.target, next(iter(chosen.values())))
  if len({*videos.values()}) > 1 and result.target not in videos:
    raise errors.InputError(
      f'{path}: a task of several videos ({errors.few(videos.values())}), of '
      f'which none is called {result.target!r} as what was marked'
    )
  return marks.video_name(file)


def _file(text: str) -> str:
  """Return the file's path that a URL or path of a task means."""
  if '/resolve/?fileuri=' in text:  # of cloud storages, as the server lists it
    coded = urllib.parse.unquote(text.rpartition('?fileuri=')[2])
    text = base64.b64decode(f'{coded}===', altchars='-_').decode()
  if '?d=' in text:  # of local files
    return urllib.parse.unquote(text.rpartition('?d=')[2])
  if '://' in text or text.startswith('/data/'):
    path = urllib.parse.urlsplit(text).path
    text = path if '.' in path.rpartition('/')[2] else text
  folder, _, name = urllib.parse.unquote(text).rpartition('/')
  return _UPLOAD.sub('', name) if 'upload' in folder else name


def _as_uploaded(name: str) -> str:
  """Return what Label Studio leaves of a name: blanks to _, nothing odd."""
  return re.sub(r'[^-\w.]', '', name.strip().replace(' ', '_'))


def _listed(counts: collections.Counter[str]) -> str:
  plural = lambda n, kind: 's' * (n > 1 and kind[-1:] != 's')
  return ', '.join(f'{n} {kind}{plural(n, kind)}' for kind, n in counts.items())
