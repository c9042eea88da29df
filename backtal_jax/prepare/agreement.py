"""The command `prepare agreement`: do annotators agree, and where do they not?

For every pair of click files (or, of one file, of annotators): background
clicks that contradict the other's; gaps that both, one or none clicked, where
ground truth tells gaps; and Cohen's kappa, the agreement beyond what two who
click as often, but anywhere, would reach.
"""

import argparse
import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotations
from backtal_jax.data import clicks as click_files
from backtal_jax.prepare import click_stats, options

# Videos that are shown, the worst.
_SHOWN = 10
_NONE = ''  # what nobody clicked


class Counts(TypedDict):
  """How two annotators' clicks agree, of a video or of all."""

  near_action: int  # background clicks near an action click of the other
  in_gap_left: int  # background clicks in a gap without one of the other
  both: int  # units that both clicked alike
  one: int  # that one clicked, or both otherwise
  none: int  # that none clicked


class Pair(NamedTuple):
  """Two annotators."""

  names: tuple[str, str]
  total: Counts
  observed: float | None  # share of units in which they agree
  kappa: float | None  # Cohen's; None where chance alone agrees always
  videos: dict[str, Counts]  # the worst first


# What one annotator says of each unit of a video: a label, or _NONE.
Units = list[tuple[str, str]]


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  options.add_click_files(parser)
  add = parser.add_argument
  add('--seconds', type=float, default=1.0,
      help='what is near an action click (default %(default)s); without '
      'ground truth videos are compared in parts of twice this')  # fmt: skip
  add('--output', type=files.path, help='a JSON file')


def compare(
  first: Mapping[str, Sequence[annotations.Click]],
  second: Mapping[str, Sequence[annotations.Click]],
  names: tuple[str, str],
  gaps: Mapping[str, Sequence[tuple[float, float]]] | None,
  videos: Sequence[str],
  seconds: float,
) -> Pair:
  """Compare two annotators' clicks, {video: clicks}, on some videos.

  Units are the gaps, (start, end) in seconds of the background of every video,
  both ends included; without any, parts of 2 · `seconds`. What is near an
  action click is `seconds`.
  """
  said: Units = []
  found = {}
  for name in videos:
    a, b = first.get(name, ()), second.get(name, ())
    if gaps is None:
      units, left = _in_parts(a, b, 2 * seconds), 0
    else:
      units, left = _in_gaps(a, b, gaps[name])
    said += units
    near = _near(a, b, seconds) + _near(b, a, seconds)
    found[name] = _count(units, near, left)
  total = _count(
    said,
    sum(counts['near_action'] for counts in found.values()),
    sum(counts['in_gap_left'] for counts in found.values()),
  )
  order = sorted(found, key=lambda name: (-_bad(found[name]), name))
  return Pair(names, total, *cohen(said), {name: found[name] for name in order})


def _bad(counts: Counts) -> int:
  return counts['near_action'] + counts['one']


def _near(a, b, seconds):
  """Count background clicks of one near an action click of the other."""
  actions = [click.time for click in b if not click.is_background]
  return sum(
    any(abs(click.time - time) <= seconds for time in actions)
    for click in a
    if click.is_background
  )


def _in_gaps(a, b, gaps):
  """Return what both say of each gap, and clicks in a gap the other left."""
  units, left = [], 0
  for start, end in gaps:
    number = [
      sum(c.is_background and start <= c.time <= end for c in clicks)
      for clicks in (a, b)
    ]
    units.append(
      tuple(annotations.BACKGROUND if count else _NONE for count in number)
    )
    left += sum(number) if min(number) == 0 else 0
  return units, left


def _in_parts(a, b, length):
  """Return what both say of each part, up to the last click of either."""
  said = []
  for clicks in (a, b):
    labels = {}
    # In one part an action goes before background, as in training.
    for click in sorted(clicks, key=lambda c: (not c.is_background, c.time)):
      labels[int(click.time / length)] = click.label
    said.append(labels)
  count = 1 + max((part for labels in said for part in labels), default=-1)
  return [(said[0].get(i, _NONE), said[1].get(i, _NONE)) for i in range(count)]


def _count(units: Units, near: int, left: int) -> Counts:
  same = sum(a == b for a, b in units)
  none = sum(a == b == _NONE for a, b in units)
  return Counts(
    near_action=near, in_gap_left=left, both=same - none,
    one=len(units) - same, none=none,
  )  # fmt: skip


