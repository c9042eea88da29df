"""ELAN's annotation files, .eaf: tiers of intervals, in milliseconds."""

import collections
import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import marks

_SCHEMA = '{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation'


def fits(root: ElementTree.Element) -> bool:
  """Return whether an XML file is ELAN's."""
  return root.tag == 'ANNOTATION_DOCUMENT'


def read(path: epath.Path, root: ElementTree.Element) -> marks.Marks:
  """Read the intervals of all tiers, in seconds of the video.

  An annotation without text is of its tier's name. Annotations between others,
  whose ends have no times of their own, are left out.
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
  found, unaligned = [], 0
  for tier in root.iterfind('TIER'):
    for item in tier.iterfind('ANNOTATION/ALIGNABLE_ANNOTATION'):
      ends = [slots[item.get(f'TIME_SLOT_REF{i}')] for i in (1, 2)]
      if None in ends:
        unaligned += 1
        continue
      start, end = (float(end or 0) / 1000 for end in ends)
      label = (item.findtext('ANNOTATION_VALUE') or '').strip()
      label = label or tier.get('TIER_ID', '')
      time, who = marks.moment(start, end), tier.get('ANNOTATOR', '')
      mark = marks.Mark(len(found) + 1, video, time, label, who)
      found.append(mark._replace(shift=origin))
  note = f'{unaligned} annotations without times of their own (subdivisions)'
  left_out = (note,) if unaligned else ()
  return marks.Marks('elan', found, [], left_out, is_played=True)


def _medium(path, media: Sequence[ElementTree.Element]) -> tuple[str, float]:
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
    by_video[click.video].append(click)
  for video, found in by_video.items():
    document = _document(found, video, suffix, first_pictures.get(video, 0.0))
    text = ElementTree.tostring(document, 'UTF-8', xml_declaration=True)
    with files.atomic(folder / f'{video}.eaf') as f:
      f.write(text)


def _document(
  clicks: Sequence[marks.Click], video: str, suffix: str, first: float
) -> ElementTree.Element:
  """Return the document of a video's clicks, which are in time order."""
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
  for count, click in enumerate(clicks, 1):
    start, end = (round(1000 * x) for x in marks.span(click.time + first))
    who, number = click.annotator, 1
    while (tier := who if number == 1 else f'{who}-{number}') in tiers and (
      ends[tier] > start or tiers[tier].get('ANNOTATOR') != who
    ):
      number += 1
    if tier not in tiers:
      tiers[tier] = new(
        'TIER', LINGUISTIC_TYPE_REF='clicks', TIER_ID=tier, ANNOTATOR=who
      )
    ends[tier] = end
    names = f'ts{2 * count}', f'ts{2 * count + 1}'
    slots += zip((start, end), names, strict=True)
    aligned = add(
      add(tiers[tier], 'ANNOTATION'), 'ALIGNABLE_ANNOTATION',
      ANNOTATION_ID=f'a{count}', TIME_SLOT_REF1=names[0],
      TIME_SLOT_REF2=names[1],
    )  # fmt: skip
    add(aligned, 'ANNOTATION_VALUE').text = click.label
  for time, name in sorted(slots):
    add(order, 'TIME_SLOT', TIME_SLOT_ID=name, TIME_VALUE=str(time))
  root.extend(tiers.values())
  add(root, 'LINGUISTIC_TYPE', LINGUISTIC_TYPE_ID='clicks',
      TIME_ALIGNABLE='true', GRAPHIC_REFERENCES='false')  # fmt: skip
  ElementTree.indent(root)
  return root
