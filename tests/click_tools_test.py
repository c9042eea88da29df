"""Click files of annotation tools, read and written.

The first ones are made by hand, in the shapes that documentation gives; those
that say so were exported by the tool itself. Times were worked out by hand.
"""

import itertools
import json
from xml.etree import ElementTree

import hypothesis
import pytest
from annotations_test import in_one_folder, written
from hypothesis import strategies as st
from prepare_test import command

from backtal_jax import errors, files
from backtal_jax.annotate import history
from backtal_jax.data import annotations

Click = annotations.Click


def truth(*names, first_picture=0.0):
  """Return a ground truth of videos of a minute, 25 frames a second."""
  return annotations.Annotations(
    {
      name: annotations.AnnotatedVideo(
        name, 'training', 60.0, 25.0, (), first_picture
      )
      for name in names
    },
    ('jump', 'run'),
  )


TRUTH = truth('one', 'two b%')

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
p\tvideos/two b%.mp4\t25\trun\tPOINT\t3
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
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///videos/one.mp4" MIME_TYPE="video/mp4"/>
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
  assert annotations.read_clicks(path, TRUTH, fps=25) == (expected, [])


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


# Two files in a row, 60 and 90 s; columns of BORIS 10.0.2, as it wrote them.
BORIS_HEAD = (
  'Observation id,Description,Observation type,Source,Time offset (s),'
  'Media duration (s),FPS,Subject,Behavior,Modifier #1,Behavior type,Time,'
  'Media file name\n'
)
AGGREGATED_HEAD = BORIS_HEAD.replace('Time,Media', 'Start (s),Stop (s),Media')
TWO = 'player #1:/v/one.mp4;/v/two b%.mp4|player #2:/v/b.mp4;/v/c.mp4'


def boris(*rows, offset='0.0', source=TWO, durations='60.000;90.000|9.0;9.0'):
  """Return a table, a row (label, kind, time, file[, modifier])."""
  is_whole = len(rows[0][2].split(',')) == 2
  text = AGGREGATED_HEAD if is_whole else BORIS_HEAD
  for label, kind, time, file, *how in rows:
    text += (
      f'o,,Media file(s),{source},{offset},{durations},25;30,dog,{label},'
      f'{"".join(how)},{kind},{time},{file}\n'
    )
  return text


ONE, TWO_B = '/v/one.mp4', '/v/two b%.mp4'


@pytest.mark.parametrize('text, expected', [
  (boris(('run', 'POINT', '59.999', ONE), ('run', 'POINT', '65.000', TWO_B)),
   [('one', 59.999), ('two b%', 5.0)]),
  (boris(('run', 'POINT', '60.000', TWO_B)), [('two b%', 0.0)]),
  (boris(('run', 'START', '61', TWO_B), ('run', 'STOP', '80', TWO_B)),
   [('two b%', 10.5)]),
  # From 50 s of the one file to 15 s of the other.
  (boris(('run', 'START', '50', ONE), ('run', 'STOP', '75', TWO_B)),
   [('one', 55.0), ('two b%', 7.5)]),
  (boris(('run', 'STATE', '50,75', ONE)), [('one', 55.0), ('two b%', 7.5)]),
  (boris(('run', 'STATE', '61,80', TWO_B), ('run', 'POINT', '70,70', TWO_B)),
   [('two b%', 10.5), ('two b%', 10.0)]),
  # BORIS looks files up by times that hold the offset already.
  (boris(('run', 'POINT', '60', TWO_B), ('run', 'POINT', '120', TWO_B),
         offset='50.0'), [('one', 10.0), ('two b%', 10.0)]),
  (boris(('run', 'POINT', '102.5', 'Not found'), offset='100',
         source='player #1:/v/one.mp4', durations='60.000'), [('one', 2.5)]),
  (boris(('run', 'STATE', '15.500,25.540', ONE), offset='5.5',
         source='player #1:/v/one.mp4', durations='60.000'), [('one', 15.02)]),
  # As BORIS writes what is a picture behind the duration that it knows.
  (boris(('run', 'POINT', '60.05', 'Not found'),
         source='player #1:/v/one.mp4', durations='60.000'), [('one', 60.0)]),
  # Two states at once that their modifiers tell apart.
  (boris(('run', 'START', '1', ONE, 'a'), ('run', 'START', '2', ONE, 'b'),
         ('run', 'STOP', '3', ONE, 'a'), ('run', 'STOP', '6', ONE, 'b')),
   [('one', 2.0), ('one', 4.0)]),
  # A tab in a comment is no delimiter, in one observation of many.
  (boris(('run', 'POINT', '4', ONE)).replace('o,,', 'o,two\tcolumns,'),
   [('one', 4.0)]),
])  # fmt: skip
def test_times_of_boris_count_from_the_start_of_each_file(
  tmp_path, text, expected
):
  for delimiter in ',', ';':
    if delimiter == ';' and ';' in text:
      continue
    path = written(tmp_path, text.replace(',', delimiter))
    clicks, _ = annotations.read_clicks(path, TRUTH, intervals='midpoint')
    assert [(c.video, c.time) for c in clicks] == expected