def cohen(units: Units) -> tuple[float | None, float | None]:
  """Return the observed agreement and Cohen's kappa of two who label units.

  kappa = (observed − expected) / (1 − expected), where two who give labels as
  often as these, but independently, are expected to agree (J. Cohen, "A
  coefficient of agreement for nominal scales", 1960). None where undefined.
  """
  number = len(units)
  if not number:
    return None, None
  observed = sum(a == b for a, b in units) / number
  first, second = (
    collections.Counter(column) for column in zip(*units, strict=True)
  )
  expected = sum(first[x] * second[x] for x in first) / number**2
  if expected == 1:
    return observed, None
  return observed, (observed - expected) / (1 - expected)


def _annotators(
  read: Mapping[str, list[annotations.Click]],
) -> dict[str, list[annotations.Click]]:
  """Return {annotator: clicks}.

  The files are the annotators, unless there is one file alone; they are called
  as their one annotator where all have one, each another.
  """
  of = {path: {click.annotator for click in own} for path, own in read.items()}
  alone = [min(names) for names in of.values() if len(names) == 1]
  if len(read) == 1 or len({*alone}) == len(read):
    found = {}
    for click in itertools.chain(*read.values()):
      found.setdefault(click.annotator, []).append(click)
  else:
    found = dict(read)
  if len(found) < 2:
    raise errors.InputError(
      f'--clicks: {", ".join(read)} tells of one annotator, expected two or '
      'more'
    )
  place = lambda clicks: sorted((c.video, c.time, c.label) for c in clicks)
  for a, b in itertools.combinations(found, 2):
    if place(found[a]) == place(found[b]):
      raise errors.InputError(
        f'--clicks: {b} holds the very clicks of {a}, expected those of '
        'somebody else'
      )
  return found


def show(pairs: Sequence[Pair], units: str) -> None:
  """Print a line a pair, then the worst videos."""
  width = max(len(f'{a} – {b}') for a, b in (pair.names for pair in pairs))
  row = f'{{:{max(width, 4)}}} {{:>11}} {{:>11}} {{:>6}} {{:>6}} {{:>6}}'.format
  print(f'{row("pair", "near action", "in gap left", "both", "one", "none")}'
        f"  agree  Cohen's kappa (of {units})")  # fmt: skip
  for pair in pairs:
    share = '–' if pair.observed is None else f'{pair.observed:.1%}'
    kappa = '–' if pair.kappa is None else f'{pair.kappa:.3f}'
    cells = row(' – '.join(pair.names), *pair.total.values())
    print(f'{cells} {share:>6}  {kappa}')
  for pair in pairs:
    worst = [(n, c) for n, c in pair.videos.items() if _bad(c)][:_SHOWN]
    if worst:
      print(f'{" – ".join(pair.names)}, the worst videos:')
    for name, counts in worst:
      print(
        f'  {name}: {counts["near_action"]} near an action click of the other, '
        f'{counts["one"]} {units} that they do not agree on'
      )


def run(
  clicks: Sequence[str],
  output: epath.Path | None,
  seconds: float,
  **known: Any,
) -> None:
  """Compare every pair, print a table and, asked for, write JSON.

  The click files are one an annotator, or one with several; the ground truth,
  if it is known, tells the gaps. What is near an action click is `seconds`.
  """
  if not seconds > 0:
    raise errors.InputError(f'--seconds is {seconds:g}, expected more than 0')
  if output:
    files.require_ending(output, '.json')
  truth, _, read = options.read_click_files(clicks, **known)
  found = {
    who: click_files.by_video(own) for who, own in _annotators(read).items()
  }
  videos = sorted({name for own in found.values() for name in own})
  gaps = None
  if truth is not None:
    gaps = {name: click_stats.gaps(truth.videos[name]) for name in videos}
  pairs = [
    compare(found[a], found[b], (a, b), gaps, videos, seconds)
    for a, b in itertools.combinations(found, 2)
  ]
  units = 'gaps' if truth is not None else f'parts of {2 * seconds:g} s'
  show(pairs, units)
  if output:
    files.write_json(
      output,
      {
        'units': units,
        'coefficient': "Cohen's kappa",
        'seconds': seconds,
        'pairs': [pair._asdict() for pair in pairs],
      },
      indent=1,
    )
