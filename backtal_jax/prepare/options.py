"""Options of several commands; those of `prepare custom` are a Recipe."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from backtal_jax import command_line, errors, files
from backtal_jax.data import annotation_formats, annotations, click_tools

_VIDEO_LIST = (
  'CSV video_id,duration[,fps][,first_picture] where the ground truth lacks '
  'these'
)
_CLICK_FPS = (
  "frames a second of Label Studio's frames: frameRate of its configuration, "
  "24 by default; and of others' where no video tells its own"
)
_INTERVALS = (
  "how annotation tools' intervals become clicks: their midpoint, or "
  'background in the complement'
)


def add_known(
  parser: argparse.ArgumentParser, truth_required: bool = False
) -> None:
  """Add the options of what is known of videos."""
  add = parser.add_argument
  add('--ground_truth', type=files.path, required=truth_required,
      help='of any format')  # fmt: skip
  add('--video_list', type=files.path, help=_VIDEO_LIST)
  add('--fps', type=annotation_formats.rate, help=_CLICK_FPS)


def add_click_files(
  parser: argparse.ArgumentParser, truth_required: bool = False
) -> None:
  """Add the options of click files of any format."""
  add_known(parser, truth_required)
  add = parser.add_argument
  add('--clicks', required=True, nargs='+', help='files')
  add('--intervals', default='', choices=click_tools.INTERVALS,
      help=_INTERVALS)  # fmt: skip
  add('--lenient', action='store_true', help='leave out clicks that are wrong')


def read_click_files(
  clicks: Sequence[str],
  *,
  ground_truth: epath.Path | None,
  video_list: epath.Path | None,
  fps: float | None,
  intervals: str,
  lenient: bool,
) -> tuple[
  annotations.Annotations | None,
  annotation_formats.Times,
  dict[str, list[annotations.Click]],
]:
  """Read what `add_click_files` names.

  Returns:
    The ground truth, if any; what is known of the videos; {file: clicks}.

  Raises:
    errors.InputError: See annotations.read_clicks; a file named twice.
  """
  truth, times = annotations.read_known(ground_truth, video_list)
  found: dict[str, list[annotations.Click]] = {}
  problems = []
  for name in map(str, clicks):
    if name in found:
      raise errors.InputError(f'--clicks: {name} twice, expected once')
    found[name], wrong = annotations.read_clicks(
      files.path(name), truth, fps=fps, lenient=True, intervals=intervals,
      times=times,
    )  # fmt: skip
    problems += wrong
  errors.tell(problems, lenient)
  return truth, times, found


def add_suffix(parser: argparse.ArgumentParser) -> None:
  """Add the option that `suffix_of` takes."""
  told = 'of the videos in files of tools; by default .mp4'
  parser.add_argument('--suffix', type=command_line.suffix, help=told)


def suffix_of(output: object, given: str | None, names_videos: bool) -> str:
  """Return the ending of the videos that an output names; refuse a vain one."""
  if given and not names_videos:
    raise errors.InputError(f'{output}: names no files of videos; no --suffix')
  return given or '.mp4'


def _option(help: str, default: Any = dataclasses.MISSING, **how: Any) -> Any:
  """Return a field of Recipe that is an option of the command line, too."""
  return dataclasses.field(default=default, metadata={'help': help, **how})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """What is prepared from what: the options of `prepare custom`.

  `base` is the benchmark of configs/ this is, if any, `feature_dim` its D.
  """

  features: tuple[str, ...] = _option(
    'a folder of feature files (.npy, .npz, .pt, .h5, .parquet, '
    '.safetensors), perhaps in folders of splits and of streams called rgb '
    'and flow, or one file with all videos; a second one for a second stream '
    '(RGB, then flow)', metavar='PATH',
  )  # fmt: skip
  output: str = _option('the data root')
  ground_truth: str = _option('of any format', '')
  labels: str = _option(
    'CSV video_id,subset,label[,duration,fps] of video labels', ''
  )
  video_list: str = _option(_VIDEO_LIST, '')
  clicks: tuple[str, ...] = _option('of any format', (), metavar='FILE')
  intervals: str = _option(_INTERVALS, '', choices=click_tools.INTERVALS)
  click_fps: float | None = _option(
    _CLICK_FPS, None, type=annotation_formats.rate
  )
  train_split: str = _option('subset', 'training')
  eval_split: str = _option(
    'subset, with segments; default: validation, or none where all videos are '
    'of the training split', '',
  )  # fmt: skip
  num_snippets: int = _option('T', 100)
  fps: float | None = _option(
    'frames a second of the features', None, type=annotation_formats.rate
  )
  stride: float | None = _option(
    'frames; without it, snippets are equal parts of the video', None
  )
  window: float | None = _option('frames of a snippet; default: stride', None)
  video_names: str | None = _option(
    '.npy of the names in an .npy with all videos', None
  )
  channels_first: bool | None = _option(
    "files hold [D, T']; default: what fits", None
  )
  allow_pickle: bool = _option(
    'read pickled features, which can run any code', False
  )
  workers: int = _option('threads', 8)
  lenient: bool = _option('leave out what is wrong', False)
  overwrite: bool = _option('make anew what was made otherwise', False)
  base: str = ''
  feature_dim: int = 0

  def __post_init__(self):
    for field in (
      'num_snippets', 'click_fps', 'fps', 'stride', 'window', 'workers'
    ):  # fmt: skip
      value = getattr(self, field)
      if value is not None and not 0 < value < np.inf:
        raise errors.InputError(f'--{field} is {value}, expected more than 0')
    if not 1 <= len(self.features) <= 2:
      raise errors.InputError(
        f'--features has {len(self.features)} paths, expected 1 or 2'
      )
    for given, names, needed in (
      (self.stride, ('window',), '--stride'),
      (self.clicks, ('intervals', 'click_fps'), '--clicks'),
    ):
      for name in names if not given else ():
        if getattr(self, name):
          raise errors.InputError(
            f'--{name} means nothing without {needed}, which is missing'
          )
    if not self.ground_truth and not self.labels:
      raise errors.InputError('expected --ground_truth or --labels')
