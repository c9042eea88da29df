"""Click files of annotation tools: VIA 3, Label Studio, BORIS, ELAN.

Read down to plain values, as `annotation_formats` does: a row is (video, time
or (start, end), label, annotator or ''), in seconds but for Label Studio, which
counts frames. VIA 3 and ELAN are written, too.
"""

import collections
import json
import os
import re
import urllib.parse
from typing import Any
from xml.etree import ElementTree

from etils import epath

from backtal_jax import errors, files

INTERVALS = '', 'midpoint', 'complement'
# ELAN knows no moments: half of the seconds that a click is written as.
_HALF = 0.02
_BORIS = 'media file name', 'behavior'


def find(text: str) -> Any:
  """Return the name of the tool whose file has this text, or None."""
  if re.match(r'\s*<(\?xml|!--|ANNOTATION_DOCUMENT)', text):
    return 'elan'
  if re.match(r'\s*\{', text):
    return 'via'
  if re.match(r'\s*\[\s*(\{|\])', text):
    return 'labelstudio'
  if any(
    all(name in line.casefold() for name in _BORIS)
    for line in text.splitlines()[:50]
  ):
    return 'boris'
  return None


def read(
  tool: Any, path: epath.PathLike, text: str, split: Any
) -> tuple[str, list, list]:
  """Read a file of a tool.

  Args:
    tool: What `find` returns.
    path: Named in errors.
    text: Content of the file.
    split: Splits CSV of a delimiter into (line number, cells).

  Returns:
    The tool, or 'frames' where times are such; [(number of the entry, row)];
    and [(number of the entry, complaint)].

  Raises:
    errors.InputError: The file is damaged or of another kind.
  """
  if tool == 'boris':
    return (tool, *_read_boris(path, text, split))
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


def moments(rows: Any, how: str | None, length: Any) -> tuple[list, list]:
  """Make moments of intervals.

  Args:
    rows: As `read` returns them.
    how: '' refuses intervals; 'midpoint' takes their middles; 'complement'
      clicks background in the middle of all that no interval covers.
    length: Returns the length of a video in the file's unit, or None.

  Returns:
    The rows, without intervals; and complaints.
  """
  if how not in INTERVALS:
    raise errors.InputError(
      f'intervals is {how!r}, expected midpoint or complement'
    )
  found, problems = [], []
  covered = collections.defaultdict(list)
  for line, (video, time, label, own) in rows:
    if not isinstance(time, tuple):
      found.append((line, (video, time, label, own)))
    elif not time[0] <= time[1]:
      problems.append((line, f'an interval from {time[0]:g} to {time[1]:g}'))
    elif how == 'midpoint':
      found.append((line, (video, sum(time) / 2, label, own)))
    elif how == 'complement':
      covered[video, own].append((*time, line, label))
    else:
      problems.append(
        (
          line,
          f'an interval of {label!r}, {time[0]:g} to {time[1]:g}, expected a '
          'moment; --intervals midpoint or complement makes clicks of it',
        )
      )
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


def write_via(path: epath.PathLike, clicks: Any, suffix: str) -> None:
  """Write clicks as a VIA 3 project.

  Args:
    path: Of the JSON file.
    clicks: Annotations.Click of any videos.
    suffix: Ending of the videos' files, which the project names.
  """
  videos = sorted({click.video for click in clicks})
  numbers = {name: str(i) for i, name in enumerate(videos, 1)}
  labels = sorted({click.label for click in clicks})
  text = {'anchor_id': 'FILE1_Z1_XY0', 'desc': '', 'default_option_id': ''}
  metadata = {
    f'{numbers[click.video]}_{i}': {
      'vid': numbers[click.video], 'flg': 0, 'z': [click.time], 'xy': [],
      'av': {'1': str(labels.index(click.label)), '2': click.annotator},
    }
    for i, click in enumerate(clicks)
  }  # fmt: skip
  project = {
    'project': {
      'pid': '__VIA_PROJECT_ID__', 'rev': '__VIA_PROJECT_REV_ID__',
      'data_format_version': '3.1.1', 'pname': 'clicks', 'vid_list':
      list(numbers.values()),
    },
    'config': {'file': {'loc_prefix': {'1': '', '2': '', '3': '', '4': ''}},
               'ui': {}},
    'attribute': {
      '1': text | {'aname': 'label', 'type': 4, 'options':
                   {str(i): label for i, label in enumerate(labels)}},
      '2': text | {'aname': 'annotator', 'type': 1, 'options': {}},
    },
    'file': {
      n: {'fid': n, 'fname': f'{name}{suffix}', 'type': 4, 'loc': 1,
          'src': f'{name}{suffix}'}
      for name, n in numbers.items()
    },
    'view': {n: {'fid_list': [n]} for n in numbers.values()},
    'metadata': metadata,
  }  # fmt: skip
  files.write_json(path, project)


