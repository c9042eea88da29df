"""ELAN's annotation files, .eaf: tiers of intervals, in milliseconds."""

import collections
import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import marks

_SCHEMA = '{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation'
# Types of our tiers: of annotators' clicks, and of classes' segments.
_CLICKS, _SEGMENTS = 'clicks', 'segments'


def fits(root: ElementTree.Element) -> bool:
  """Return whether an XML file is ELAN's."""
  return root.tag == 'ANNOTATION_DOCUMENT'


def read(path: epath.Path, root: ElementTree.Element) -> marks.Marks:
  """Read the intervals of all tiers, in seconds of the video.

  An annotation without text is of its tier's name, and so are those of
  `write_segments` whose text is a score. Annotations between others, whose ends
  have no times of their own, and those that refer to others, are left out.
  """
  header = root.find('HEADER')
  units = 'milliseconds' if header is None else header.get('TIME_UNITS')
  if units not in (None, 'milliseconds'):
    raise errors.InputError(
      f'{path}: TIME_UNITS {units!r}, expected milliseconds'
    )
  video, origin = _medium(path, root.findall('HEADER/MEDIA_DESCRIPTOR'))
  slots = {
    slot.get('TIME_SLOT_ID'): slot.get('TIME_VALUE')
    for slot in root.iterfind('TIME_ORDER/TIME_SLOT')
  }
  found, unaligned, referring = [], 0, 0
  for tier in root.iterfind('TIER'):
    referring += len(tier.findall('ANNOTATION/REF_ANNOTATION'))
    name = tier.get('TIER_ID', '')
    is_class = tier.get('LINGUISTIC_TYPE_REF') == _SEGMENTS
    for item in tier.iterfind('ANNOTATION/ALIGNABLE_ANNOTATION'):
      ends = [slots[item.get(f'TIME_SLOT_REF{i}')] for i in (1, 2)]
      if None in ends:
        unaligned += 1
        continue
      start, end = (float(end or 0) / 1000 for end in ends)
      label = (item.findtext('ANNOTATION_VALUE') or '').strip()
      if is_class:  # of write_segments, whose texts are scores
        name = tier.get('PARTICIPANT') or name
        label = '' if formats.is_number(label) else label
      label = label or name
      found.append(marks.Mark(
        len(found) + 1, video, (start, end), label, tier.get('ANNOTATOR', ''),
        shift=origin,
      ))  # fmt: skip
  counts = {
    'without times of their own (subdivisions)': unaligned,
    'that refer to others': referring,
  }
  left_out = tuple(f'{n} annotations {x}' for x, n in counts.items() if n)
  return marks.Marks('elan', found, [], left_out, is_played=True)


def _medium(
  path: epath.Path, media: Sequence[ElementTree.Element]
) -> tuple[str, float]:
  """Return the first video's name, and the seconds before time 0 in it.

  Sound may stand before it, with an origin of its own; alone it must do.
  """
  name = lambda m: urllib.parse.unquote(
    m.get('MEDIA_URL') or m.get('RELATIVE_MEDIA_URL') or ''
  )
  is_video = lambda m: (
    m.get('MIME_TYPE', '').startswith('video')
    or name(m).casefold().endswith(files.VIDEO_SUFFIXES)
  )
  chosen = next(filter(is_video, media), media[0] if media else None)
  if chosen is None:
    return marks.video_name(os.fspath(path)), 0.0
  file = name(chosen) or os.fspath(path)
  return marks.video_name(file), float(chosen.get('TIME_ORIGIN') or 0) / 1000


