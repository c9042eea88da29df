"""Click files of VIA 3, Label Studio, BORIS and ELAN, read and written.

The files are made by hand, in the shapes that the tools' documentation gives.
"""

import json

import pytest

from backtal_jax import errors, files
from backtal_jax.annotate import history
from backtal_jax.data import annotations
from backtal_jax.prepare import __main__ as command

Click = annotations.Click
TRUTH = annotations.Annotations(
  {
    name: annotations.AnnotatedVideo(name, 'training', 60.0, 25.0, ())
    for name in ('one', 'two b%')
  },
  ('jump', 'run'),
)

VIA = {
  'project': {'pname': 'x', 'data_format_version': '3.1.1'},
  'attribute': {
    '1': {'aname': 'TEMPORAL-SEGMENTS', 'type': 4,
          'options': {'0': 'background', '1': 'run'}},
    '2': {'aname': 'Annotator', 'type': 1, 'options': {}},
  },
  'file': {
    '1': {'fid': '1', 'fname': 'one.mp4', 'type': 4, 'src': 'one.mp4'},
    '7': {'fid': '7', 'fname': 'C:\\videos\\two b%.webm', 'src': ''},
  },
  'view': {'1': {'fid_list': ['1']}, '2': {'fid_list': [7]}},
  'metadata': {
    '1_a': {'vid': '1', 'flg': 0, 'z': [12.5], 'xy': [], 'av': {'1': '0'}},
    '2_b': {'vid': '2', 'z': [3, 3], 'xy': [], 'av': {'1': '1', '2': 'Ann'}},
    '2_c': {'vid': '2', 'z': [], 'xy': [], 'av': {'1': '1'}},
  },
}  # fmt: skip
VIA_CLICKS = [
  Click('one', 12.5, 'background', 'file'), Click('two b%', 3.0, 'run', 'Ann'),
]  # fmt: skip

LABEL_STUDIO = [
  {'id': 1, 'data': {'video': '/data/upload/3/8ee4bbd1-one.mp4'},
   'annotations': [{
     'completed_by': {'id': 2, 'email': 'ann@example.org'},
     'result': [{
       'type': 'timelinelabels',
       'value': {'ranges': [{'start': 26, 'end': 26}, {'start': 1, 'end': 1}],
                 'timelinelabels': ['background']},
     }],
   }]},
  {'id': 2, 'data': {'video': '/data/local-files/?d=a/two%20b%25.mp4'},
   'annotations': [{
     'completed_by': 5,
     'result': [
       {'value': {'ranges': [{'start': 51, 'end': 51}],
                  'timelinelabels': ['run']}},
       {'value': {'choices': ['fine']}},
     ],
   }]},
]  # fmt: skip
LABEL_STUDIO_CLICKS = [
  Click('one', 1.0, 'background', 'ann@example.org'),
  Click('one', 0.0, 'background', 'ann@example.org'),
  Click('two b%', 2.0, 'run', '5'),
]

BORIS = """Observation id\tMedia file name\tFPS\tBehavior\tBehavior type\tTime
o\tvideos/one.mp4\t25\tbackground\tPOINT\t12.5
o\tvideos/two b%.mp4\t25\trun\tPOINT\t3
"""
BORIS_CLICKS = [
  Click('one', 12.5, 'background', 'file'),
  Click('two b%', 3.0, 'run', 'file'),
]
BORIS_STATES = """Observation id: o
Media file name,Behavior,Behavior type,Time
one.mp4,run,START,10
one.mp4,jump,START,12
one.mp4,run,STOP,20
one.mp4,jump,STOP,30
one.mp4,background,POINT,5
"""
BORIS_BOTH = """Media file name,Behavior,Behavior type,Start (s),Stop (s)
one.mp4,run,STATE,10,20
one.mp4,jump,STATE,12,30
one.mp4,background,POINT,5,5
"""

ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///home/x/one.mp4" MIME_TYPE="video/mp4"/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="10000"/>
    <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="20000"/>
    <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="12000"/>
    <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="30000"/>
  </TIME_ORDER>
  <TIER ANNOTATOR="Ann" LINGUISTIC_TYPE_REF="default-lt" TIER_ID="run">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE/></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="other">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
      <ANNOTATION_VALUE>jump</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
