"""Segments in the forms of other tools, and back as ground truth."""

import csv
import json
import re
from xml.etree import ElementTree

import pytest

from backtal_jax.data import annotations
from backtal_jax.metrics import segments as columns
from backtal_jax.prepare import __main__ as prepare

# A video whose first picture is at 2.5 s of the player's clock, and another
# with nothing in it. Two of a class overlap.
LIST = 'video_id,duration,fps,first_picture\na,10,5,2.5\nb c,4,5,0\n'
RESULTS = {'a': [
  {'label': 'run', 'segment': [1.0, 3.2004], 'score': 0.75},
  {'label': 'run', 'segment': [2.5, 4.0], 'score': 0.5},
  {'label': 'j & <ü>', 'segment': [0.5, 2.0], 'score': 0.25},
], 'b c': []}  # fmt: skip


@pytest.fixture
def given(tmp_path):
  (tmp_path / 'videos.csv').write_text(LIST)
  (tmp_path / 'p.json').write_text(json.dumps({'results': RESULTS}))
  return tmp_path


def convert(folder, output, *more, source='p.json', listed=True):
  videos = [f'--video_list={folder}/videos.csv'] if listed else []
  prepare.main([
    'convert-segments', '--segments', str(folder / source), *videos,
    '--output', str(folder / output), *more,
  ])  # fmt: skip


def fails(folder, capsys, *args, **kwargs):
  with pytest.raises(SystemExit) as told:
    convert(folder, *args, **kwargs)
  assert isinstance(told.value.code, str) and '\n' not in told.value.code
  capsys.readouterr()
  return told.value.code


def test_predictions_come_back(given):
  convert(given, 'again.json')
  convert(given, 't.csv')
  convert(given, 'third.json', source='t.csv')
  assert json.loads((given / 'again.json').read_text())['results'] == RESULTS
  table = json.loads((given / 'third.json').read_text())['results']
  assert table == {'a': RESULTS['a']}  # a table cannot name what is empty
  rows = list(csv.reader((given / 't.csv').read_text().splitlines()))
  assert rows[:2] == [['video_id', 'label', 'start', 'end', 'score'],
                      ['a', 'run', '1.0', '3.2004', '0.75']]  # fmt: skip


def test_a_row_a_frame(given):
  convert(given, 'f.csv', '--frames')
  rows = list(csv.reader((given / 'f.csv').read_text().splitlines()))
  assert rows[0] == ['video_id', 'frame', 'time', 'j & <ü>', 'run']
  assert len(rows) == 1 + 50 + 20
  # Frames last 0.2 s; what counts is what is over their middle.
  values = {(r[0], int(r[1])): [float(x) for x in r[2:]] for r in rows[1:]}
  assert values['a', 4] == [0.8, 0.25, 0.0]
  assert values['a', 5] == [1.0, 0.25, 0.75]
  assert values['a', 12] == [2.4, 0.0, 0.75]  # its middle is at 2.5
  assert values['a', 15] == [3.0, 0.0, 0.75]
  assert values['a', 16] == [3.2, 0.0, 0.5]
  assert values['b c', 19] == [3.8, 0.0, 0.0]


def test_elan_has_a_tier_a_class(given):
  convert(given, '{video}.eaf')
  root = ElementTree.parse(given / 'a.eaf').getroot()
  slots = {x.get('TIME_SLOT_ID'): int(x.get('TIME_VALUE'))
           for x in root.iter('TIME_SLOT')}  # fmt: skip
  tiers = {
    tier.get('TIER_ID'): [
      (slots[x.get('TIME_SLOT_REF1')], slots[x.get('TIME_SLOT_REF2')],
       x.findtext('ANNOTATION_VALUE'))
      for x in tier.iter('ALIGNABLE_ANNOTATION')
    ]
    for tier in root.iter('TIER')
  }  # fmt: skip
  assert tiers == {
    'run': [(3500, 5700, '0.75')],
    'run-2': [(5000, 6500, '0.5')],
    'j & <ü>': [(3000, 4500, '0.25')],
  }
  assert root.find('HEADER/MEDIA_DESCRIPTOR').get('MEDIA_URL') == './a.mp4'
  assert (given / 'b c.eaf').exists()