def elan(media, *slots):
  """Return a file of these media, and annotations from slot to slot."""
  names = [f'ts{i}' for i in range(len(slots))]
  time = lambda t: '' if t is None else f' TIME_VALUE="{t}"'
  order = ''.join(
    f'<TIME_SLOT TIME_SLOT_ID="{n}"{time(t)}/>'
    for n, t in zip(names, slots, strict=True)
  )
  items = ''.join(
    f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a" TIME_SLOT_REF1="{a}" '
    f'TIME_SLOT_REF2="{b}"><ANNOTATION_VALUE>run</ANNOTATION_VALUE>'
    '</ALIGNABLE_ANNOTATION></ANNOTATION>'
    for a, b in itertools.pairwise(names)
  )
  media = ''.join(
    f'<MEDIA_DESCRIPTOR MEDIA_URL="file:///v/{url}" MIME_TYPE="{mime}"{more}/>'
    for url, mime, more in media
  )
  return (
    '<?xml version="1.0"?><ANNOTATION_DOCUMENT><HEADER>' + media + '</HEADER>'
    f'<TIME_ORDER>{order}</TIME_ORDER><TIER TIER_ID="t">{items}</TIER>'
    '</ANNOTATION_DOCUMENT>'
  )


ORIGIN = ' TIME_ORIGIN="5000"'
VIDEO, SOUND = ('one.mp4', 'video/mp4', ''), ('mic.wav', 'audio/x-wav', ORIGIN)


@pytest.mark.parametrize('text, expected, told', [
  (elan([(*VIDEO[:2], ORIGIN)], 30000, 30040), [35.02], ''),
  (elan([SOUND, VIDEO], 1000, 3000), [2.0], ''),
  (elan([SOUND, ('one.mkv', 'unknown', '')], 1000, 3000), [2.0], ''),
  (elan([SOUND, ('one.mp4', 'video/mp4', ORIGIN)], 1000, 3000), [7.0], ''),
  (elan([VIDEO], 1000, 3000, None, None, 9000, 10000), [2.0, 9.5],
   '3 annotations without times of their own'),
  (elan([VIDEO], 1000, 3000).replace(
    '</TIER>', '</TIER><TIER TIER_ID="u"><ANNOTATION><REF_ANNOTATION '
    'ANNOTATION_REF="a"/></ANNOTATION></TIER>'), [2.0],
   '1 annotations that refer to others'),
])  # fmt: skip
def test_times_of_elan_are_those_of_the_video(
  tmp_path, capsys, text, expected, told
):
  path = written(tmp_path, text)
  clicks, _ = annotations.read_clicks(path, TRUTH, intervals='midpoint')
  assert [c.time for c in clicks] == expected
  assert {c.video for c in clicks} == {'one'}
  found = capsys.readouterr().err
  assert told in found and bool(told) == bool(found)


def studio(url, *regions, cancelled=False, **more):
  """Return an export of one task: regions are values or (type, value)."""
  results = [
    {'type': kind, 'to_name': 'video', 'value': value}
    for kind, value in regions
  ]
  return [{
    'data': more | {'video': url},
    'annotations': [
      {'completed_by': 1, 'was_cancelled': False, 'result': results},
      {'completed_by': 2, 'was_cancelled': cancelled, 'result': results},
    ][: 1 + cancelled],
  }]  # fmt: skip


