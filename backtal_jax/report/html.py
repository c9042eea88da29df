"""A self-contained HTML page of charts and tables (template beside it)."""

import html
import string

from etils import epath

from backtal_jax import files
from backtal_jax.report import style


def charts(charts):
  """Lay out (title, caption, Figure) triples side by side."""
  parts = [
    f'<figure>{style.svg(figure, f"{title}. {text}")}<figcaption>'
    f'<b>{html.escape(title)}</b>{html.escape(text)}</figcaption></figure>'
    for title, text, figure in charts
  ]
  return f'<div class="charts">{"".join(parts)}</div>'


def table(head, rows, caption):
  """Lay out a table whose columns sort; floats get one decimal.

  Args:
    head: names of the columns.
    rows: of strings and numbers, None for what is not known.
    caption: above it.
  """
  heads = ''.join(
    f'<th scope="col" aria-sort="none"><button type="button">{html.escape(h)}'
    '</button></th>'
    for h in head
  )
  body = ''.join(
    f'<tr>{"".join(f"<td>{_cell(value)}</td>" for value in row)}</tr>'
    for row in rows
  )
  return (
    f'<p>{html.escape(caption)}</p><div class="scroll" tabindex="0" '
    f'role="group" aria-label="{html.escape(caption)}"><table '
    f'aria-label="{html.escape(caption)}"><thead><tr>{heads}</tr></thead>'
    f'<tbody>{body}</tbody></table></div>'
  )


def _cell(value):
  if value is None:
    return '–'
  return html.escape(f'{value:.1f}' if isinstance(value, float) else str(value))


def signed(value):
  """Format a difference with its sign."""
  return f'{round(value, 1) + 0.0:+.1f}'.replace('-', '−')


def write(path, title, body) -> epath.Path:
  """Write a page of HTML parts, whole or not at all, and return its path."""
  template = epath.resource_path('backtal_jax.report') / 'page.html'
  palette = ' '.join(
    f'--{name}: light-dark({light}, {dark});'
    for name, (light, dark) in style.PALETTE.items()
  )
  text = string.Template(template.read_text()).substitute(
    title=html.escape(title), palette=palette, body=body
  )
  with files.atomic(path, 'w') as f:
    f.write(text)
  return path


def wide(drawn):
  """Lay out {title: Figure} below each other; on a phone they scroll."""
  return ''.join(
    f'<div class="wide" tabindex="0" role="group" '
    f'aria-label="{html.escape(title)}">{style.svg(figure, title)}</div>'
    for title, figure in drawn.items()
  )
