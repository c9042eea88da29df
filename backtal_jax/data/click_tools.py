"""Click files of annotation tools: VIA 3, Label Studio, BORIS, ELAN.

Read down to plain values, as `click_formats` does: a row is (number of the
entry, (video, time or (start, end), label, annotator or '')), in seconds but
for Label Studio, which counts frames. VIA 3 and ELAN are written, too.
"""

import collections
import json
import os
import re
import urllib.parse
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats as formats

INTERVALS = '', 'midpoint', 'complement'
# ELAN knows no moments: half of the seconds that a click is written as.
_HALF = 0.02
_BORIS = 'media file name', 'behavior'


def find(text: str) -> str | None:
  """Return the name of the tool whose file has this text, or None."""
  if re.match(r'\s*<(\?xml|!--|ANNOTATION_DOCUMENT)', text):
    return 'elan'
  if re.match(r'\s*\{', text):
    return 'via'
  if re.match(r'\s*\[\s*(\{|\])', text):
    return 'labelstudio'
  heads = text.casefold().splitlines()[:50]
  if any(all(name in line for name in _BORIS) for line in heads):
    return 'boris'
  return None


def read(tool: str, path: epath.PathLike, text: str) -> tuple[str, list, list]:
  """Read a file of the tool that `find` has found in its text.

  Returns:
    The tool, or 'frames' where times are such; the rows; and
    [(number of the entry, complaint)].

  Raises:
    errors.InputError: The file is damaged or of another kind.
  """
  if tool == 'boris':
    return (tool, *_read_boris(path, text))
  try:
    if tool == 'elan':
      return tool, _read_elan(path, ElementTree.fromstring(text)), []
    data = json.loads(text)
    if tool == 'via':
      return tool, _read_via(data), []
    return 'frames', _read_label_studio(data), []
  except errors.InputError:
    raise
  except (ElementTree.ParseError, ValueError, RecursionError) as e:
    raise errors.InputError(f'{path}: not a whole {tool} file: {e}') from e
  except (KeyError, TypeError, AttributeError, IndexError) as e:
    raise errors.InputError(
      f'{path}: not the shape of a {tool} file of clicks: {e!r}'
    ) from e


def moments(rows: Iterable, how: str, length: Any) -> tuple[list, list]:
  """Make moments of intervals.

  Args:
    rows: As `read` returns them.
    how: '' refuses intervals; 'midpoint' takes their middles; 'complement'
      clicks background in the middle of all that no interval covers.
    length: Returns the length of a video in the file's unit, or None.

  Returns:
    The rows, without intervals; and complaints.
  """
  found, problems = [], []
  covered = collections.defaultdict(list)
  for line, (video, time, label, own) in rows:
    if not isinstance(time, tuple):
      found.append((line, (video, time, label, own)))
      continue
    start, end = time
    if not start <= end:
      problems.append((line, f'an interval from {start:g} to {end:g}'))
    elif how == 'midpoint':
      found.append((line, (video, (start + end) / 2, label, own)))
    elif how == 'complement':
      covered[video, own].append((start, end, line, label))
    else:
      text = (
        f'an interval of {label!r}, {start:g} to {end:g}, expected a moment; '
        '--intervals midpoint or complement makes clicks of it'
      )
      problems.append((line, text))
  for (video, own), intervals in covered.items():
    line, end, reached = intervals[0][2], length(video), 0.0
    if end is None:
      problems.append((line, f'no duration of video {video!r}'))
      continue
    actions = [i[:2] for i in intervals if i[3] != 'background']
    for start, stop in [*sorted(actions), (end, end)]:
      if start > reached:
        middle = (reached + start) / 2
        found.append((line, (video, middle, 'background', own)))
      reached = max(reached, stop)
  return sorted(found, key=lambda row: row[0]), problems