def write(
  folder: epath.Path,
  clicks: Iterable[marks.Click],
  suffix: str,
  first_pictures: Mapping[str, float],
) -> None:
  """Write clicks of any videos as the folder's VIDEO.eaf, a tier an annotator.

  ELAN knows intervals only: a click is a `marks.span` around it, and comes
  back as its midpoint, to a millisecond. Where spans of one annotator overlap,
  a further tier takes one, for ELAN's tiers hold no two at a time.

  Args:
    folder: Where they are written.
    clicks: In seconds.
    suffix: Ending of the videos' files, which the files name.
    first_pictures: {video: seconds on the player's clock}, 0 where missing.
  """
  by_video = collections.defaultdict(list)
  for click in sorted(clicks, key=lambda c: c.time):
    first = first_pictures.get(click.video, 0.0)
    entry = *marks.span(click.time + first), click.annotator, click.label
    by_video[click.video].append(entry)
  for video, stem in files.names_of(by_video).items():
    path = folder / f'{stem}.eaf'
    _write(path, by_video[video], video, suffix, _CLICKS, 'ANNOTATOR')


def write_segments(
  path: epath.Path,
  segments: Iterable[marks.Segment],
  video: str,
  suffix: str,
  first_picture: float,
) -> None:
  """Write a video's segments as an .eaf, a tier a class; see `write`.

  The text of an annotation is its score, or its class where it has none.
  """
  entries = [
    (
      segment.start + first_picture, segment.end + first_picture,
      segment.label,
      segment.label if segment.score is None else f'{segment.score:.4g}',
    )
    for segment in sorted(segments, key=lambda s: s.start)
  ]  # fmt: skip
  _write(path, entries, video, suffix, _SEGMENTS, 'PARTICIPANT')


def _write(path, entries, video, suffix, kind, owner):
  """Write [(start, end, whose its tier is, text)] of a video, in time order.

  Of each tier `owner` is the attribute that says whose it is, `kind` its type.
  """
  new, add = ElementTree.Element, ElementTree.SubElement
  root = new('ANNOTATION_DOCUMENT', {
    'AUTHOR': '', 'DATE': '1970-01-01T00:00:00+00:00', 'FORMAT': '3.0',
    'VERSION': '3.0', _SCHEMA: 'http://www.mpi.nl/tools/elan/EAFv3.0.xsd',
  })  # fmt: skip
  header = add(root, 'HEADER', MEDIA_FILE='', TIME_UNITS='milliseconds')
  url = './' + urllib.parse.quote(video + suffix)
  mime = 'video/mp4' if suffix.lower() == '.mp4' else 'unknown'
  add(header, 'MEDIA_DESCRIPTOR', MEDIA_URL=url, MIME_TYPE=mime,
      RELATIVE_MEDIA_URL=url)  # fmt: skip
  order, tiers, ends, slots = add(root, 'TIME_ORDER'), {}, {}, []
  for count, (begin, stop, who, text) in enumerate(entries, 1):
    start = round(1000 * begin)
    end, number = max(round(1000 * stop), start + 1), 1
    while (tier := who if number == 1 else f'{who}-{number}') in tiers and (
      ends[tier] > start or tiers[tier].get(owner) != who
    ):
      number += 1
    if tier not in tiers:
      tiers[tier] = new(
        'TIER', {'LINGUISTIC_TYPE_REF': kind, 'TIER_ID': tier, owner: who}
      )
    ends[tier] = end
    names = f'ts{2 * count}', f'ts{2 * count + 1}'
    slots += zip((start, end), names, strict=True)
    aligned = add(
      add(tiers[tier], 'ANNOTATION'), 'ALIGNABLE_ANNOTATION',
      ANNOTATION_ID=f'a{count}', TIME_SLOT_REF1=names[0],
      TIME_SLOT_REF2=names[1],
    )  # fmt: skip
    add(aligned, 'ANNOTATION_VALUE').text = text
  for time, name in sorted(slots):
    add(order, 'TIME_SLOT', TIME_SLOT_ID=name, TIME_VALUE=str(time))
  root.extend(tiers.values())
  add(root, 'LINGUISTIC_TYPE', LINGUISTIC_TYPE_ID=kind,
      TIME_ALIGNABLE='true', GRAPHIC_REFERENCES='false')  # fmt: skip
  ElementTree.indent(root)
  with files.atomic(path) as f:
    f.write(ElementTree.tostring(root, 'UTF-8', xml_declaration=True))