def test_subtitles(given):
  convert(given, '{video}.vtt')
  convert(given, '{video}.srt')
  assert (given / 'a.vtt').read_text() == (
    'WEBVTT\n\n1\n00:00:03.000 --> 00:00:04.500\nj &amp; &lt;ü&gt; 0.25\n\n'
    '2\n00:00:03.500 --> 00:00:05.700\nrun 0.75\n\n'
    '3\n00:00:05.000 --> 00:00:06.500\nrun 0.50\n'
  )
  text = (given / 'a.srt').read_text()
  assert text.startswith('1\n00:00:03,000 --> 00:00:04,500\nj & <ü> 0.25\n\n2')
  assert (given / 'b c.vtt').read_text() == 'WEBVTT\n'


@pytest.mark.parametrize('text', [
  'sep=;\r\nVideo_ID;Label;Start;End\r\na;run;1,5;0:03\r\n',
  'video_id\tlabel\tstart\tend\na\trun\t1.5\t3\n',
])  # fmt: skip
def test_dialects_of_tables_of_segments(given, text):
  (given / 't.csv').write_text(text)
  convert(given, 'truth.json', source='t.csv')
  truth = annotations.read_ground_truth(given / 'truth.json')
  assert truth.videos['a'].segments == (annotations.Segment(1.5, 3, 'run'),)
  assert truth.videos['a'].subset == 'training'
  # A ground truth that knows the video tells its subset.
  known = json.loads((given / 'truth.json').read_text())
  known['database']['a']['subset'] = 'validation'
  (given / 'known.json').write_text(json.dumps(known))
  convert(given, 'again.json', f'--ground_truth={given}/known.json',
          source='t.csv', listed=False)  # fmt: skip
  again = annotations.read_ground_truth(given / 'again.json')
  assert again.videos['a'].subset == 'validation'


@pytest.mark.parametrize('output', ['{video}.eaf', 'all.via.json'])
def test_tools_give_back_ground_truth(given, output):
  convert(given, output)
  source = output.replace('{video}', 'a')
  convert(given, 'truth.json', '--subset=validation', source=source)
  truth = annotations.read_ground_truth(given / 'truth.json')
  video = truth.videos['a']
  assert (video.subset, video.duration, video.fps) == ('validation', 10, 5)
  assert video.first_picture == 2.5
  expected = {(x['label'], *x['segment']) for x in RESULTS['a']}
  got = {(s.label, s.start, s.end) for s in video.segments}
  for a, b in zip(sorted(expected), sorted(got), strict=True):
    assert a[0] == b[0] and b[1:] == pytest.approx(a[1:], abs=1e-3)
  assert truth.classes == ('j & <ü>', 'run')
  # It is evaluated as it is.
  columns.make_truth(truth, 'validation')
  # And goes out again, without scores.
  convert(given, 'back.csv', source='truth.json', listed=False)
  head, *rows = (given / 'back.csv').read_text().splitlines()
  assert head == 'video_id,label,start,end' and len(rows) == 3


def test_what_was_changed_in_elan_counts(given):
  convert(given, '{video}.eaf')
  text = (given / 'a.eaf').read_text()
  # One drawn anew has no text; one was given another class by its text.
  text = text.replace('>0.75<', '><').replace('>0.5<', '>j &amp; &lt;ü&gt;<')
  text = text.replace('TIME_VALUE="3500"', 'TIME_VALUE="3600"')
  (given / 'a.eaf').write_text(text)
  convert(given, 'truth.json', source='a.eaf')
  truth = annotations.read_ground_truth(given / 'truth.json')
  assert [(s.label, s.start) for s in truth.videos['a'].segments] == [
    ('j & <ü>', 0.5), ('run', 1.1), ('j & <ü>', 2.5),
  ]  # fmt: skip


