"""A folder of videos to a folder of features.

What a video's are does not depend on how many machines share the work.
"""

import io
import os
from concurrent import futures

import numpy as np
import tqdm
from etils import epath

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats, feature_records, tables
from backtal_jax.video import decode, encoder, streams


def extract(
  videos: epath.Path,
  output: epath.Path,
  protocol: encoder.Protocol,
  paths: dict[str, epath.Path],
  *,
  shard: tuple[int, int] = (1, 1),
  workers: int | None = None,
  lenient: bool = False,
) -> None:
  """Write the features of every video of a folder, then videos.csv.

  What is there already is not made again.

  Args:
    videos: A folder of videos, or one.
    output: Folder; VIDEO.npy of each video, features.json, videos.csv.
    protocol, paths: See encoder.plan.
    shard: (i, n), the i-th of n machines that share the folder, from 1.
    workers: Videos that are decoded at once, by default two, one where flow
      is estimated, which keeps every core busy.
    lenient: Whether videos that are wrong are left out.

  What is wrong with a video stands in VIDEO.failed until it is made.

  Raises:
    errors.InputError: A video is wrong (the others are done), or `output`
      holds features of another protocol.
  """
  found = streams.find(videos)
  if not feature_records.read(output) and files.listed(output, '.npy'):
    raise errors.InputError(
      f'{output}: holds .npy files of unknown origin; choose another --output'
    )
  feature_records.claim(output, protocol.record())
  if shard == (1, 1):
    files.remove_temporary(output)
  headers, wrong = _read_headers(found)
  share = found[shard[0] - 1 :: shard[1]]
  problems = [x for p in share if (x := _note(output, p, wrong.get(p)))]
  mine = [
    p for p in share
    if p in headers and not (output / f'{p.stem}.npy').exists()
  ]  # fmt: skip
  rate = lambda p: protocol.fps or headers[p].fps
  total = round(sum(headers[p].duration * rate(p) for p in mine))
  encode = encoder.Encoder(protocol, paths) if mine else None
  workers = workers or (1 if protocol.flow else 2)
  with (
    tqdm.tqdm(total=total, unit='frame', unit_scale=True, disable=None) as bar,
    futures.ThreadPoolExecutor(workers) as pool,
  ):
    jobs = [pool.submit(_write, encode, p, output, bar.update) for p in mine]
    try:
      problems += [problem for job in jobs if (problem := job.result())]
    finally:
      pool.shutdown(wait=False, cancel_futures=True)
  errors.tell(problems, lenient)
  rows = [('video_id', *annotation_formats.VideoTimes._fields)]
  rows += [(path.stem, *map(float, header)) for path, header in headers.items()]
  files.write_text(output / feature_records.VIDEOS, tables.text(rows))


def _write(encode, path, output, progress):
  """Write a video's features; return what is wrong with it, if anything."""
  try:
    features = encode(path, progress)
  except errors.InputError as e:
    return _note(output, path, str(e))
  raw = io.BytesIO()
  np.save(raw, features)
  with files.atomic(output / f'{path.stem}.npy') as f:
    f.write(raw.getvalue())  # a full disk says so, which np.save would not
  return None


def _note(output, path, problem):
  """Write down what is wrong with a video, if anything, and return it."""
  note = output / f'{path.stem}.failed'
  if problem:
    files.write_text(note, f'{problem}\n')
  else:
    note.unlink(missing_ok=True)
  return problem


def _read_headers(paths):
  """Return {path: Header} of the videos that have one, {path: problem}."""

  def read(path):
    try:
      return decode.read_header(path)
    except errors.InputError as e:
      return str(e)

  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    found = dict(zip(paths, pool.map(read, paths), strict=True))
  problems = {p: x for p, x in found.items() if isinstance(x, str)}
  return {p: x for p, x in found.items() if p not in problems}, problems