def timeline(start, end):
  value = {'start': start, 'end': end}
  return 'timelinelabels', {'ranges': [value], 'timelinelabels': ['run']}


def box(*keys):
  sequence = [{'frame': frame, 'enabled': on} for frame, on in keys]
  value = {'framesCount': 1440, 'duration': 60, 'sequence': sequence}
  return 'videorectangle', value | {'labels': ['run']}


SOUND_REGION = 'labels', {'start': 30.0, 'end': 31, 'channel': 0,
                          'labels': ['run']}  # fmt: skip
UPLOAD = '/data/upload/1/0a1b2c3d-one.mp4'


@pytest.mark.parametrize('export, expected, told', [
  (studio(UPLOAD, timeline(49, 49)), [2.0], ''),
  (studio(UPLOAD, timeline(25, 73)), [2.0], ''),
  # Some begin at 0.
  (studio(UPLOAD, timeline(0, 0), timeline(24, 72)), [0.0, 2.0], ''),
  (studio(UPLOAD, SOUND_REGION), [30.5], ''),
  (studio(UPLOAD, timeline(49, 49), SOUND_REGION), [2.0, 30.5], ''),
  (studio(UPLOAD, box((49, False))), [2.0], ''),
  (studio(UPLOAD, box((49, True))), [2.0], ''),
  (studio(UPLOAD, box((1, True), (25, True), (97, False), (145, True))),
   [2.0, (6 + 1439 / 24) / 2], ''),
  (studio(UPLOAD, timeline(49, 49), ('choices', {'choices': ['x']})), [2.0],
   '1 choices'),
  (studio(UPLOAD, timeline(49, 49), cancelled=True), [2.0],
   '1 skipped annotation'),
  # JSON-MIN, as Label Studio 1.23.2 wrote it.
  ([{'video': UPLOAD, 'id': 9, 'tl': [timeline(49, 49)[1]], 'annotator': 1,
     'annotation_id': 9, 'created_at': '2026-11-28T11:21:04.512357Z',
     'lead_time': 3.0}], [2.0], ''),
  ([{'video': UPLOAD, 'tl': [timeline(49, 49)[1]]}], [2.0], ''),
  ('"annotation_id","annotator","id","lead_time","tl","video"\n9,"1",9,3.0,'
   '"[{""ranges"":[{""start"":49,""end"":49}],""timelinelabels"":[""run""]}]"'
   f',"{UPLOAD}"\n', [2.0], ''),
])  # fmt: skip
def test_regions_of_label_studio(tmp_path, capsys, export, expected, told):
  # Frames count at 24 here, whatever the rate of the video.
  path = written(tmp_path, export)
  clicks, _ = annotations.read_clicks(path, TRUTH, fps=24, intervals='midpoint')
  assert [c.time for c in clicks] == pytest.approx(expected)
  assert {(c.video, c.label) for c in clicks} == {('one', 'run')}
  assert told in capsys.readouterr().err


def test_frames_of_label_studio_may_begin_at_zero(tmp_path):
  path = written(tmp_path, studio(UPLOAD, timeline(0, 0), timeline(25, 75)))
  for known in (TRUTH, None):
    clicks, _ = annotations.read_clicks(
      path, known, fps=50, intervals='midpoint'
    )
    assert [c.time for c in clicks] == [0.0, 1.0]


@pytest.mark.parametrize('task, expected', [
  # As Label Studio 1.23.2 named uploads of clip B.mp4 and clip (30 fps).mp4.
  ({'video': '/data/upload/1/32b734d7-clip_B.mp4'}, 'clip B'),
  ({'video': '/data/upload/1/32b734d7-clip_30_fps.mp4'}, 'clip (30 fps)'),
  ({'video': 'https://example.org/a/long.mp4?x=1#t=3'}, 'long'),
  ({'video': 's3://bucket/a/20240101-cam.mp4'}, '20240101-cam'),
  # base64 of s3://b/long.mp4
  ({'video': '/tasks/1/resolve/?fileuri=czM6Ly9iL2xvbmcubXA0'}, 'long'),
  ({'video': '/data/local-files/?d=a/20240101-cam.mp4'}, '20240101-cam'),
  ({'video': '/data/upload/1/32b734d7-20240101-cam.mp4'}, '20240101-cam'),
  ({'title': 'a jump', 'video': UPLOAD}, 'one'),
  ({'title': 'a/b', 'audio': 'x/mic.wav', 'video': 'x/one.mp4'}, 'one'),
  ({'other': 'x/long.mp4', 'video': 'x/one.mp4'}, 'one'),
])  # fmt: skip
def test_videos_of_label_studio(tmp_path, task, expected):
  names = 'one', 'clip B', 'clip (30 fps)', 'long', '20240101-cam', 'cam'
  export = studio('', timeline(1, 1))
  export[0]['data'] = task
  path = written(tmp_path, export)
  (click,), _ = annotations.read_clicks(path, truth(*names), fps=24)
  assert click.video == expected


