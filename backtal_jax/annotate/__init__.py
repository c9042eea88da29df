"""The click page: background clicks in the browser, proposals by the model.

  python -m backtal_jax.annotate --videos FOLDER --clicks clicks.csv \
      --annotator NAME

  python -m backtal_jax.annotate --project FOLDER --videos FOLDER

From the file up: `history` (what was done, a line each), `acts` (requests to
events), `labels` and `reviews` (files), `store` (all of them on disk),
`videos` (the folder), `queue` (what a click is worth), `project` (one folder
for all), `jobs` (commands that run), `server` and `page/` (what the browser
shows). The server needs the extra `annotate`.
"""

from backtal_jax.annotate import queue

proposals = queue.proposals
