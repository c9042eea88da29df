"""The commands of docs/data.md, run as they stand, one after another.

Trainings only if DOCS=all, which takes a minute; else their flags are checked.
"""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
# What `python -m backtal_jax.main …` does then.
_FLAGS = """
python() {
  if [[ ${2:-} != backtal_jax.main ]]; then command python "$@"; return; fi
  command python -c 'import sys; from backtal_jax import main
main.flags.FLAGS(sys.argv); main.fields.check(main.flags.FLAGS.config)' "${@:3}"
}
"""


def test_docs_data(tmp_path):
  for name in ('backtal_jax', 'configs'):
    (tmp_path / name).symlink_to(ROOT / name)
  text = (ROOT / 'docs' / 'data.md').read_text()
  blocks = re.findall(r'```sh\n(.*?)```', text, re.DOTALL)
  assert len(blocks) == 8
  path = f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'
  shim = '' if os.environ.get('DOCS') == 'all' else _FLAGS
  for block in blocks:
    done = subprocess.run(
      ['bash', '-euo', 'pipefail', '-c', shim + block],
      cwd=tmp_path,
      env=os.environ | {'PATH': path},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    assert done.returncode == 0, f'{block}\n{done.stdout}'
  mine = tmp_path / 'data/mine'
  assert len(list((mine / 'open/training').glob('*.npz'))) == 160
  assert len(list((mine / 'prepared').glob('t*/*.npz'))) == 220
  assert (mine / 'prepared/tfds/prepared/1.1.0/videos.json').exists()
  assert (mine / 'train_000.png').read_bytes().startswith(b'\x89PNG')