def test_an_upload_that_could_be_two_videos_is_refused(tmp_path):
  known = truth('clip B', 'clip_B')
  path = written(
    tmp_path, studio('upload/1/32b734d7-clip_B.mp4', timeline(1, 1))
  )
  with pytest.raises(errors.InputError, match="video 'clip_B' is not in"):
    annotations.read_clicks(path, known, fps=24)


# As the page of VIA 3.0.10 exported them, less most of the notes.
VIA_CSV = """# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/)
# - metadata of {""1"":""3""} indicates attribute with id "1" set to "3"
# ATTRIBUTE = {"1":{"aname":"action","type":4,"options":{"0":"run","1":"jump"}}}
# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,\
spatial_coordinates,metadata
"1_a","[""/v/one.mp4""]",0,"[2.5,3.5]","[]","{""1"":""0""}"
"1_b","[""/v/two b%.mp4""]",0,"[4.633]","[2,10,10,20,20]","{""1"":""1""}"
"""
VIA_TEMPORAL = """# Exported using VGG Image Annotator (http://robots.ox.ac.uk)
# CSV_HEADER = metadata_id,file_list,temporal_segment_start,\
temporal_segment_end,metadata
"1_a","[""/v/one.mp4""]",2.5,3.5,"{""TEMPORAL-SEGMENTS"":""run""}"
"1_b","[""/v/two b%.mp4""]",4.633,,"{""TEMPORAL-SEGMENTS"":""jump""}"
"""
TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 60
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "action 1 2"
        xmin = 0
        xmax = 60
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 10
            text = ""
        intervals [2]:
            xmin = 10
            xmax = 20.5
            text = "run"
    item [2]:
        class = "TextTier"
        name = "click"
        xmin = 0
        xmax = 60
        points: size = 1
        points [1]:
            number = 2.5
            mark = "background"
"""
SHORT_TEXTGRID = """File type = "ooTextFile"
"TextGrid"

0
60
<exists>
2
"IntervalTier"
"a ""b"" 3"
0
60
2
0
10
""
10
20.5
"run"
"TextTier"
"click"
0
60
1
2.5
"background"
"""
BENTO = """Bento annotation file
Movie file(s): one.seq

Annotation start frame: 1
Annotation stop frame: 600
Annotation framerate: 10.000000

List of channels:
Ch1

List of annotations:
run

Ch1----------
>run
Start	 Stop	 Duration
101	206	106