def write_via(path: epath.PathLike, clicks: Iterable, suffix: str) -> None:
  """Write annotations.Click of any videos as a VIA 3 project, a JSON file.

  The suffix is the ending of the videos' files, which the project names.
  """
  clicks = list(clicks)
  videos = sorted({click.video for click in clicks})
  numbers = {name: str(i) for i, name in enumerate(videos, 1)}
  labels = sorted({click.label for click in clicks})
  text = {'anchor_id': 'FILE1_Z1_XY0', 'desc': '', 'default_option_id': ''}
  project = {
    'project': {
      'pid': '__VIA_PROJECT_ID__', 'rev': '__VIA_PROJECT_REV_ID__',
      'data_format_version': '3.1.1', 'pname': 'clicks',
      'vid_list': list(numbers.values()),
    },
    'config': {'file': {'loc_prefix': {'1': '', '2': '', '3': '', '4': ''}},
               'ui': {}},
    'attribute': {
      '1': text | {'aname': 'label', 'type': 4,
                   'options': {str(i): x for i, x in enumerate(labels)}},
      '2': text | {'aname': 'annotator', 'type': 1, 'options': {}},
    },
    'file': {
      n: {'fid': n, 'fname': f'{name}{suffix}', 'type': 4, 'loc': 1,
          'src': f'{name}{suffix}'}
      for name, n in numbers.items()
    },
    'view': {n: {'fid_list': [n]} for n in numbers.values()},
    'metadata': {
      f'{numbers[c.video]}_{i}': {
        'vid': numbers[c.video], 'flg': 0, 'z': [c.time], 'xy': [],
        'av': {'1': str(labels.index(c.label)), '2': c.annotator},
      }
      for i, c in enumerate(clicks)
    },
  }  # fmt: skip
  files.write_json(path, project)


def write_elan(folder: epath.PathLike, clicks: Iterable, suffix: str) -> None:
  """Write annotations.Click as ELAN files, one a video, a tier an annotator.

  ELAN knows intervals only: a click is one of 40 ms around it, shorter beside
  another click or the start, and comes back as its midpoint, to a millisecond.
  The folder gets VIDEO.eaf, which name VIDEO and its suffix.
  """
  by_video = collections.defaultdict(list)
  for click in sorted(clicks, key=lambda c: c.time):
    by_video[click.video].append(click)
  for video, found in by_video.items():
    text = ElementTree.tostring(
      _elan(found, f'{video}{suffix}'), 'UTF-8', xml_declaration=True
    )
    with files.atomic(os.path.join(folder, f'{video}.eaf')) as f:
      f.write(text)


def _elan(clicks, file):
  """Return the document of a video's clicks, which are in time order."""
  new, add = ElementTree.Element, ElementTree.SubElement
  root = new('ANNOTATION_DOCUMENT', AUTHOR='', DATE='1970-01-01T00:00:00+00:00',
             FORMAT='3.0', VERSION='3.0')  # fmt: skip
  header = add(root, 'HEADER', MEDIA_FILE='', TIME_UNITS='milliseconds')
  url = './' + urllib.parse.quote(file)
  add(header, 'MEDIA_DESCRIPTOR', MEDIA_URL=url, MIME_TYPE='video/*',
      RELATIVE_MEDIA_URL=url)  # fmt: skip
  order, tiers = add(root, 'TIME_ORDER'), {}
  times = sorted({click.time for click in clicks})
  for count, click in enumerate(clicks, 1):
    near = [abs(t - click.time) / 2 for t in times if t != click.time]
    half = max(min([_HALF, click.time, *near]), 0.0005)
    slots = f'ts{2 * count}', f'ts{2 * count + 1}'
    for slot, time in zip(slots, (-half, half), strict=True):
      value = str(max(0, round(1000 * (click.time + time))))
      add(order, 'TIME_SLOT', TIME_SLOT_ID=slot, TIME_VALUE=value)
    who = click.annotator
    if who not in tiers:
      tiers[who] = new(
        'TIER', LINGUISTIC_TYPE_REF='clicks', TIER_ID=who, ANNOTATOR=who
      )
    aligned = add(
      add(tiers[who], 'ANNOTATION'), 'ALIGNABLE_ANNOTATION',
      ANNOTATION_ID=f'a{count}', TIME_SLOT_REF1=slots[0],
      TIME_SLOT_REF2=slots[1],
    )  # fmt: skip
    add(aligned, 'ANNOTATION_VALUE').text = click.label
  root.extend(tiers.values())
  add(root, 'LINGUISTIC_TYPE', LINGUISTIC_TYPE_ID='clicks',
      TIME_ALIGNABLE='true', GRAPHIC_REFERENCES='false')  # fmt: skip
  ElementTree.indent(root)
  return root


def _video(path) -> str:
  """Return the video's name of the path of its file."""
  name = re.split(r'[/\\]', path)[-1]
  return re.sub(r'\.([A-Za-z]\w{1,3}|3gp)$', '', name)


def _time(times):
  """Return a moment, or (start, end) where that is later."""
  start, *end = (float(time) for time in times)
  return (start, end[-1]) if end and end[-1] != start else start


