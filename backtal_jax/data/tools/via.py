"""VIA 3, the VGG Image Annotator for video: its projects, and its CSV."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from backtal_jax import files
from backtal_jax.data import marks, tables

_CHECKBOX = 2  # an attribute of several options
_HEADER = '# CSV_HEADER = '
_DEFAULT = '_DEFAULT'  # the option where nobody chose one


def fits(data: object) -> bool:
  """Return whether a JSON file is a project of VIA 3."""
  return isinstance(data, dict) and {'metadata', 'attribute'} <= data.keys()


def read(path: epath.Path, data: Any) -> marks.Marks:
  """Read a project: an entry is a moment, an interval or a box on a frame.

  Its label is the first attribute that is not called annotator; entries about
  a whole video are left out.
  """
  found, timeless = [], 0
  for number, entry in enumerate(data['metadata'].values(), 1):
    if not entry['z']:
      timeless += 1
      continue
    file = data['file'][str(data['view'][str(entry['vid'])]['fid_list'][0])]
    video = marks.video_name(file['fname'])
    found += _entry(number, video, entry['z'], entry['av'], data['attribute'])
  return marks.Marks('via', found, [], _left_out(timeless), is_played=True)


def fits_csv(text: str) -> bool:
  """Return whether a text is one of VIA's two CSV exports."""
  return text.startswith('# Exported using VGG Image Annotator')


def read_csv(path: epath.Path, text: str) -> marks.Marks:
  """Read the export of everything, or that of temporal segments.

  The latter names options by their number, which says nothing.
  """
  header, attributes = '', None
  lines = text.splitlines()
  for i, line in enumerate(lines):
    if line.startswith(_HEADER):
      header = line.removeprefix(_HEADER)
    elif line.startswith('# ATTRIBUTE = '):
      attributes = json.loads(line.partition('= ')[2])
    if line.startswith('#'):
      lines[i] = ''
  columns, found, complaints = header.split(','), [], []
  timeless = 0
  for line, cells in tables.split(path, '\n'.join(lines)):
    row = dict(zip(columns, cells, strict=True))
    video = marks.video_name(json.loads(row['file_list'])[0])
    chosen, named = json.loads(row['metadata']), attributes
    if named is None:
      named = {name: {'aname': name} for name in chosen}
      times = [row['temporal_segment_start'], row['temporal_segment_end']]
      times = [time for time in times if time]
      if any(re.fullmatch(r'\d+(,\d+)*', x) for x in chosen.values()):
        complaints.append((line, (
          f'{row["metadata"]} numbers an option, whose name this export does '
          'not tell; expected the project or the CSV of everything'
        )))  # fmt: skip
        continue
    else:
      times = json.loads(row['temporal_coordinates'])
    if times:
      found += _entry(line, video, times, chosen, named)
    else:
      timeless += 1
  left_out = _left_out(timeless)
  return marks.Marks('via', found, complaints, left_out, is_played=True)


def _left_out(timeless: int) -> tuple[str, ...]:
  return (f'{timeless} entries about no time',) if timeless else ()


def _entry(
  line: int,
  video: str,
  times: Iterable[float | str],
  chosen: Mapping[str, str],
  attributes: Mapping[str, Any],
) -> list[marks.Mark]:
  """Return the marks of an entry: one, but for several boxes checked."""
  labels, who = None, ''
  for key, value in chosen.items():
    attribute = attributes[key]
    options = attribute.get('options', {})
    if value == _DEFAULT:
      value = options.get(attribute.get('default_option_id'), value)
    is_list = attribute.get('type') == _CHECKBOX
    values = [
      options.get(x, x) for x in (value.split(',') if is_list else [value])
    ]
    if attribute['aname'].casefold() == 'annotator':
      who = ','.join(values)
    elif labels is None:
      labels = [value.strip() for value in values]
  ends = [float(time) for time in times]
  time = ends[0], ends[-1]
  return [marks.Mark(line, video, time, x, who) for x in labels or ['']]


def write(
  path: epath.Path,
  clicks: Iterable[marks.Click],
  suffix: str,
  first_pictures: Mapping[str, float],
) -> None:
  """Write clicks of any videos as a VIA 3 project, a JSON file; see elan.write.

  A click is a `marks.span`: of one time, without a box, VIA shows nothing.
  """
  entries = [
    (click.video, click.label, click.annotator,
     marks.span(click.time + first_pictures.get(click.video, 0.0)))
    for click in clicks
  ]  # fmt: skip
  _write(path, entries, suffix, 'annotator', 'clicks')


def write_segments(
  path: epath.Path,
  segments: Iterable[marks.Segment],
  suffix: str,
  first_pictures: Mapping[str, float],
) -> None:
  """Write segments of any videos as a VIA 3 project, with their scores."""
  entries = []
  for segment in segments:
    first = first_pictures.get(segment.video, 0.0)
    score = '' if segment.score is None else f'{segment.score:.4g}'
    span = segment.start + first, segment.end + first
    entries.append((segment.video, segment.label, score, span))
  _write(path, entries, suffix, 'score', 'segments')


def _write(path, entries, suffix, second, name):
  """Write [(video, label, value of the second attribute, interval)]."""
  videos = sorted({video for video, *_ in entries})
  numbers = {name: str(i) for i, name in enumerate(videos, 1)}
  labels = sorted({label for _, label, *_ in entries})
  text = {'anchor_id': 'FILE1_Z2_XY0', 'desc': '', 'default_option_id': ''}
  project = {
    'project': {
      'pid': '__VIA_PROJECT_ID__', 'rev': '__VIA_PROJECT_REV_ID__',
      'data_format_version': '3.1.1', 'pname': name,
      'vid_list': list(numbers.values()),
    },
    'config': {'file': {'loc_prefix': {'1': '', '2': '', '3': '', '4': ''}},
               'ui': {}},
    'attribute': {
      '1': text | {'aname': 'label', 'type': 4,
                   'options': {str(i): x for i, x in enumerate(labels)}},
      '2': text | {'aname': second, 'type': 1, 'options': {}},
    },
    'file': {
      n: {'fid': n, 'fname': f'{video}{suffix}', 'type': 4, 'loc': 1,
          'src': f'{video}{suffix}'}
      for video, n in numbers.items()
    },
    'view': {n: {'fid_list': [n]} for n in numbers.values()},
    'metadata': {
      f'{numbers[video]}_{i}': {
        'vid': numbers[video], 'flg': 0, 'xy': [], 'z': span,
        'av': {'1': str(labels.index(label)), '2': value},
      }
      for i, (video, label, value, span) in enumerate(entries)
    },
  }  # fmt: skip
  files.write_json(path, project)
