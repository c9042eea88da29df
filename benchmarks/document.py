"""docs/performance.md from results."""

from benchmarks import growth


def replace(path, section, text):
  """Replace what a page holds between the two marks of a section."""
  start, end = f'<!-- {section}: -->', f'<!-- /{section} -->'
  before, rest = path.read_text().split(start)
  _, after = rest.split(end)
  path.write_text(f'{before}{start}\n{text}\n{end}{after}')


def table(results) -> str:
  """Lay results out as Markdown, one line a benchmark and data set."""
  lines = [
    '| benchmark | data set | seconds | limit | ratio | plain form | '
    'plain / ours | GFLOP a video | temporary MiB |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
  ]
  for name, result in results.items():
    if name == 'growth':
      continue
    for kind, r in {'thumos14': result, **result.get('sets', {})}.items():
      plain = r.get('plain_seconds')
      flop, temp = r.get('gflop_per_video'), r.get('temp_bytes')
      cells = [
        name,
        kind,
        f'{r["seconds"]:.3g}',
        f'{r["limit_seconds"]:.3g}',
        f'{r["ratio"]:.2f}',
        f'{plain:.3g}' if plain else '',
        f'{plain / r["seconds"]:.1f}' if plain else '',
        f'{flop:.1f}' if flop else '',
        f'{temp / 2**20:.0f}' if temp else '',
      ]
      lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def write(results, folder):
  """Replace what is measured in FOLDER/performance.md, and the plot."""
  measured = f'\n{table(results)}\n'
  if 'growth' in results:
    growth.plot(results['growth'], folder / 'growth.png')
    measured += '\n![growth of cost](growth.png)\n'
  replace(folder / 'performance.md', 'measured', measured)