def write_elan(folder: epath.PathLike, clicks: Any, suffix: str) -> Any:
  """Write clicks as ELAN files, one a video, a tier an annotator.

  ELAN knows intervals only: a click is one of 40 ms around it, shorter beside
  another click or the start, and comes back as its midpoint, to a millisecond.

  Args:
    folder: Gets VIDEO.eaf.
    clicks: Annotations.Click of any videos.
    suffix: Ending of the videos' files, which the files name.
  """
  by_video = collections.defaultdict(list)
  for click in sorted(clicks, key=lambda c: c.time):
    by_video[click.video].append(click)
  for video, found in by_video.items():
    root = ElementTree.Element(
      'ANNOTATION_DOCUMENT', AUTHOR='', DATE='1970-01-01T00:00:00+00:00',
      FORMAT='3.0', VERSION='3.0',
    )  # fmt: skip
    header = ElementTree.SubElement(
      root, 'HEADER', MEDIA_FILE='', TIME_UNITS='milliseconds'
    )
    url = './' + urllib.parse.quote(f'{video}{suffix}')
    ElementTree.SubElement(
      header, 'MEDIA_DESCRIPTOR', MEDIA_URL=url, MIME_TYPE='video/*',
      RELATIVE_MEDIA_URL=url,
    )  # fmt: skip
    order = ElementTree.SubElement(root, 'TIME_ORDER')
    tiers = {}
    times = sorted({click.time for click in found})
    for count, click in enumerate(found, 1):
      near = [abs(t - click.time) / 2 for t in times if t != click.time]
      half = max(min([_HALF, click.time, *near]), 0.0005)
      for slot, time in enumerate((click.time - half, click.time + half)):
        ElementTree.SubElement(
          order, 'TIME_SLOT', TIME_SLOT_ID=f'ts{2 * count + slot}',
          TIME_VALUE=str(max(0, round(1000 * time))),
        )  # fmt: skip
      if click.annotator not in tiers:
        tiers[click.annotator] = ElementTree.Element(
          'TIER', LINGUISTIC_TYPE_REF='clicks', TIER_ID=click.annotator,
          ANNOTATOR=click.annotator,
        )  # fmt: skip
      annotation = ElementTree.SubElement(tiers[click.annotator], 'ANNOTATION')
      aligned = ElementTree.SubElement(
        annotation, 'ALIGNABLE_ANNOTATION', ANNOTATION_ID=f'a{count}',
        TIME_SLOT_REF1=f'ts{2 * count}', TIME_SLOT_REF2=f'ts{2 * count + 1}',
      )  # fmt: skip
      ElementTree.SubElement(aligned, 'ANNOTATION_VALUE').text = click.label
    root.extend(tiers.values())
    ElementTree.SubElement(
      root, 'LINGUISTIC_TYPE', LINGUISTIC_TYPE_ID='clicks',
      TIME_ALIGNABLE='true', GRAPHIC_REFERENCES='false',
    )  # fmt: skip
    ElementTree.indent(root)
    with files.atomic(os.path.join(folder, f'{video}.eaf')) as f:
      f.write(ElementTree.tostring(root, 'UTF-8', xml_declaration=True))


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
    rows.append(
      (
        number,
        (
          _video(file['fname']), _time(entry['z']),
          said.get('label', '').strip(), said.get('annotator', ''),
        ),
      )
    )  # fmt: skip
  return rows


def _read_label_studio(data):
  rows = []
  for task in data:
    url, *_ = (x for x in task['data'].values() if isinstance(x, str))
    # Of local files ?d=PATH; eight digits stand before what was uploaded.
    name = urllib.parse.unquote(url.rpartition('?d=')[2])
    name = re.sub(r'(^|.*/)[0-9a-f]{8}-', '', name)
    for annotation in task['annotations']:
      who = annotation.get('completed_by', '')
      who = who.get('email', '') if isinstance(who, dict) else str(who)
      for item in annotation['result']:
        for label in item['value'].get('timelinelabels', ()):
          for span in item['value']['ranges']:
            time = _time((span['start'], span['end']))
            rows.append((len(rows) + 1, (_video(name), time, label, who)))
  # Frames count from 1, but some exporters begin at 0.
  starts = (time[0] if isinstance(time, tuple) else time
            for _, (_, time, _, _) in rows)  # fmt: skip
  first = min([1.0, *starts])
  shift = lambda t: (
    tuple(x - first for x in t) if isinstance(t, tuple) else (t - first)
  )
  return [(n, (v, shift(time), *rest)) for n, (v, time, *rest) in rows]


def _read_elan(path, root):
  if root.tag != 'ANNOTATION_DOCUMENT':
    raise errors.InputError(f'{path}: <{root.tag}>, expected an ELAN file')
  media = root.find('HEADER/MEDIA_DESCRIPTOR')
  url = media.get('MEDIA_URL') if media is not None else ''
  named = urllib.parse.unquote(url) or os.fspath(path)
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
      label = (found.findtext('ANNOTATION_VALUE') or '').strip()
      time = _time(float(end) / 1000 for end in ends)
      who = tier.get('ANNOTATOR', '')
      rows.append(
        (
          len(rows) + 1,
          (_video(named), time, label or tier.get('TIER_ID'), who),
        )
      )
  return rows


def _read_boris(path, text, split):
  """Read BORIS's table of events, a row a POINT, START or STOP, or of both."""
  delimiter = '\t' if '\t' in text else ','
  table = split(text, delimiter)
  at = next(
    i for i, (_, cells) in enumerate(table)
    if set(_BORIS) <= {cell.casefold() for cell in cells}
  )  # fmt: skip
  line, header = table[at]
  header = [cell.casefold() for cell in header]
  if 'time' not in header and 'start (s)' not in header:
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
