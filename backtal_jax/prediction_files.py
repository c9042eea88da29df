"""Files in, files of what is found in them out: `--mode predict`."""

import ml_collections
import numpy as np
from etils import epath

from backtal_jax import errors, files, predict
from backtal_jax.data import (
  annotation_formats,
  annotations,
  feature_files,
  feature_records,
  marks,
  segment_files,
  video_names,
)
from backtal_jax.run import outputs
from backtal_jax.video import decode, reader, streams

# Segments of one video shown on screen.
_SHOWN = 10


def write(
  config: ml_collections.ConfigDict | None,
  checkpoint: epath.PathLike,
  input: epath.PathLike,
  output: epath.PathLike,
  *,
  duration: float | None = None,
  video_list: epath.PathLike | None = None,
  plot: bool = False,
  frames: bool = False,
  **weights: str,
) -> None:
  """Predict a file or a folder: files, a table and, asked for, pictures.

  Args:
    config: Config of the model; None is that of the workdir.
    checkpoint: See predict.load.
    input: A feature file (see feature_files.read_video), a video, or a folder
      of the ones or of the others.
    output: Gets the predictions, in the form that its ending says, see
      segment_files.write; by default ActivityNet's JSON.
    duration: Seconds, of feature files that tell none.
    video_list: Tells them of several, see annotations.read_lengths.
    plot: Whether to draw a timeline of each video, OUTPUT_timelines/VIDEO.png.
    frames: Whether a .csv has a row a frame.
    **weights: See predict.load.

  Raises:
    errors.InputError: A user error; nothing is written to `output` then.
  """
  input, output = files.path(input), files.path(output)
  segment_files.require_output(output, frames)
  if output.is_dir():
    raise errors.InputError(f'{output}: a folder, expected a file to write')
  config = config or predict.config_of(files.path(checkpoint))
  model = predict.load(checkpoint, config=config, **weights)
  truth = _read_truth(config.data) if plot else {}
  paths, found = reader.find(input), {}
  _require_use(paths, weights, duration=duration, video_list=video_list)
  segment_files.require_videos(output, len(paths))
  if duration is not None and video_list:
    raise errors.InputError('--duration and --video_list: expected one of them')
  told = annotations.read_lengths(files.path(video_list)) if video_list else {}
  videos = _read(model, paths, duration, told)
  for path, one in zip(paths, model.predict_videos(videos), strict=True):
    name = one.video.name
    if name in found:
      raise errors.InputError(f'{input}: two files are video {name!r}')
    found[name] = path, one
    if plot:
      stem = output.stem.replace(segment_files.PLACE, 'all')
      picture = f'{stem}_timelines/{files.name_of(name)}.png'
      figure = _draw(model, path, one, truth)
      with files.atomic(output.parent / picture) as f:
        figure.savefig(f, format='png', dpi=100)
  _write(output, dict(sorted(found.items())), model, told, frames)
  # What is asked for is safe by now.
  print(*(_table(one) for _, one in found.values()), sep='\n')


def _write(output, found, model, told, frames):
  """Write what is found in videos, {name: (path, Prediction)}."""
  names, _ = video_names.match(found, told)
  times, suffix = {}, {}
  for name, (path, (video, _, _)) in found.items():
    known = told.get(names.get(name, ''), annotation_formats.VideoTimes())
    beside = path.parent / feature_records.VIDEOS
    if streams.is_video(path):
      header = decode.read_header(path)
      known = annotation_formats.VideoTimes(*map(float, header))
    elif not known.fps and beside.exists():
      listed = annotation_formats.read_video_list(beside)
      known = listed.get(video_names.match_one(name, listed) or '', known)
    fps = known.fps or (video.fps if video.fps > 0 else None)
    times[name] = annotation_formats.VideoTimes(
      float(video.duration), fps, known.first_picture
    )
    suffix[name] = path.suffix if streams.is_video(path) else '.mp4'
  segments = [
    marks.Segment(name, *entry['segment'], entry['label'], entry['score'])
    for name, (_, one) in found.items()
    for entry in one.segments
  ]
  segment_files.write(
    output, segments, [*found], times, suffix=suffix,
    classes=model.classes, frames=frames,
  )  # fmt: skip


def _require_use(paths, weights, **lengths):
  """Refuse options of videos for files of features, and the reverse."""
  is_video = streams.is_video(paths[0])  # as all of them are, or none
  what = ('a video', 'features') if is_video else ('features', 'videos')
  for name, value in (lengths if is_video else weights).items():
    if value not in (None, ''):
      raise errors.InputError(
        f'--{name} is of {what[1]}, but {paths[0]} is {what[0]}'
      )


def _read(model, paths, duration, told):
  """Read the files, with the durations that are given for them."""
  if duration is not None and len(paths) > 1:
    feature_files.require_one_length(paths, duration)
  names, _ = video_names.match([path.stem for path in paths], told)
  seconds = {stem: told[name].duration for stem, name in names.items()}
  return (model.read(path, seconds.get(path.stem, duration)) for path in paths)


def _draw(model, path, prediction, truth):
  """Draw the timeline of a file's prediction."""
  from backtal_jax.report import timelines  # not needed to predict

  video, curves, segments = prediction
  found = [model.classes.index(segment['label']) for segment in segments]
  # Nothing found is worth a look, too: at the class that came closest.
  found = found or [int(np.argmax(curves['score'][:-1]))]
  known = truth.get(video_names.match_one(video.name, truth))
  read = model.localization.get('read', 'logits')
  return timelines.draw(
    video.name,
    video.duration,
    segments,
    known.listed() if known else (),
    outputs.take(curves, video.click, found, model.classes, read),
    decode.read_strip(path) if streams.is_video(path) else (),
  )


def _read_truth(data):
  """Return the videos of the ground truth, none where there is no such file."""
  try:
    path = files.find(data.ground_truth, data.root)
  except errors.InputError:
    return {}
  return annotations.read_ground_truth(path).videos


def _table(prediction):
  """Lay out the best segments of a video."""
  video, _, segments = prediction
  best = sorted(segments, key=lambda s: -s['score'])
  lines = [f'{video.name}  {video.duration:.1f} s  {len(segments)} segments']
  width = max((len(s['label']) for s in best[:_SHOWN]), default=0)
  for s in best[:_SHOWN]:
    start, end = s['segment']
    lines.append(
      f'  {s["label"]:{width}} {start:9.2f} – {end:8.2f} s {s["score"]:8.3f}'
    )
  if best[_SHOWN:]:
    lines.append(f'  … and {len(best) - _SHOWN} with lower scores')
  return '\n'.join(lines)
