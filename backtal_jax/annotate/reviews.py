"""Segments that are reviewed: what is proposed, and the file of what stands."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from etils import epath

from backtal_jax import errors, files
from backtal_jax.annotate import history
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import annotations, marks, segment_files, video_names

# From this tIoU on, a proposal is what was judged before.
_SAME = 0.5


class Proposal(NamedTuple):
  """A segment that a model found; in seconds."""

  start: float
  end: float
  label: str
  score: float

  @property
  def name(self) -> str:
    """The same for the same segment, so that a review outlives the server."""
    return f'{self.start!r}-{self.end!r} {self.label}'


@dataclasses.dataclass(frozen=True)
class File:
  """The annotations that reviews make: reviewed videos, ActivityNet's form.

  `subset` is that of the videos.
  """

  path: epath.Path
  subset: str

  def write(
    self,
    past: history.History,
    duration: Callable[[str], float | None],
    classes: Sequence[str],
  ) -> None:
    """Write what stands, with each video's `duration`, atomically."""
    videos = {
      name: annotations.AnnotatedVideo(
        name, self.subset, duration(name), None, _accepted(past, name)
      )
      for name in past.reviewed()
    }
    truth = annotations.Annotations(videos, tuple(classes))
    files.write_json(self.path, truth.as_json())

  def read(self) -> dict[str, annotations.AnnotatedVideo]:
    """Return the videos in the file, none without one.

    Raises:
      errors.InputError: It is no ground truth, or a segment is impossible.
    """
    if not self.path.exists():
      return {}
    videos = annotations.read_ground_truth(self.path).videos
    for name, video in videos.items():
      try:
        for segment in video.segments:
          marks.require_segment(segment.start, segment.end, video.duration)
      except errors.InputError as e:
        raise errors.InputError(f'{self.path}: video {name!r}: {e}') from e
    return videos

  def is_of(
    self,
    found: Mapping[str, annotations.AnnotatedVideo],
    past: history.History,
  ) -> bool:
    """Return whether a file that was read is what a history says."""
    return {k: sorted(map(_row, v.segments)) for k, v in found.items()} == {
      name: sorted(map(_row, _accepted(past, name))) for name in past.reviewed()
    }


def _row(segment):
  return segment.start, segment.end, segment.label


def _accepted(past, name):
  """Return the segments of a video that stand, by time."""
  found = [
    annotations.Segment(x.start, x.end, x.label)
    for x in past.segments(name).values()
    if x.verdict == history.ACCEPTED
  ]
  return tuple(sorted(found, key=_row))


def read_predictions(
  path: epath.Path, videos: Collection[str], classes: Sequence[str]
) -> tuple[dict[str, list[Proposal]], list[str]]:
  """Read predictions of ActivityNet's form, for the videos that there are.

  Segments may have any class where `classes` is empty.

  Returns:
    The proposals by video, and the videos of the file that there are not.

  Raises:
    errors.InputError: It is another file, of other videos or classes, or a
      segment is empty.
  """
  results = formats.results(files.read_json(path), path)
  names, others = video_names.match(results, videos)
  if results and not names:
    raise errors.InputError(
      f'{path}: none of its {len(results)} videos is in the folder, e.g. '
      f'{others[0]!r}; expected segments of the same set'
    )
  found: dict[str, list[Proposal]] = {}
  for video, name in names.items():
    if name in found:
      raise errors.InputError(
        f'{path}: video {video!r}: is {name!r}, which is there twice'
      )
    found[name] = []
  own = {video: results[video] for video in names}
  listed, complaints = segment_files.read_predictions(path, own)
  segments, problems = segment_files.check(
    listed, dict.fromkeys(found, formats.VideoTimes()), classes
  )
  for problem in complaints + problems:
    raise errors.InputError(problem)
  for s in segments:
    found[s.video].append(Proposal(s.start, s.end, s.label, s.score or 0.0))
  return found, others


def merge(
  proposed: Iterable[Proposal],
  judged: Mapping[str, history.Judged],
  duration: float | None,
) -> list[list[object]]:
  """Return [name, start, end, label, score] of what may still be judged.

  What overlaps with a judged segment of its class by a tIoU of 0.5 or more is
  what was judged, found again by another model; those that were judged
  themselves are kept, for an undo. What reaches beyond the video is cut.
  """
  found = []
  for x in sorted(proposed):
    known = x.name in judged or not any(
      x.label == other.label and _overlap(x, other) >= _SAME
      for other in judged.values()
    )
    end = x.end if duration is None else min(x.end, duration)
    if known and x.start < end:
      found.append([x.name, x.start, end, x.label, round(x.score, 4)])
  return found


def _overlap(one, other):
  shared = min(one.end, other.end) - max(one.start, other.start)
  union = max(one.end, other.end) - min(one.start, other.start)
  return max(0.0, shared) / union