def test_what_a_tool_leaves_without_times_is_told(given, capsys):
  convert(given, '{video}.eaf')
  text = (given / 'a.eaf').read_text().replace(' TIME_VALUE="3500"', '')
  (given / 'a.eaf').write_text(text)
  convert(given, 'back.csv', source='a.eaf')
  told = f'left out: {given}/a.eaf: 1 annotations without times of their own'
  assert told in capsys.readouterr().err
  assert len((given / 'back.csv').read_text().splitlines()) == 3


def _item(*segment, label='run', score=0.5):
  return {'label': label, 'segment': list(segment), 'score': score}


TRUTH = {'database': {'a': {
  'subset': 'training', 'duration': 10.0,
  'annotations': [{'label': 'run', 'segment': [1, 2]}]}}}  # fmt: skip


def test_a_table_adds_to_a_ground_truth(given):
  (given / 'truth.json').write_text(json.dumps(TRUTH))
  (given / 't.csv').write_text('video_id,label,start,end\na,fly,3,4\n')
  prepare.main(['convert-segments', '--subset=test', '--segments',
                f'{given}/truth.json', f'{given}/t.csv',
                f'--output={given}/both.json'])  # fmt: skip
  both = annotations.read_ground_truth(given / 'both.json')
  assert both.classes == ('run', 'fly')
  assert both.videos['a'] == annotations.AnnotatedVideo(
    'a', 'training', 10.0, None, (
      annotations.Segment(1, 2, 'run'), annotations.Segment(3, 4, 'fly')),
  )  # fmt: skip


@pytest.mark.parametrize(('video', 'item', 'message'), [
  ('other', _item(1, 2), "video 'other' is unknown"),
  ('a', _item(1, 2, label='fly'), "class 'fly' is unknown, expected one of"),
  ('a', _item(9, 11), 'a segment ends at 11 s, the video at 10 s'),
  ('a', _item(3, 3), 'expected its end after its start'),
  ('a', _item(4, 3), 'a segment from 4 to 3 s'),
  ('a', _item(-1, 3), 'and that at 0 s or later'),
  ('a', _item(1, 2, score='x'), "score is 'x', expected a finite number"),
])  # fmt: skip
def test_segments_that_cannot_be(given, capsys, video, item, message):
  (given / 'truth.json').write_text(json.dumps(TRUTH))
  (given / 'p.json').write_text(
    json.dumps({'results': {video: [item], 'a' * (video != 'a') or 'A': []}})
  )
  more = f'--ground_truth={given}/truth.json'
  assert message in fails(given, capsys, 'o.json', more, listed=False)
  assert not (given / 'o.json').exists()
  convert(given, 'o.json', more, '--lenient', listed=False)
  assert message in capsys.readouterr().err
  found = json.loads((given / 'o.json').read_text())['results']
  assert not any(found.values())


@pytest.mark.parametrize(('output', 'more', 'source', 'message'), [
  ('o.npz', (), 'p.json', 'ends in .npz'),
  ('o.json', ('--frames',), 'p.json', '--frames makes a table'),
  ('o.eaf', (), 'p.json', '2 videos, but such a file is of one; expected '
   '{video} in its name'),
  ('o.csv', ('--frames',), 'alone.json', 'expected both for --frames'),
  ('{video}.json', (), 'drawn.csv', 'ground truth is one file'),
  ('o.json', (), 'clicks.csv', "a moment of 'background' at 3, expected a se"),
  ('o.json', (), 'bad.csv', 'start is'),
  ('o.json', (), 'absent.json', 'no such file'),
])  # fmt: skip
def test_what_cannot_be_written(given, capsys, output, more, source, message):
  (given / 'alone.json').write_text(
    json.dumps({'results': {'q': [_item(1, 2)]}})
  )
  (given / 'drawn.csv').write_text('video_id,label,start,end\na,run,1,2\n')
  (given / 'bad.csv').write_text('video_id,label,start,end\na,run,x,2\n')
  (given / 'clicks.csv').write_text('video_id,time,label\na,3,background\n')
  before = {*given.iterdir()}
  listed = source != 'alone.json'
  code = fails(given, capsys, output, *more, source=source, listed=listed)
  assert re.search(re.escape(message).replace('no\\ such', '(?i)no such'), code)
  assert {*given.iterdir()} == before
