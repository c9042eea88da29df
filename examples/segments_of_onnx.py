"""From features to segments without JAX: NumPy, onnxruntime, localization.py.

  python examples/segments_of_onnx.py X.onnx VIDEO.npy SECONDS

X.onnx is what `--mode export` wrote; VIDEO.npy holds features [T', D] made as
those that the model was trained on, in equal parts of the video.
localization.py needs NumPy alone: a copy beside this file does without the
package.
"""

import json
import sys

import numpy as np
import onnxruntime

try:
  import localization
except ImportError:
  from backtal_jax import localization


def predict(
  session: onnxruntime.InferenceSession,
  features: np.ndarray,
  duration: float,
  frame_num: int | None = None,
) -> list[localization.Detection]:
  """Find the segments of one video.

  Args:
    session: Session of the model.
    features: [T', D].
    duration: Seconds.
    frame_num: How many frames it has; by default 30 a second.
  """
  about = session.get_modelmeta().custom_metadata_map
  classes, options = (
    json.loads(about[key]) for key in ('classes', 'localization')
  )
  num_snippets = int(about['num_snippets'])
  features = resample(np.asarray(features, np.float32), num_snippets)
  names = [output.name for output in session.get_outputs()]
  values = session.run(names, {'feature': features[None]})
  out = {name: value[0] for name, value in zip(names, values, strict=True)}
  frames = frame_num or min(30 * duration, 1000 * num_snippets)
  found = localization.localize(
    out['cas'], out['score'], out['magnitude'],
    frame_num=max(1, round(frames)), duration=duration, **options,
  )  # fmt: skip
  return localization.format_video(found, classes)


def resample(features: np.ndarray, num_snippets: int) -> np.ndarray:
  """Interpolate between the centres of equal parts, [T', D] to [T, D]."""
  here, wanted = (
    (np.arange(n) + 0.5) / n for n in (len(features), num_snippets)
  )
  columns = [np.interp(wanted, here, column) for column in features.T]
  return np.stack(columns, axis=1).astype(np.float32)


if __name__ == '__main__':
  model, video, seconds = sys.argv[1:]
  runtime = onnxruntime.InferenceSession(model)
  print(*predict(runtime, np.load(video), float(seconds)), sep='\n')