def _read_via(data):
  attributes, rows = data['attribute'], []
  for number, entry in enumerate(data['metadata'].values(), 1):
    if not entry['z']:  # about the whole video
      continue
    said = {}
    for key, value in entry['av'].items():
      named = attributes[key]['aname'].casefold()
      kind = 'annotator' if named == 'annotator' else 'label'
      text = attributes[key].get('options', {}).get(value, value)
      said.setdefault(kind, text)
    file = data['file'][str(data['view'][str(entry['vid'])]['fid_list'][0])]
    label, who = said.get('label', '').strip(), said.get('annotator', '')
    row = _video(file['fname']), _time(entry['z']), label, who
    rows.append((number, row))
  return rows


def _read_label_studio(data):
  found = []
  for task in data:
    url, *_ = (x for x in task['data'].values() if isinstance(x, str))
    # Of local files ?d=PATH; eight digits stand before what was uploaded.
    name = urllib.parse.unquote(url.rpartition('?d=')[2])
    video = _video(re.sub(r'(^|.*/)[0-9a-f]{8}-', '', name))
    for annotation in task['annotations']:
      who = annotation.get('completed_by', '')
      who = who.get('email', '') if isinstance(who, dict) else str(who)
      for item in annotation['result']:
        for label in item['value'].get('timelinelabels', ()):
          for span in item['value']['ranges']:
            times = float(span['start']), float(span['end'])
            found.append((video, times, label, who))
  # Frames count from 1, but some exporters begin at 0.
  first = min([1.0, *(start for _, (start, _), _, _ in found)])
  return [
    (number, (video, _time(t - first for t in times), label, who))
    for number, (video, times, label, who) in enumerate(found, 1)
  ]


def _read_elan(path, root):
  if root.tag != 'ANNOTATION_DOCUMENT':
    raise errors.InputError(f'{path}: <{root.tag}>, expected an ELAN file')
  media = root.find('HEADER/MEDIA_DESCRIPTOR')
  url = media.get('MEDIA_URL') if media is not None else ''
  video = _video(urllib.parse.unquote(url) or os.fspath(path))
  slots = {
    slot.get('TIME_SLOT_ID'): slot.get('TIME_VALUE')
    for slot in root.iterfind('TIME_ORDER/TIME_SLOT')
  }
  rows = []
  for tier in root.iterfind('TIER'):
    for found in tier.iterfind('ANNOTATION/ALIGNABLE_ANNOTATION'):
      ends = [slots[found.get(f'TIME_SLOT_REF{i}')] for i in (1, 2)]
      if None in ends:  # between two others, of no time of its own
        raise errors.InputError(
          f'{path}: annotation {found.get("ANNOTATION_ID")} has no time'
        )
      time = _time(float(end) / 1000 for end in ends)
      label = (found.findtext('ANNOTATION_VALUE') or '').strip()
      label, who = label or tier.get('TIER_ID'), tier.get('ANNOTATOR', '')
      rows.append((len(rows) + 1, (video, time, label, who)))
  return rows


def _read_boris(path, text):
  """Read BORIS's table of events, a row a POINT, START or STOP, or of both."""
  table = formats.split(path, text, '\t' if '\t' in text else ',')
  heads = [set(_BORIS) <= set(formats.lower(cells)) for _, cells in table]
  at = heads.index(True) if True in heads else 0
  line, header = table[at][0], formats.lower(table[at][1])
  if not heads[at] or not {'time', 'start (s)'} & set(header):
    raise errors.InputError(
      f"{path}:{line}: no column Time or Start (s), expected BORIS's events"
    )
  rows, problems, open_ = [], [], {}
  for line, cells in table[at + 1 :]:
    row = dict(zip(header, cells, strict=False))
    video, label = _video(row[_BORIS[0]]), row.get('behavior', '')
    kind = row.get('behavior type', 'point').upper()
    key = video, label, row.get('subject', '')
    try:
      if 'start (s)' in header:
        stop = row.get('stop (s)') or row['start (s)']
        time = _time((row['start (s)'], stop))
      elif kind == 'START':
        open_[key] = line, float(row['time'])
        continue
      elif kind == 'STOP':
        line, start = open_.pop(key)
        time = start, float(row['time'])
      elif kind == 'POINT':
        time = float(row['time'])
      else:
        problems.append((line, f'{kind!r}, expected POINT, START or STOP'))
        continue
    except KeyError:
      problems.append((line, f'a {kind} of {label!r} without its other end'))
    except ValueError:
      problems.append((line, f'a time of {label!r} that is no number'))
    else:
      rows.append((line, (video, time, label, '')))
  for (_, label, _), (line, _) in open_.items():
    problems.append((line, f'a START of {label!r} without its STOP'))
  return sorted(rows, key=lambda row: row[0]), problems