>background
Start	 Stop	 Duration
26	26	1
"""


@pytest.mark.parametrize('content, expected', [
  (VIA_CSV, [('one', 3.0, 'run'), ('two b%', 4.633, 'jump')]),
  (VIA_TEMPORAL, [('one', 3.0, 'run'), ('two b%', 4.633, 'jump')]),
  (TEXTGRID, [('one', 15.25, 'run'), ('one', 2.5, 'background')]),
  (TEXTGRID.encode('utf-16'),
   [('one', 15.25, 'run'), ('one', 2.5, 'background')]),
  (SHORT_TEXTGRID, [('one', 15.25, 'run'), ('one', 2.5, 'background')]),
  ('2.500000\t2.500000\tbackground\n\\\t100\t200\n10,0\t20.5\trun\n',
   [('one', 2.5, 'background'), ('one', 15.25, 'run')]),
  (BENTO, [('one', 15.25, 'run'), ('one', 2.5, 'background')]),
  (BENTO.replace('101\t206', '10.25\t20.25').replace('26\t26', '2.5\t2.5'),
   [('one', 15.25, 'run'), ('one', 2.5, 'background')]),
  # A row a frame, at 25 a second: run from the second to the third.
  (',background,run\n0,1,0\n1,0,1\n2,0,1\n3,1,0\n4,-1,-1\n',
   [('one', 0.02, 'background'), ('one', 0.08, 'run'),
    ('one', 0.14, 'background')]),
])  # fmt: skip
def test_tables_of_other_tools(tmp_path, content, expected):
  is_ethogram = content[:11] == ',background'
  path = written(
    tmp_path, content, 'one_labels.csv' if is_ethogram else 'one.txt'
  )
  clicks, _ = annotations.read_clicks(path, TRUTH, intervals='midpoint')
  found = [(c.video, c.time, c.label) for c in clicks]
  assert [x[::2] for x in found] == [x[::2] for x in expected]
  assert [x[1] for x in found] == pytest.approx([x[1] for x in expected])


DAMAGED = [
  ('{"metadata": ', 'not JSON'),
  ({'metadata': {'1_a': {}}, 'attribute': {}}, 'not the shape of a VIA 3 proj'),
  ([{'data': {}, 'annotations': [{'result': [{'value': {'ranges': [{}]}}]}]}],
   'not the shape of a Label Studio export'),
  ('<?xml version="1.0"?><a>', 'not whole XML'),
  ('<?xml version="1.0"?><a/>', 'expected an ELAN file'),
  (ELAN.replace('REF1="ts3"', 'REF1="x"'), 'not the shape of an ELAN file'),
  (ELAN.replace('"milliseconds"', '"PAL-frames"'), "TIME_UNITS 'PAL-frames'"),
  ('Media file name,Behavior\none.mp4,run\n', 'no column Time or Start'),
  (BORIS_STATES.replace('POINT,5', 'X,5'), "'X', expected POINT, START"),
  (BORIS_STATES.replace('one.mp4,run,STOP,20\n', ''), 'without its STOP'),
  (BORIS_STATES.replace('START,10', 'POINT,10'), 'without its other end'),
  (BORIS.replace('12.5', 'x'), 'a time of .background. is .x., expected s'),
  (BORIS.replace('12.5', 'nan'), 'expected seconds, as a finite number'),
  (BORIS.replace('12.5', '61'), 'the video ends at 60 s'),
  (BORIS.replace('one.mp4', 'no.mp4'), "video 'no' is not in the ground"),
  (VIA_TEMPORAL.replace('""run""', '""0""'), 'numbers an option'),
  (TEXTGRID[:-30], 'not a whole TextGrid'),
  (BENTO.replace('Annotation framerate', 'x'), 'no Annotation framerate'),
  (BENTO.replace('10.0', '0.0'), 'framerate is 0, expected frames a second'),
]  # fmt: skip
# Events of BORIS without a place; in the second, counted from files' dates.
NOWHERE = [
  (boris(('run', 'POINT', '65', TWO_B), durations='60.000'),
   'one observation of several files .*Media duration'),
  (boris(('run', 'POINT', '30', TWO_B)), "is 'two b%', by Media durat"),
  (boris(('run', 'POINT', '1', ONE), ('run', 'POINT', '65', TWO_B), source=''),
   'one observation of several files'),
  (boris(('run', 'POINT', '65', TWO_B), durations='NA;NA'), "is 'NA', exp"),
  (boris(('run', 'POINT', '1700000005', ONE), source='player #1:/v/one.mp4',
         durations='60.000'), 'all ends at 60 s; expected .* not of the day'),
  (boris(('run', 'POINT', '2', 'NA'), source='NA', durations='NA'), "('NA')"),
  (boris(('run', 'POINT', '2', ONE), offset='5'), 'the time is -3 s'),
]  # fmt: skip
NO_REGIONS = [
  (studio(UPLOAD, timeline(49, 49)), 'frameRate of .*--fps .*24 where'),
  (studio(UPLOAD, ('choices', {'choices': ['x']})), 'but 1 choices'),
  (studio(UPLOAD, ('labels', {'start': 1, 'end': 9, 'text': 'a',
                               'labels': ['x']})), 'but 1 labels'),
  (studio(1, timeline(1, 1)), 'a task whose data name no video'),
  ([{'a': 'x/one.mp4', 'b': 'x/two.mp4', 'tl': [timeline(1, 1)[1]]}],
   'a task of several videos'),
  (studio(UPLOAD, *2 * [('choices', {'choices': ['x']})]), '2 choices;'),
]  # fmt: skip
OTHERS = [
  ({'observations': {'o': {'events': []}}, 'time_format': 's'},
   'a BORIS project, .*: export its tabular events'),
  ({'database': {'one': {'annotations': []}}}, 'a ground truth file'),
  ({'one': {'duration_second': 2, 'annotations': []}}, 'a ground truth file'),
  ([{'video_id': 'one', 'annotations': []}], 'a ground truth file'),
  ({'results': {}, 'version': ''}, 'a file of predictions'),
  ({'images': [], 'annotations': [], 'categories': []}, 'a COCO file'),
  ({'items': [], 'categories': {}, 'dm_format_version': '1'}, 'a Datumaro'),
  ({'_via_settings': {}, '_via_img_metadata': {}}, 'a VIA 2 project'),
  ({'a.jpg9': {'filename': 'a.jpg', 'regions': []}}, 'a VIA 2 export'),
  ('filename,file_size,file_attributes,region_count,region_id\n', 'a VIA 2 C'),
  ({'a': 1}, 'JSON of no kind that is known, expected a VIA 3 project or a L'),
  ('<?xml version="1.0"?><annotations/>', 'a CVAT export'),
  ('<table><tr><td>Media file name<td>Behavior</table>', 'an HTML page.*BORIS'),
  ('WEBVTT\n\n00:01.000 --> 00:02.000\nrun\n', 'a file of subtitles'),
  ('1\n00:00:01,000 --> 00:00:02,000\nrun\n', 'a file of subtitles'),
  (b'\x1f\x8b\x08\x00', 'a compressed file.*tabular events'),
  ('% SDIS file created by BORIS\n', 'a BORIS export.*tabular events'),
  ('Player #1\ta.mp4\nTime\tMedia file path\tTotal length\tFPS\tSubject\t'
   'Behavior\tBehavioral category\tComment\tStatus\n', 'a table of BORIS 7,'),
  ('File type = "ooTextFile"\nObject class = "PitchTier"\n', 'a Praat file'),
  (b'ooBinaryFile\x08TextGrid', 'a binary Praat file'),
  ('"Praat chronological TextGrid text file"\n0 60\n', 'a chronological'),
  (b'PK\x03\x04\x14', 'a spreadsheet or archive.*CSV'),
]  # fmt: skip


@pytest.mark.parametrize(
  'content, message', DAMAGED + NOWHERE + NO_REGIONS + OTHERS
)
def test_what_is_no_click_is_told(tmp_path, content, message):
  path = written(tmp_path, content)
  with pytest.raises(errors.InputError, match=message):
    annotations.read_clicks(path, TRUTH, intervals='midpoint')


@hypothesis.settings(in_one_folder, max_examples=60)
@hypothesis.given(st.data())
def test_damage_anywhere_is_an_input_error(tmp_path, data):
  wholes = [
    json.dumps(VIA), json.dumps(LABEL_STUDIO), BORIS, BORIS_STATES, ELAN,
    VIA_CSV, VIA_TEMPORAL, TEXTGRID, BENTO, boris(('run', 'POINT', '65', ONE)),
    json.dumps(studio(UPLOAD, box((1, True), (9, False)), SOUND_REGION)),
  ]  # fmt: skip
  whole = data.draw(st.sampled_from(wholes))
  start = data.draw(st.integers(0, len(whole)))
  length = data.draw(st.sampled_from([0, 1, 5, 1000]))
  more = data.draw(
    st.sampled_from(['', 'null', '"', '-1', ';', '\t', '{', '\n'])
  )
  path = written(tmp_path, whole[:start] + more + whole[start + length :])
  try:
    clicks, _ = annotations.read_clicks(path, fps=9, intervals='midpoint')
  except errors.InputError as e:
    assert str(e).startswith(f'{path}:')
  else:
    assert all(click.time >= 0 for click in clicks)


@pytest.mark.parametrize('content, count, told', [
  (VIA, 2, '1 entries about no time'),
  (VIA_CSV.replace('[4.633]', '[]'), 1, '1 entries about no time'),
  (elan([VIDEO]), 0, 'no moments or intervals'),
])  # fmt: skip
def test_what_holds_no_time_is_told(tmp_path, capsys, content, count, told):
  path = written(tmp_path, content)
  clicks, _ = annotations.read_clicks(path, TRUTH, intervals='midpoint')
  assert len(clicks) == count
  assert f'left out: {path}: {told}' in capsys.readouterr().err


CLICKS = [
  Click('one', 0.0, 'background', 'Ann'),
  Click('one', 12.3456, 'background', 'Ann'),
  Click('one', 12.3456, 'jump', 'A <&> "2"'),
  Click('one', 12.3456, 'jump', 'Ann'),
  Click('one', 12.3458, 'run', 'Ann'),
  Click('two b%', 59.0, 'background', 'Ann'),
]


def written_for_players(tmp_path, first_picture):
  """Write CLICKS for VIA and ELAN; return the paths of what was written."""
  ours, videos = tmp_path / 'clicks.csv', tmp_path / 'videos.csv'
  annotations.write_clicks(ours, CLICKS)
  videos.write_text(
    'video_id,duration,fps,first_picture\n'
    f'one,60,25,{first_picture}\ntwo b%,60,25,0\n'
  )
  for output in ('via.json', 'elan'):
    command('convert-clicks', clicks=ours, output=tmp_path / output,
            video_list=videos)  # fmt: skip
  return tmp_path / 'via.json', *sorted((tmp_path / 'elan').iterdir())


@pytest.mark.parametrize('first_picture', [0.0, 2.08])
def test_players_give_back_what_they_were_given(tmp_path, first_picture):
  project, *documents = written_for_players(tmp_path, first_picture)
  assert [p.name for p in documents] == ['one.eaf', 'two b%.eaf']
  for paths, exactness in (([project], 1e-9), (documents, 0.001)):
    command('convert-clicks', '--clicks', *map(str, paths),
            intervals='midpoint', output=tmp_path / 'back.csv',
            video_list=tmp_path / 'videos.csv')  # fmt: skip
    found, _ = annotations.read_clicks(tmp_path / 'back.csv')
    key = lambda c: (c.video, c.annotator, c.label, c.time)
    for got, click in zip(
      sorted(found, key=key), sorted(CLICKS, key=key), strict=True
    ):
      # None is before the first picture, not even by a part of its span.
      near = exactness if click.time else 0.001
      assert got.time == pytest.approx(click.time, abs=near)
      assert key(got)[:-1] == key(click)[:-1]


@pytest.mark.parametrize('content, time', [
  (json.dumps(VIA).replace('[12.5]', '[14.58]'), 12.5),
  (elan([VIDEO], 3080, 5080), 2.0),
  # Frames of Label Studio are its player's seconds, times 24.
  (studio(UPLOAD, timeline(73, 73)), 0.92),
  (studio(UPLOAD, SOUND_REGION), 28.42),
  # BORIS's player counts from where the file begins.
  (boris(('run', 'POINT', '2.08', ONE)), 2.08),
  ('video_id,time,label,annotator\none,2.08,run,A\n', 2.08),
])  # fmt: skip
def test_players_clocks_may_begin_before_the_first_picture(
  tmp_path, content, time
):
  path, known = tmp_path / 'truth.json', truth('one', first_picture=2.08)
  files.write_json(path, known.as_json())
  clicks, _ = annotations.read_clicks(
    written(tmp_path, content), annotations.read_ground_truth(path), fps=24,
    intervals='midpoint', lenient=True,
  )  # fmt: skip
  assert clicks[0].time == time


def test_a_list_of_videos_must_have_all(tmp_path):
  path, videos = written(tmp_path, BORIS), tmp_path / 'videos.csv'
  videos.write_text('video_id,duration\none,60\n')
  with pytest.raises(SystemExit, match="'two b%' is not in the video list"):
    command('convert-clicks', clicks=path, video_list=videos,
            output=tmp_path / 'o.csv')  # fmt: skip
  assert not (tmp_path / 'o.csv').exists()


def test_via_shows_what_is_written(tmp_path):
  # Two times and this anchor: anything else is nowhere in VIA 3.0.10.
  project = files.read_json(written_for_players(tmp_path, 2.08)[0])
  anchors = {x['anchor_id'] for x in project['attribute'].values()}
  assert anchors == {'FILE1_Z2_XY0'}
  assert all(start < end for start, end in (
    entry['z'] for entry in project['metadata'].values()
  ))  # fmt: skip
  (start, end), *_ = (
    x['z'] for x in project['metadata'].values() if x['z'][0] > 14
  )
  assert (start, end) == pytest.approx((12.3456 + 2.06, 12.3456 + 2.10))


def test_elan_opens_what_is_written(tmp_path):
  # What pympi 1.71 asks for, and ELAN: a schema, known types of media,
  # annotations of some length that do not overlap in a tier.
  _, path, _ = written_for_players(tmp_path, 0.0)
  root = ElementTree.parse(path).getroot()
  schema = (
    '{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation'
  )
  assert root.get(schema).endswith('EAFv3.0.xsd')
  (medium,) = root.iterfind('HEADER/MEDIA_DESCRIPTOR')
  assert medium.get('MIME_TYPE') == 'video/mp4'
  slots = {
    slot.get('TIME_SLOT_ID'): int(slot.get('TIME_VALUE'))
    for slot in root.iterfind('TIME_ORDER/TIME_SLOT')
  }
  assert [*slots.values()] == sorted(slots.values())
  tiers = {}
  for tier in root.iterfind('TIER'):
    ends = [
      tuple(slots[item.get(f'TIME_SLOT_REF{i}')] for i in (1, 2))
      for item in tier.iterfind('ANNOTATION/ALIGNABLE_ANNOTATION')
    ]
    assert all(start < end for start, end in ends)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(sorted(ends)))
    tiers.setdefault(tier.get('ANNOTATOR'), []).append(len(ends))
  assert tiers == {'Ann': [2, 1, 1], 'A <&> "2"': [1]}


def test_statistics_take_the_rate_of_frames(tmp_path):
  known = tmp_path / 'truth.json'
  files.write_json(known, TRUTH.as_json())
  path = written(tmp_path, studio(UPLOAD, timeline(1442, 1442)))
  options = {
    'ground_truth': known, 'clicks': path, 'output': tmp_path / 'o.json'
  }  # fmt: skip
  # 1441 frames are 60.04 s at 24 a second, 60.102 s at 24000/1001, of 60.
  command('click-stats', '--lenient', **options, fps='24000/1001')
  assert files.read_json(tmp_path / 'o.json')[str(path)]['clicks'] == 0
  command('click-stats', **options, fps=24)
  assert files.read_json(tmp_path / 'o.json')[str(path)]['clicks'] == 1
  with pytest.raises(SystemExit, match='--fps'):
    command('click-stats', **options)


def test_statistics_show_the_time_that_clicks_took(tmp_path, capsys):
  known, clicks = tmp_path / 'truth.json', tmp_path / 'clicks.csv'
  files.write_json(known, TRUTH.as_json())
  annotations.write_clicks(clicks, CLICKS[:2])
  events = [
    {'seq': 2, 'at': 1, 'who': 'Ann', 'kind': 'click', 'video': 'one',
     'add': [0, 'background'], 'spent': 20.0},
    {'seq': 3, 'at': 2, 'who': 'Ann', 'kind': 'click', 'video': 'one',
     'add': [12.3456, 'background'], 'spent': 10.0},
  ]  # fmt: skip
  lines = {'history': 'x', 'imported': 0}, *events
  history.log_path(clicks).write_text(
    ''.join(json.dumps(line) + '\n' for line in lines)
  )
  output = tmp_path / 'out.json'
  command('click-stats', ground_truth=known, clicks=clicks, output=output)
  assert 'Ann made 2 clicks in 0.5 minutes, 15.0 s a click, 4.0 clicks' in (
    capsys.readouterr().out
  )
  (found,) = files.read_json(output).values()
  assert found['seconds'] == {'Ann': {'clicks': 2, 'seconds': 30.0}}
