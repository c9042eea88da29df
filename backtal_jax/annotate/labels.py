"""The video labels behind the checkboxes of the page."""

import collections
import itertools
from collections.abc import Iterable

from etils import epath

from backtal_jax import files
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import tables, video_names


class Labels:
  """The video labels, in the file that `prepare custom --labels` reads.

  Args:
    path: Of the file, which need not be there.
    subset: Subset of videos that the file does not name.
  """

  def __init__(self, path: epath.Path, subset: str) -> None:
    self.path, self._subset = path, subset
    self._names = {}  # of the videos in the file
    self._rows = collections.defaultdict(list)
    for _, row in formats.read_labels(path) if path.exists() else ():
      self._rows[row['video_id']].append(row)

  def names(self) -> set[str]:
    """Return every label in the file."""
    return {r['label'] for rows in self._rows.values() for r in rows} - {''}

  def get(self, video: str) -> list[str]:
    """Return the labels of a video."""
    rows = self._rows.get(self._name(video), ())
    return [row['label'] for row in rows if row['label']]

  def duration(self, video: str) -> float | None:
    """Return the seconds that the file tells of a video, or None."""
    for row in self._rows.get(self._name(video), ()):
      if row.get('duration'):
        return formats.seconds(row['duration'], f'{self.path}: the duration')
    return None

  def set(
    self, video: str, labels: Iterable[str], duration: float | None
  ) -> None:
    """Write the file with other labels of a video, none in an empty row."""
    name, rows = self._name(video), dict(self._rows)
    known = rows[name][0] if name in rows else {'subset': self._subset}
    known = {'duration': '' if duration is None else str(duration)} | known
    rows[name] = [
      known | {'video_id': name, 'label': label} for label in labels or ['']
    ]
    table = [
      [row.get(column, '') for column in formats.LABEL_COLUMNS]
      for row in itertools.chain(*rows.values())
    ]
    files.write_text(self.path, tables.text([formats.LABEL_COLUMNS, *table]))
    self._rows[name] = rows[name]

  def _name(self, video):
    if video not in self._names:
      match = video_names.match_one(video, self._rows)
      self._names[video] = match or video
    return self._names[video]
