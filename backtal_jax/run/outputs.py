"""What the network said along every evaluated video: curves.npz of a workdir.

All in float16; of the classes only those that are labelled or were found.
"""

import zipfile

import numpy as np

from backtal_jax import errors, files, localization


def take(video, segments, classes, read='logits') -> dict:
  """Keep what a timeline shows of one video.

  Args:
    video: what predict.predict_batches yields of it, with its label [C] and
      click [T].
    segments: found in it, [{'label', …}].
    classes: C names in index order.
    read: what of the CAS was localised, see localization.activation.

  Returns:
    {'labels': names [M], 'cas' [M, T] as read, 'foreground' [T], 'magnitude'
    [T] on the scale the thresholds have (method.md, section 4.5), 'background'
    [T] bool: clicked}.
  """
  found = {s['label'] for s in segments}
  index = [
    i
    for i, name in enumerate(classes)
    if name in found or video['label'][i] == 1
  ]
  magnitude = localization.normalize(video['magnitude'][:, None]).clip(0, 1)
  limit = np.finfo(np.float16).max
  cas = localization.activation(video['cas'], read).T
  return {
    'labels': [classes[i] for i in index],
    'cas': cas[index].clip(-limit, limit).astype(np.float16),
    'foreground': video['foreground'].astype(np.float16),
    'magnitude': magnitude[:, 0].astype(np.float16),
    'background': video['click'] == len(classes),
  }


def write(path, videos):
  """Write {video: what `take` returns}, whole or not at all."""
  rows = list(videos.values())
  stacked = {
    key: np.stack([row[key] for row in rows])
    for key in ('foreground', 'magnitude', 'background')
  }
  with files.atomic(path) as f:
    np.savez_compressed(
      f,
      video=np.array(list(videos)),
      cas=np.concatenate([row['cas'] for row in rows]),
      label=np.array([name for row in rows for name in row['labels']], str),
      owner=np.repeat(np.arange(len(rows)), [len(r['labels']) for r in rows]),
      **stacked,
    )


def read(path) -> dict:
  """Read what `write` wrote; nothing where the file is missing.

  Raises:
    errors.InputError: it is another file.
  """
  if not path.exists():
    return {}
  try:
    with path.open('rb') as f, np.load(f) as loaded:
      arrays = {key: loaded[key] for key in loaded}
    videos = {}
    for i, name in enumerate(arrays['video'].tolist()):
      own = arrays['owner'] == i
      videos[name] = {
        'labels': arrays['label'][own].tolist(),
        'cas': arrays['cas'][own],
      } | {
        key: arrays[key][i] for key in ('foreground', 'magnitude', 'background')
      }
    return videos
  except (KeyError, IndexError, ValueError, EOFError, zipfile.BadZipFile) as e:
    raise errors.InputError(f'{path}: no curves in it: {e!r}') from e
