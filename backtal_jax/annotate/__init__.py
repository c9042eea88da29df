"""The click page: background clicks in the browser, proposals by the model.

  python -m backtal_jax.annotate --videos FOLDER --clicks clicks.csv \
      --annotator NAME

From the file up: `history` (what was done, a line each), `store` (the files
on disk), `videos` (the folder), `queue` (what a click is worth), `server` and
`page/` (what the browser shows). The server needs the extra `annotate`.
"""

from backtal_jax.annotate import queue

proposals = queue.proposals
