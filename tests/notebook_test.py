"""The tour runs from the first cell to the last, and shows what it says."""

import pathlib

import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / 'notebooks' / 'tour.ipynb'


@pytest.mark.slow
def test_tour_runs():
  nbclient = pytest.importorskip('nbclient')
  nbformat = pytest.importorskip('nbformat')
  pytest.importorskip('ipykernel')
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  for cell in notebook.cells:
    assert not cell.get('outputs'), 'committed with outputs'
  client = nbclient.NotebookClient(
    notebook,
    timeout=300,
    kernel_name='python3',
    resources={'metadata': {'path': str(NOTEBOOK.parents[1])}},
  )
  client.execute()
  outputs = [o for cell in notebook.cells for o in cell.get('outputs', ())]
  pictures = [o for o in outputs if 'image/png' in o.get('data', {})]
  assert len(pictures) == 1 + 3 + 1
  text = ''.join(o.get('text', '') for o in outputs)
  assert text.count('mAP %') >= 2
  assert 'report.html' in text and 'compare.html' in text
  shares = notebook.cells[-3]
  assert 'figures.shares' in shares.source and shares.outputs
