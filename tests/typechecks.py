"""What holds the package to its types in tests: ints are floats, too."""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
