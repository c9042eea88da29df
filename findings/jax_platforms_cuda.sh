#!/usr/bin/env bash
# jax 0.10.2, Python 3.11.
#
# Guess:  JAX_PLATFORMS that names a platform which is not there ends in the RuntimeError
#         that says so.
# Is:     cuda, without its plugin, ends in an AssertionError without a message; every
#         other name in the RuntimeError.
# Seen:   tpu: RuntimeError
#         nowhere: RuntimeError
#         cuda: AssertionError, no message
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2
for name in tpu nowhere cuda; do
  JAX_PLATFORMS=$name "$folder/venv/bin/python" -c "
import jax
try:
  jax.devices()
except Exception as e:
  print('$name:', type(e).__name__ + ('' if str(e) else ', no message'))
" 2> /dev/null
done | tee "$folder/seen"
diff - "$folder/seen" << 'END'
tpu: RuntimeError
nowhere: RuntimeError
cuda: AssertionError, no message
END