</ANNOTATION_DOCUMENT>
"""  # noqa: E501, as ELAN writes it


def written(tmp_path, content):
  """Write a file whose name says nothing of its form."""
  path = tmp_path / 'file.txt'
  text = content if isinstance(content, str) else json.dumps(content)
  path.write_text(text)
  return path


@pytest.mark.parametrize(
  'content, expected',
  [
    (VIA, VIA_CLICKS),
    (LABEL_STUDIO, LABEL_STUDIO_CLICKS),
    (BORIS, BORIS_CLICKS),
    (BORIS.replace('\t', ','), BORIS_CLICKS),
  ],
)
def test_moments_are_clicks(tmp_path, content, expected):
  path = written(tmp_path, content)
  assert annotations.read_clicks(path, TRUTH) == (expected, [])


@pytest.mark.parametrize(
  'content, who', [(BORIS_STATES, 'file'), (BORIS_BOTH, 'file'), (ELAN, 'Ann')]
)
def test_intervals_are_clicks_only_where_asked_for(tmp_path, content, who):
  path = written(tmp_path, content)
  with pytest.raises(errors.InputError, match='--intervals midpoint or comp'):
    annotations.read_clicks(path, TRUTH)
  points = [] if content is ELAN else [5.0]
  clicks, _ = annotations.read_clicks(path, TRUTH, intervals='midpoint')
  assert sorted(c.time for c in clicks) == [*points, 15.0, 21.0]
  assert {(c.label, c.time) for c in clicks} >= {('run', 15.0), ('jump', 21.0)}
  assert Click('one', 15.0, 'run', who) in clicks
  clicks, _ = annotations.read_clicks(path, TRUTH, intervals='complement')
  assert {c.label for c in clicks} == {'background'}
  if content is ELAN:  # two annotators: 0–10, 20–60; 0–12, 30–60
    assert sorted(c.time for c in clicks) == [5, 6, 40, 45]
  else:  # 10 to 30 s are covered
    assert sorted(c.time for c in clicks) == [5, 5, 45]


def test_frames_of_label_studio_may_begin_at_zero(tmp_path):
  task = json.loads(json.dumps(LABEL_STUDIO[:1]))
  (item,) = task[0]['annotations'][0]['result']
  item['value']['ranges'] = [{'start': 0, 'end': 0}, {'start': 25, 'end': 75}]
  path = written(tmp_path, task)
  clicks, _ = annotations.read_clicks(path, TRUTH, intervals='midpoint')
  assert [c.time for c in clicks] == [0.0, 2.0]
  clicks, _ = annotations.read_clicks(path, fps=50, intervals='midpoint')
  assert [c.time for c in clicks] == [0.0, 1.0]
  with pytest.raises(errors.InputError, match='no frames a second'):
    annotations.read_clicks(path, intervals='midpoint')


@pytest.mark.parametrize('content, message', [
  ('{"metadata": ', 'not a whole via file'),
  ({'database': {}}, 'not the shape of a via file of clicks'),
  ([{'data': {}}], 'not a whole labelstudio file'),
  ('<?xml version="1.0"?><a>', 'not a whole elan file'),
  ('<?xml version="1.0"?><a/>', '<a>, expected an ELAN file'),
  (ELAN.replace(' TIME_VALUE="12000"', ''), 'annotation a2 has no time'),
  ('Media file name,Behavior\none.mp4,run\n', 'no column Time or Start'),
  (BORIS_STATES.replace('POINT,5', 'X,5'), "'X', expected POINT, START"),
  (BORIS_STATES.replace('one.mp4,run,STOP,20\n', ''), 'without its STOP'),
  (BORIS_STATES.replace('START,10', 'POINT,10'), 'without its other end'),
  (BORIS.replace('12.5', 'x'), 'a time of .background. that is no number'),
  (BORIS.replace('12.5', 'nan'), 'expected a finite number'),
  (BORIS.replace('12.5', '61'), 'the video ends at 60 s'),
  (BORIS.replace('one.mp4', 'no.mp4'), "video 'no' is not in the ground"),
])  # fmt: skip
def test_damaged_files(tmp_path, content, message):
  with pytest.raises(errors.InputError, match=message):
    annotations.read_clicks(
      written(tmp_path, content), TRUTH, intervals='midpoint'
    )


def test_complement_needs_a_duration(tmp_path):
  with pytest.raises(errors.InputError, match="no duration of video 'one'"):
    annotations.read_clicks(
      written(tmp_path, BORIS_BOTH), intervals='complement'
    )


CLICKS = [
  Click('one', 0.0, 'background', 'Ann'),
  Click('one', 12.3456, 'background', 'Ann'),
  Click('one', 12.3556, 'run', 'Ann'),
  Click('one', 12.3456, 'jump', 'A <&> "2"'),
  Click('two b%', 59.0, 'background', 'Ann'),
]


def test_via_and_elan_give_back_what_they_were_given(tmp_path):
  ours = tmp_path / 'clicks.csv'
  annotations.write_clicks(ours, CLICKS)
  for output in ('x.json', 'again.csv', 'elan'):
    command.main(
      ['convert-clicks', f'--clicks={ours}', f'--output={tmp_path}/{output}']
    )
  for name in ('x.json', 'again.csv'):
    found, _ = annotations.read_clicks(tmp_path / name, TRUTH)
    assert found == CLICKS
  paths = sorted((tmp_path / 'elan').iterdir())
  assert [p.name for p in paths] == ['one.eaf', 'two b%.eaf']
  found = []
  for path in paths:
    found += annotations.read_clicks(path, TRUTH, intervals='midpoint')[0]
  key = lambda c: (c.video, c.annotator, c.time)
  for got, click in zip(
    sorted(found, key=key), sorted(CLICKS, key=key), strict=True
  ):
    assert got.time == pytest.approx(click.time, abs=0.001)
    assert (got.video, got.label) == (click.video, click.label)
    assert got.annotator == click.annotator
  command.main(
    ['convert-clicks', '--clicks', *map(str, paths), '--intervals=midpoint',
     f'--output={tmp_path}/back.csv']
  )  # fmt: skip
  assert len(annotations.read_clicks(tmp_path / 'back.csv')[0]) == len(CLICKS)


def test_statistics_show_the_time_that_clicks_took(tmp_path, capsys):
  truth, clicks = tmp_path / 'truth.json', tmp_path / 'clicks.csv'
  annotations.write_ground_truth(truth, TRUTH)
  annotations.write_clicks(clicks, CLICKS[:2])
  events = [
    {'seq': 2, 'at': 1, 'who': 'Ann', 'kind': 'click', 'video': 'one',
     'add': [0, 'background'], 'spent': 20.0},
    {'seq': 3, 'at': 2, 'who': 'Ann', 'kind': 'click', 'video': 'one',
     'add': [12.3456, 'background'], 'spent': 10.0},
  ]  # fmt: skip
  history.log_path(clicks).write_text(
    '\n'.join(map(json.dumps, [{'history': 'x', 'imported': 0}, *events, '']))
    .removesuffix('""')
  )  # fmt: skip
  command.main(
    ['click-stats', f'--ground_truth={truth}', f'--clicks={clicks}',
     f'--output={tmp_path}/out.json']
  )  # fmt: skip
  assert 'Ann made 2 clicks in 0.5 minutes, 15.0 s a click, 4.0 clicks' in (
    capsys.readouterr().out
  )
  (found,) = files.read_json(tmp_path / 'out.json').values()
  assert found['seconds'] == {'Ann': {'clicks': 2, 'seconds': 30.0}}
