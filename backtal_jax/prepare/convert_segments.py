"""The command `prepare convert-segments`: segments of one form in another."""

import argparse
import dataclasses

from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import (
  annotation_formats,
  annotations,
  segment_files,
  video_names,
)
from backtal_jax.prepare import options


def add_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of `run`."""
  add = parser.add_argument
  add('--segments', required=True, nargs='+', metavar='FILE',
      help='of predictions, annotations, or annotation tools')  # fmt: skip
  add('--output', type=files.path, required=True,
      help='.json (ActivityNet), .via.json (VIA 3), .csv, .eaf, .vtt or .srt; '
      '{video} in its name makes a file a video')  # fmt: skip
  options.add_known(parser)
  options.add_suffix(parser)
  add('--subset',
      help='of what becomes ground truth; by default training')  # fmt: skip
  add('--frames', action='store_true', help='a CSV with one row a frame')
  add('--lenient', action='store_true', help='leave out what is wrong')


def run(
  segments: list[str],
  output: epath.Path,
  ground_truth: epath.Path | None,
  video_list: epath.Path | None,
  fps: float | None,
  subset: str | None,
  suffix: str | None,
  frames: bool,
  lenient: bool,
) -> None:
  """Read files of segments, and write them in the form of the output.

  Segments with scores are predictions. Those without are annotations: as .json
  they are ground truth, of the subset that they had, else of `subset`, else of
  the subset that `ground_truth` tells.
  """
  segment_files.require_output(output, frames)
  form = segment_files.form_of(output)
  suffix = options.suffix_of(output, suffix, form in segment_files.NAMES_VIDEOS)
  truth, times = annotations.read_known(ground_truth, video_list)
  right, videos, classes, problems = _read(segments, truth, times, fps, subset)
  errors.tell(problems, lenient)
  scored = {segment.score is not None for segment in right}
  if len(scored) > 1:
    raise errors.InputError(
      f'{", ".join(segments)}: some segments have scores, others none; '
      'expected predictions or annotations alone'
    )
  times = {
    name: _complete(times.get(name, video.times), video.times, fps)
    for name, video in videos.items()
  }
  classes = list(truth.classes if truth else classes)
  classes += sorted({segment.label for segment in right}.difference(classes))
  is_truth = scored == {False} and form == '.json'
  if subset and not is_truth:
    raise errors.InputError(f'{output}: will be no ground truth; no --subset')
  if is_truth:
    _write_truth(output, right, videos, times, classes)
    written = [output]
  else:
    written = segment_files.write(
      output, right, [*videos], times, classes=classes, frames=frames,
      suffix=dict.fromkeys(videos, suffix),
    )  # fmt: skip
  print(f'{errors.few(written)}: {len(right)} segments of {len(videos)} videos')


def _read(paths, truth, times, fps, subset):
  """Read all files.

  Returns:
    The segments that are right; their videos, by their known names; the
    classes that the files tell; and what is wrong.
  """
  right, videos, classes, problems = [], {}, [], []
  for path in map(files.path, paths):
    found, complaints = segment_files.read(path, times, fps)
    told = {name: video.times for name, video in found.videos.items()}
    named = truth.classes if truth else ()
    if not all(known.duration for known in told.values()):
      told = {}  # a file is believed where it tells of all its videos
    good, wrong = segment_files.check(found, times or told, named)
    right += good
    problems += complaints + wrong
    classes += [name for name in found.classes if name not in classes]
    names, _ = video_names.match(found.videos, times)
    for name, video in found.videos.items():
      known = names.get(name, '' if times else name)
      if known:
        theirs = truth.videos[known].subset if truth else ''
        before = videos.get(known, video)  # of another file
        videos[known] = dataclasses.replace(
          video, **_complete(video.times, before.times)._asdict(), name=known,
          subset=video.subset or before.subset or subset or theirs,
        )  # fmt: skip
  return right, videos, classes, problems


def _complete(known, told, fps=None):
  """Return what is known of a video's times, else what its file tells."""
  return annotation_formats.VideoTimes(
    known.duration or told.duration,
    known.fps or told.fps or fps,
    known.first_picture or told.first_picture,
  )


def _write_truth(output, segments, videos, times, classes):
  """Write annotations as ground truth."""
  if segment_files.PLACE in str(output):
    raise errors.InputError(
      f'{output}: ground truth is one file of all videos, expected no '
      f'{segment_files.PLACE} in its name'
    )
  found = {}
  for name, video in sorted(videos.items()):
    own = [(s.start, s.end, s.label) for s in segments if s.video == name]
    own.sort(key=lambda segment: segment[:2])
    found[name] = dataclasses.replace(
      video, **times[name]._asdict(), subset=video.subset or 'training',
      segments=tuple(annotations.Segment(*segment) for segment in own),
    )  # fmt: skip
  truth = annotations.Annotations(found, tuple(classes), str(output))
  files.write_json(output, truth.as_json())
