"""What holds the package to its types in tests: NumPy's numbers are numbers."""

import beartype
import numpy as np

_WIDER = {
  bool: bool | np.bool_,
  int: int | np.integer,
  float: float | int | np.floating | np.integer,
}
check = beartype.beartype(
  conf=beartype.BeartypeConf(hint_overrides=beartype.FrozenDict(_WIDER))
)
