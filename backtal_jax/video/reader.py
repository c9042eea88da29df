"""What a model is given to predict from: feature files or videos."""

import dataclasses
import functools

import jax
from etils import epath

from backtal_jax import errors
from backtal_jax.data import feature_files, feature_records, sources
from backtal_jax.video import encoder, streams
from backtal_jax.video import flow as optical


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads files for a model that knows how its features were made.

  Attributes:
    record: See feature_records; {} if unknown.
    shape: (T, D) of the network's input.
    mesh: Devices.
    rgb, flow: Weight files of I3D, see encoder.plan.
    preset: A name in encoder.PRESETS, by default the record's.
    flow_method: By default what gives the record's flow, see flow.choose.
  """

  record: feature_records.Record
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

    The duration is seconds, of a feature file that does not say.

    Raises:
      errors.InputError: The file cannot be used, or its features are others
        than those that the model was trained on.
    """
    if not streams.is_video(path):
      found = feature_records.read(path.parent)
      feature_records.require(self.record, found, path)
      return feature_files.read_video(path, duration, shape=self.shape)
    features, grid = encoder.encode_video(self._encoder, path)
    return feature_files.make_video(
      path, [features], grid.duration, grid=grid, shape=self.shape
    )._replace(name=path.stem)

  @functools.cached_property
  def _encoder(self):
    """Return an encoder whose features are comparable with the record's."""
    known, method = self.record, self.flow_method
    if not known and not (self.preset and (self.rgb or self.flow)):
      raise errors.InputError(
        'the checkpoint does not say how its features were made (official ones '
        'never do): expected features, from its authors say, instead of '
        'videos; or --rgb and --flow, weights of I3D, and --preset'
      )
    if self.flow and not method:
      method = optical.choose('', known.get('flow'))
    protocol, paths = encoder.plan(
      rgb=self.rgb, flow=self.flow, preset=self.preset or known['preset'],
      flow_method=method, dtype=known.get('dtype', 'float32'),
      **{key: known.get(key) for key in ('fps', 'window', 'stride')},
    )  # fmt: skip
    feature_records.require(known, protocol.record(), 'the video')
    return encoder.Encoder(protocol, paths, self.mesh)


def find(path: epath.Path) -> list[epath.Path]:
  """List the videos or the feature files of a folder, or the one file.

  Raises:
    errors.InputError: There is nothing, or both.
  """
  if not path.is_dir():
    return [path]
  names = [p for p in path.iterdir() if not p.name.startswith('.')]
  has_videos = any(streams.is_video(p) for p in names)
  if has_videos and any(p.suffix in feature_files.SUFFIXES for p in names):
    raise errors.InputError(
      f'{path}: holds videos and features, expected only the ones or the others'
    )
  return streams.find(path) if has_videos else feature_files.find(path)
