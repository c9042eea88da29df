"""Do annotators agree: counts by hand, kappa as known from the literature."""

import json

import pytest
from prepare_test import command

from backtal_jax.prepare import agreement

# Of docs/method.md, section 8: gaps that hold a click, and all.
_HIT, _GAPS = {'A1': 1853, 'A2': 2269, 'A3': 2074}, 2880
HEAD = 'video_id,time,label,annotator\n'
TRUTH = {'database': {
  'x': {'subset': 'training', 'duration': 20.0, 'annotations': [
    {'label': 'run', 'segment': [4.0, 8.0]},
    {'label': 'run', 'segment': [12.0, 16.0]}]},
  'y': {'subset': 'training', 'duration': 10.0, 'annotations': [
    {'label': 'run', 'segment': [2.0, 3.0]}]},
  'z': {'subset': 'training', 'duration': 10.0, 'annotations': []},
}}  # fmt: skip
A = 'x,1,background\nx,10,background\nx,17.5,background\ny,1,background\n'
B = 'x,2,background\nx,6,run\nx,17,run\ny,1,background\ny,9,background\n'


def test_cohen_kappa_of_the_textbook():
  # 50 proposals, two readers: 20 both yes, 15 both no, 5 and 10 one of them.
  units = [('y', 'y')] * 20 + [('y', 'n')] * 5
  units += [('n', 'y')] * 10 + [('n', 'n')] * 15
  assert agreement.cohen(units) == (0.7, pytest.approx(0.4))
  assert agreement.cohen([('', '')] * 3) == (1.0, None)
  assert agreement.cohen([]) == (None, None)


def written(tmp_path):
  (tmp_path / 'a.csv').write_text('video_id,time,label\n' + A)
  (tmp_path / 'b.csv').write_text('video_id,time,label\n' + B)
  (tmp_path / 'truth.json').write_text(json.dumps(TRUTH))
  return [str(tmp_path / name) for name in ('a.csv', 'b.csv', 'truth.json')]


def test_counts_by_hand(tmp_path, capsys):
  a, b, truth = written(tmp_path)
  output = tmp_path / 'out.json'
  command('agreement', '--clicks', a, b, ground_truth=truth, output=output)
  (pair,) = json.loads(output.read_text())['pairs']
  # Of x the gaps to 4, to 12, from 16 on; of y to 2 and from 3 on; z is
  # clicked by nobody. A's click at 17.5 is near B's run at 17.
  assert pair['videos'] == {
    'x': {'near_action': 1, 'in_gap_left': 2, 'both': 1, 'one': 2, 'none': 0},
    'y': {'near_action': 0, 'in_gap_left': 1, 'both': 1, 'one': 1, 'none': 0},
  }
  assert [*pair['videos']] == ['x', 'y']
  assert pair['total'] == {
    'near_action': 1, 'in_gap_left': 3, 'both': 2, 'one': 3, 'none': 0,
  }  # fmt: skip
  # A clicked 4 of 5 gaps, B 3: by chance they agree in (12 + 2) / 25.
  assert pair['observed'] == 0.4
  assert pair['kappa'] == pytest.approx((0.4 - 0.56) / 0.44)
  out = capsys.readouterr().out
  assert "Cohen's kappa (of gaps)" in out and 'x: 1 near an action' in out


def test_without_ground_truth_parts_are_compared(tmp_path):
  a, b, _ = written(tmp_path)
  output = tmp_path / 'out.json'
  command('agreement', '--clicks', a, b, output=output)
  found = json.loads(output.read_text())
  # Parts of 2 s of x: A background in 0, 5, 8; B in 1, run in 3 and 8. Of y:
  # A background in 0, B in 0 and 4.
  assert found['units'] == 'parts of 2 s'
  assert found['pairs'][0]['videos'] == {
    'x': {'near_action': 1, 'in_gap_left': 0, 'both': 0, 'one': 5, 'none': 4},
    'y': {'near_action': 0, 'in_gap_left': 0, 'both': 1, 'one': 1, 'none': 3},
  }


@pytest.mark.parametrize(('rows', 'more', 'message'), [
  (('',), (), 'tells of one annotator, expected two'),
  (('', ''), (), 'the very clicks of'),
  (('', 'q,1,background,b\n'), ('--seconds=0',), '--seconds is 0, expected'),
  (('', 'x,1,fly,b\n'), ('--ground_truth={0}/truth.json',), "class 'fly' is"),
  (('', 'q,1,background,b\n'), ('--ground_truth={0}/truth.json',), "video 'q'"),
])  # fmt: skip
def test_what_cannot_be_compared(tmp_path, rows, more, message):
  written(tmp_path)
  paths = []
  for i, text in enumerate(rows):
    paths.append(str(tmp_path / f'{i}.csv'))
    (tmp_path / f'{i}.csv').write_text(HEAD + 'x,1,background,a\n' + text)
  with pytest.raises(SystemExit) as told:
    command('agreement', '--clicks', *paths,
            *(option.format(tmp_path) for option in more),
            output=tmp_path / 'out.json')  # fmt: skip
  assert message in told.value.code and '\n' not in told.value.code
  assert not (tmp_path / 'out.json').exists()


def test_annotators_of_one_file(tmp_path, capsys):
  (tmp_path / 'c.csv').write_text(
    HEAD + 'x,1,background,a\nx,5,background,b\nx,5.5,background,c\n'
  )
  command('agreement', clicks=tmp_path / 'c.csv')
  out = capsys.readouterr().out
  assert all(f'{p} ' in out for p in ('a – b', 'a – c', 'b – c'))


def test_thumos14_annotators(shared, tmp_path, capsys):
  folder = shared / 'data/thumos14'
  paths = sorted(map(str, folder.glob('*Annotation_A?.txt')))
  command('agreement', '--clicks', *paths, output=tmp_path / 'o.json',
          ground_truth=folder / 'gt_thumos14.json')  # fmt: skip
  capsys.readouterr()
  pairs = json.loads((tmp_path / 'o.json').read_text())['pairs']
  assert len(pairs) == 3
  for pair in pairs:
    # What click-stats counts of each file adds up.
    total, (a, b) = pair['total'], pair['names']
    assert total['near_action'] == 0  # background alone
    assert 2 * total['both'] + total['one'] == _HIT[a] + _HIT[b]
    assert total['both'] + total['one'] + total['none'] == _GAPS
    assert 0 < pair['kappa'] < pair['observed'] < 1
