"""What a model is given to predict from: feature files or videos."""

import dataclasses
import functools

import jax
from etils import epath

from backtal_jax import errors
from backtal_jax.data import feature_files, feature_records, sources
from backtal_jax.video import decode, encoder


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads files for a model that knows how its features were made.

  Attributes:
    record: See feature_records; {} if unknown.
    shape: (T, D) of the network's input.
    mesh: Devices.
    rgb, flow: Weight files of I3D, see encoder.plan.
    preset: How videos are encoded, where `record` does not say.
    flow_method: How flow is estimated, see flow.choose.
  """

  record: dict
  shape: tuple[int, int]
  mesh: jax.sharding.Mesh
  rgb: str = ''
  flow: str = ''
  preset: str = ''
  flow_method: str = ''

  def __call__(
    self, path: epath.Path, duration: float | None = None
  ) -> sources.Example:
    """Read a feature file, or encode a video.

    Args:
      path: Of the file.
      duration: Seconds, of a feature file that does not say.

    Raises:
      errors.InputError: The file cannot be used, or its features are others
        than those that the model was trained on.
    """
    if not decode.is_video(path):
      found = feature_records.read(path.parent)
      feature_records.require(self.record, found, path)
      return feature_files.read_video(path, duration, shape=self.shape)
    features, grid = encoder.encode_video(self._encoder, path)
    return feature_files.make_video(
      path, [features], grid.duration, grid=grid, shape=self.shape
    )._replace(name=path.stem)

  @functools.cached_property
  def _encoder(self):
    return encoder.encoder_like(
      self.record, rgb=self.rgb, flow=self.flow, preset=self.preset,
      flow_method=self.flow_method, mesh=self.mesh,
    )  # fmt: skip


def find(path: epath.Path) -> list[epath.Path]:
  """List the videos or the feature files of a folder, or the one file.

  Raises:
    errors.InputError: There is nothing, or both.
  """
  if not path.is_dir():
    return [path]
  names = [p for p in path.iterdir() if not p.name.startswith('.')]
  has_videos = any(decode.is_video(p) for p in names)
  if has_videos and any(p.suffix in feature_files.SUFFIXES for p in names):
    raise errors.InputError(
      f'{path}: holds videos and features, expected only the ones or the others'
    )
  return decode.find(path) if has_videos else feature_files.find(path)
