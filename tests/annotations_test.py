"""Tests for backtal_jax.data.annotations and annotation_formats."""

import functools
import json
import unicodedata

import hypothesis
import pytest
from hypothesis import strategies as st

from backtal_jax import errors, files
from backtal_jax.data import annotation_formats as formats
from backtal_jax.data import annotations, click_formats, tables, video_names
from backtal_jax.data.annotations import Annotations, Click, Segment
from backtal_jax.prepare import inputs

in_one_folder = hypothesis.settings(
  suppress_health_check=[
    hypothesis.HealthCheck.function_scoped_fixture,
    hypothesis.HealthCheck.too_slow,
  ],
)


def make_video(name, subset, duration=None, fps=None, *segments):
  """Return a video with (start, end, label) segments."""
  segments = tuple(Segment(*segment) for segment in segments)
  return annotations.AnnotatedVideo(name, subset, duration, fps, segments)


def make_truth(*videos, classes=('Run', 'Jump')):
  return Annotations({video.name: video for video in videos}, classes)


TRUTH = make_truth(
  make_video('one', 'val', 100.0, 25.0, (10.0, 20.0, 'Jump')),
  make_video('v_two', 'val', 50.0, None, (0.0, 5.5, 'Run')),
)


def written(folder, content, name='file.csv'):
  """Write text, bytes or JSON, whatever the name says."""
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  if not isinstance(content, str | bytes):
    content = json.dumps(content)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return path


def database(**entries):
  return {'database': entries}


# Ground truth.

BACKTAL_TRUTH = """\ufeff{"database": {"a": {"subset": "val", "duration": 9.5,
  "fps": 25, "vid_idx": [1], "annotations": [
    {"label": "Archery", "segment": [1, 2.25], "idx": 1}]},
  "b": {"subset": "testing", "duration": 3, "fps": 30, "annotations": []}},
  "activity_list": ["Zorbing", "Archery"]}""".replace('\n', '\r\n')
HACS_TRUTH = database(
  x={'subset': 'training', 'duration': 12.5, 'url': 'somewhere', 'annotations':
     [{'segment': [3.0, 4.0], 'label': 'Zumba'},
      {'segment': [1.0, 2.0], 'label': 'Archery'}]},
  y={'subset': 'testing', 'duration': 8.0},
)  # fmt: skip
# Segments are text, durations are not told.
LACP_TRUTH = database(
  x={'subset': 'train', 'annotations':
     [{'segment': ['18.6', '24.8'], 'label': 'Jump'}]}
)  # fmt: skip
ONE = {'annotations': [{'segment': [1.5, 2], 'label': 'Run'}]}
TWO = {'annotations': []}
# Without "database" or subsets.
BARE = [
  {'x': {**ONE, 'duration_second': 9.5, 'duration_frame': 285, 'fps': 30.0,
         'feature_frame': 280, 'rfps': 29.9}, 'y': TWO},
  {'database': {'x': {**ONE, 'duration': 9.5, 'fps': 30, 'subset': None},
                'y': TWO}},
  [{'video_id': 'x', 'duration': '9.5', 'fps': 30, **ONE},
   {'video_id': 'y', **TWO}],
  {'database': [{'video_name': 'x', 'duration_second': 9.5, 'fps': 30, **ONE},
                {'id': 'y', **TWO}]},
  {'version': '1.3', 'taxonomy': [], 'database': {
    'x': {**ONE, 'duration': 9.5, 'fps': 30}, 'y': TWO}},
]  # fmt: skip
BARE_TRUTH = make_truth(
  make_video('x', '', 9.5, 30.0, (1.5, 2.0, 'Run')),
  make_video('y', ''),
  classes=('Run',),
)


@pytest.mark.parametrize(('text', 'expected'), [
  (
    BACKTAL_TRUTH,  # keeps its class order
    make_truth(
      make_video('a', 'val', 9.5, 25.0, (1.0, 2.25, 'Archery')),
      make_video('b', 'testing', 3.0, 30.0),
      classes=('Zorbing', 'Archery'),
    ),
  ),
  (
    HACS_TRUTH,  # has none
    make_truth(
      make_video('x', 'training', 12.5, None, (3.0, 4.0, 'Zumba'),
                 (1.0, 2.0, 'Archery')),
      make_video('y', 'testing', 8.0),
      classes=('Archery', 'Zumba'),
    ),
  ),
  (
    LACP_TRUTH,
    make_truth(
      make_video('x', 'train', None, None, (18.6, 24.8, 'Jump')),
      classes=('Jump',),
    ),
  ),
  *[(value, BARE_TRUTH) for value in BARE],
  ({'x': {'subset': 'Val', **ONE}, 'y': {'subset': 'Test', **TWO}},
   make_truth(make_video('x', 'Val', None, None, (1.5, 2.0, 'Run')),
              make_video('y', 'Test'), classes=('Run',))),
])  # fmt: skip
def test_each_form_of_ground_truth_is_read_and_written(
  tmp_path, text, expected
):
  found = annotations.read_ground_truth(written(tmp_path, text))
  assert found == expected
  files.write_json(tmp_path / 'again.json', found.as_json())
  assert annotations.read_ground_truth(tmp_path / 'again.json') == found


def test_subsets_in_any_letter_case_or_none():
  assert set(TRUTH.subset('VAL')) == {'one', 'v_two'}
  with pytest.raises(errors.InputError, match=r"'test'.*'val'"):
    TRUTH.subset('test')
  # Where no video tells a subset, all are of the one asked for.
  assert BARE_TRUTH.subset('validation') == BARE_TRUTH.videos


@pytest.mark.parametrize('folder', ['.', 'TH14_test/annotations/annotation'])
def test_official_thumos14_text_files(tmp_path, folder):
  val = 'video_2  72.8 76.4\r\n\r\nvideo_1 1 2\r\n'
  written(tmp_path, val, f'{folder}/Jump_val.txt')
  written(tmp_path, 'video_2 3 4.5\n', f'{folder}/Archery_val.txt')
  written(tmp_path, 'video_9 5 6\n', f'{folder}/Jump_test.txt')
  written(tmp_path, 'video_1 7 8\n', f'{folder}/Ambiguous_val.txt')
  written(tmp_path, 'not an annotation', f'{folder}/readme.txt')
  videos = written(
    tmp_path, 'video_id,duration,fps\nvideo_1,60.5,25\nvideo_9,90,30\n'
  )
  found, _ = annotations.read_known(tmp_path, videos)
  jump, archery = (72.8, 76.4, 'Jump'), (3.0, 4.5, 'Archery')
  assert found == make_truth(
    make_video('video_1', 'val', 60.5, 25.0, (1.0, 2.0, 'Jump')),
    make_video('video_2', 'val', None, None, archery, jump),
    make_video('video_9', 'test', 90.0, 30.0, (5.0, 6.0, 'Jump')),
    classes=('Archery', 'Jump'),
  )


def test_durations_from_other_ground_truth_whatever_the_prefix(tmp_path):
  main = database(v_x={'subset': 'val'}, y={'subset': 'val', 'duration': 1})
  told = {'subset': 'val', 'fps': 24}
  other = database(x=told | {'duration': 7}, y=told | {'duration': 2})
  found, _ = annotations.read_known(
    written(tmp_path, main), written(tmp_path, other, 'other.json')
  )
  assert found.videos['v_x'] == make_video('v_x', 'val', 7.0, 24.0)
  # What the ground truth itself tells goes first.
  assert found.videos['y'] == make_video('y', 'val', 1.0, 24.0)


@pytest.mark.parametrize(('known', 'matches'), [
  # 'v_UmAH95xls' is a real YouTube name, its prefix no prefix.
  (['a', 'v_b', 'v_UmAH95xls'],
   {'v_a': 'a', 'b': 'v_b', 'v_UmAH95xls': 'v_UmAH95xls',
    'v_v_UmAH95xls': 'v_UmAH95xls', 'A': 'a', 'zzz': None}),
  # Where both are known, each is itself.
  (['c', 'v_c'], {'c': 'c', 'v_c': 'v_c'}),
  # Endings, folders and letter case say nothing, unless two differ by them.
  (['v_One', 'two', 'Two', 'three.mp4'],
   {'one.mp4': 'v_One', 'x/V_ONE.MKV': 'v_One', 'three': 'three.mp4',
    'v_three.npy': 'three.mp4', 'TWO': None, 'fou.r': None}),
  (['cam1', 'cam2'], dict.fromkeys([
    'cam1.wmv', 'cam1.MTS', 'cam1.m2ts', 'cam1.flv', 'cam1.mpeg', 'cam1.ts',
    'cam1.3gp', r'C:\videos\cam1.mp4', r'\\server\share\cam1.avi'], 'cam1')),
])  # fmt: skip
def test_names_that_mean_one_video(known, matches):
  mapping, rest = video_names.match([*matches, *matches], known)
  assert mapping == {k: v for k, v in matches.items() if v}
  assert rest == [k for k, v in matches.items() if not v]


@pytest.mark.parametrize(('text', 'expected'), [
  ('video_id,duration,fps,first_picture\na,8,25,0.5\n', (8.0, 25.0, 0.5)),
  ('video_id,duration\na,8\n', (8.0, None, 0.0)),  # an older one
  ('sep=;\nVideo_ID;Duration;FPS\na;0:01:40,5;30000/1001\n',
   (100.5, 30000 / 1001, 0.0)),
])  # fmt: skip
def test_a_video_list_tells_times(tmp_path, text, expected):
  assert formats.read_video_list(written(tmp_path, text)) == {'a': expected}


def test_an_unknown_video_of_a_click_is_told_with_the_nearest_name(tmp_path):
  text = 'video_id,time,label,annotator\n'
  path = written(
    tmp_path, text + 'clip_v_two,1,background,a\none.mp4,1,Run,a\n'
  )
  with pytest.raises(errors.InputError, match=":2: video 'clip_v_two' is not .*"
                     "; the nearest name is 'v_two'"):  # fmt: skip
    annotations.read_clicks(path, TRUTH)
  (click,), _ = annotations.read_clicks(path, TRUTH, lenient=True)
  assert click.video == 'one'


def test_problems_are_listed_and_kept():
  run = lambda start, end, label='Run': (float(start), float(end), label)
  found = annotations.problems(
    make_truth(
      make_video(
        'a', 'val', 10.0, 30.0, run(0, 0), run(5, 4), run(-1, 2), run(8, 10),
        run(8, 10.5), *[run(1, 2)] * 3, run(1, 2, 'Jump'),
      ),
      make_video('b', 'val', None, 30.0, run(1, 2)),
      make_video('c', 'val', 0.0, 30.0, run(1, 2)),
    )
  )  # fmt: skip
  assert found == {
    'no duration': ['b: duration None', 'c: duration 0.0'],
    'end <= start': ['a: Run 0-0 s', 'a: Run 5-4 s'],
    'negative start': ['a: Run -1-2 s'],
    'beyond duration': ['a: Run 8-10.5 s of 10 s'],
    'twice': ['a: Run 1-2 s'] * 2,
  }


def rows_with(*annotated, **more):
  """Make a ground truth of one video, an annotation each (label, idx)."""
  rows = [
    {'label': label, 'segment': [i, i + 1]}
    | ({} if idx is ... else {'idx': idx})
    for i, (label, idx) in enumerate(annotated)
  ]
  return database(a={'subset': 'x', 'annotations': rows}) | more


@pytest.mark.parametrize(('text', 'classes'), [
  (rows_with(('Run', 0), ('Dive', 2), ('Jump', 1)), ('Run', 'Jump', 'Dive')),
  # Told once is enough; other programs write numbers as they like.
  (rows_with(('Run', '0'), ('Dive', 1.0), ('Run', ...)), ('Run', 'Dive')),
  (rows_with(('Run', None), ('Dive', ...)), ('Dive', 'Run')),
  (rows_with(('Run', 2), ('Run', 2), activity_list=['Z', 'Dive', 'Run']),
   ('Z', 'Dive', 'Run')),
  # Blanks around are none of a name.
  (rows_with(('jump ', ...), (' jump', ...), ('jump', ...)), ('jump',)),
])  # fmt: skip
def test_class_order_is_that_of_idx(tmp_path, text, classes):
  path = written(tmp_path, text, 'gt.json')
  assert annotations.read_ground_truth(path).classes == classes


@pytest.mark.parametrize(('text', 'match'), [
  # Contradictory class orders.
  (rows_with(('Run', 0), ('Dive', 0)), "'a'.*'Run' has idx 0, as 'Dive'"),
  (rows_with(('Run', 0), ('Dive', 1), ('Run', 2)),
   "'a'.*'Run' has idx 2, elsewhere it has 0"),
  (rows_with(('Run', 0), ('Dive', 2)), 'no class has idx 1'),
  (rows_with(('Run', 1), ('Dive', 2)), 'no class has idx 0'),
  (rows_with(('Run', 0), ('Dive', 10**12)),
   'no class has idx 1, the highest is 1000'),
  (rows_with(('Run', 0), ('Dive', ...)), "'a'.*class 'Dive' has no idx"),
  (rows_with(('Run', -1)), 'idx is -1, expected a whole number'),
  (rows_with(('Run', 0.5)), 'idx is 0.5, expected a whole number'),
  (rows_with(('Run', True)), 'idx is True'),
  (rows_with(('Run', 'x')), "idx is 'x'"),
  (rows_with(('Run', [0, 0])), r'idx is \[0, 0\]'),
  (rows_with(('Run', 0), ('Dive', 1), activity_list=['Dive', 'Run']),
   "'a'.*'Run' has idx 0, in activity_list it has 1"),
  (rows_with(('S', ...), activity_list=['R']), "'a'.*'S'.*activity_list"),
  ('{"database": {}, "activity_list": ["R", "S", "R"]}', "'R' twice"),
  ('{"database": {}, "activity_list": {"R": 1}}', 'activity_list'),
  ('{"database": {}, "activity_list": ["\\ud800"]}', 'activity_list'),
  # Another shape.
  ('', 'not JSON'),
  ('[' * 100000, 'not JSON: nested'),
  ('[]', 'no object "database"'),
  ('{"results": {}}', 'database'),
  (b'\xff{}', 'not UTF-8'),
  ('{"database": {"a": {"subset": "x"}, "a": {"subset": "x"}}}', "'a'"),
  (database(a={'subset': 'x'}, v_a={'subset': 'x'}), 'duplicate.*v_a'),
  (database(a=3), "'a'.*found 3"),
  ('{"results": {"a": []}, "version": "1"}', 'database'),
  ('{"a": {"annotations": []}, "b": 3}', "'b'.*found 3"),
  ('[3]', "'None'.*found 3|None.*found 3"),
  ('[{"annotations": []}]', 'the name is missing'),
  ('[{"id": "a", "annotations": []}, {"id": "a", "annotations": []}]', "'a'"),
  (database(a={'annotations': []}, b={'subset': 'x'}), "'a'.*no subset.*'b'"),
  (database(a={}), "'a'.*subset is missing"),
  (database(a={'subset': 'x', 'duration': 'long'}), "duration.*'long'"),
  (database(a={'subset': 'x', 'duration': float('nan')}), 'duration.*nan'),
  (database(a={'subset': 'x', 'duration': True}), 'duration.*True'),
  (database(a={'subset': 'x', 'fps': 10**400}), 'fps'),
  (database(a={'subset': 'x', 'annotations': {'b': 1}}), 'expected a list'),
  (database(a={'subset': 'x', 'annotations': ['b']}), "annotation 'b'"),
  (database(a={'subset': 'x', 'annotations': [
    {'label': 'R', 'segment': [1]}]}), 'segment'),
  (database(a={'subset': 'x', 'annotations': [
    {'label': 1.5, 'segment': [1, 2]}]}), 'label is 1.5'),
  (rows_with(('  ', ...)), 'expected a name'),
  *[(rows_with(('jump', ...), (name, ...)), f'class {name.strip()!r}, .*kept f')
    for name in ('background', 'Background', ' BACKGROUND ')],
])  # fmt: skip
def test_malformed_ground_truth_names_the_file(tmp_path, text, match):
  path = written(tmp_path, text, 'gt.json')
  with pytest.raises(errors.InputError, match=match) as info:
    annotations.read_ground_truth(path)
  assert str(info.value).startswith(f'{path}: ')
  assert '\n' not in str(info.value)


@pytest.mark.parametrize(
  ('name', 'text', 'match'),
  [
    ('Run_val.txt', 'v 1 2\nv 1\n', r'Run_val\.txt:2'),
    ('Run_val.txt', '\nv 1 x\n', r"Run_val\.txt:2.*'x'"),
    ('Run_test.txt', 'u 1 2\n', r'Run_val\.txt:1.*val and test'),
    ('more/Jump_val.txt', 'v 1 2\n', r'two files.*Jump_val\.txt'),
  ],
)
def test_malformed_thumos14_files(tmp_path, name, text, match):
  written(tmp_path, 'u 1 2\n', 'Run_val.txt')
  written(tmp_path, 'w 1 2\n', 'Jump_val.txt')
  written(tmp_path, text, name)
  with pytest.raises(errors.InputError, match=match):
    annotations.read_ground_truth(tmp_path)


def test_missing_files_folders_and_formats(tmp_path):
  for path in (tmp_path / 'none.json', tmp_path / 'Run_val.txt'):
    with pytest.raises(errors.InputError, match=f'{path.name}: no such file'):
      annotations.read_ground_truth(path)
  with pytest.raises(errors.InputError, match='official'):
    annotations.read_ground_truth(tmp_path)
  with pytest.raises(errors.InputError, match='no such file'):
    annotations.read_clicks(tmp_path)


@pytest.mark.parametrize(('text', 'match'), [
  ('', 'header'),
  ('video,seconds\n', 'header'),
  ('video_id,duration\na,1\na,2\n', r":3: duplicate video 'a'"),
  ('video_id,duration\na\n', ':2: 1 columns'),
  ('video_id,duration\na,long\n', ":2: duration is 'long'"),
])  # fmt: skip
def test_malformed_video_lists(tmp_path, text, match):
  with pytest.raises(errors.InputError, match=match):
    annotations.read_known(None, written(tmp_path, text))


BLANKS = tables.EDGES
# Class names are read in one of their canonically equal spellings.
names = st.text(
  st.characters(exclude_categories=['Cs']), min_size=1, max_size=8
).map(lambda s: unicodedata.normalize('NFC', s))
seconds = st.floats(allow_nan=False, allow_infinity=False)


# Plain values: the types are built in the test, since what checks their fields
# there draws random numbers, which Hypothesis forbids in a strategy.
plain_segments = st.lists(
  st.tuples(seconds, seconds, st.integers(0, 3)), max_size=3
)
plain_videos = st.lists(
  st.tuples(names, names, *[st.none() | seconds] * 2, plain_segments),
  max_size=4,
  unique_by=lambda v: v[0].removeprefix('v_'),
)


@in_one_folder
@hypothesis.given(
  plain_videos,
  st.lists(
    names.filter(lambda x: x == x.strip(BLANKS)),
    min_size=4,
    max_size=4,
    unique=True,
  ),
)
def test_ground_truth_round_trip(tmp_path, plain, classes):
  videos = {}
  for name, subset, duration, fps, segments in plain:
    segments = [(s, e, classes[i]) for s, e, i in segments]
    videos[name] = make_video(name, subset, duration, fps, *segments)
  value = Annotations(videos, tuple(classes))
  path = tmp_path / 'gt.json'
  files.write_json(path, value.as_json())
  assert annotations.read_ground_truth(path) == value


KEYS = 'subset', 'duration', 'fps', 'annotations', 'label', 'segment'
json_values = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner)
  ),
  max_leaves=12,
)
json_files = st.fixed_dictionaries(
  {'database': st.dictionaries(st.text(max_size=3), json_values, max_size=3)},
  optional={'activity_list': json_values},
).map(json.dumps)
thumos_files = st.lists(
  st.sampled_from(['v', 'u', '1', '2.5', 'x', '\n', '\r\n', '\x0b', ' '])
).map(' '.join)
cells = st.sampled_from(
  ['one', 'two', 'Run', '1', '-3', '99', '1e999', 'x', '"', '\ufeff', '']
)
heads = 'video_id,duration,fps', 'video_id,subset,label', 'label,fps,video_id'
tables = st.builds(
  lambda header, rows: '\n'.join([header, *map(','.join, rows)]),
  st.sampled_from(heads),
  st.lists(st.lists(cells, min_size=2, max_size=4), max_size=4),
)


@pytest.mark.parametrize(
  ('read', 'name', 'texts'),
  [
    (annotations.read_ground_truth, 'gt.json', json_files),
    (annotations.read_ground_truth, 'Run_val.txt', thumos_files),
    (formats.read_video_list, 'file.csv', tables),
    (inputs.read_labels, 'file.csv', tables),
  ],
)
@in_one_folder
@hypothesis.given(data=st.data())
def test_any_file_reads_or_is_an_input_error(tmp_path, read, name, texts, data):
  path = written(tmp_path, data.draw(st.binary() | texts), name)
  try:
    found = read(path)
  except errors.InputError as e:
    assert '\n' not in str(e)
    return
  if isinstance(found, Annotations):
    assert name == 'gt.json' or found.classes == ('Run',)
    files.write_json(tmp_path / 'again.json', found.as_json())
    assert annotations.read_ground_truth(tmp_path / 'again.json') == found
    annotations.problems(found)


# Clicks.

BACKTAL = """\ufeffURLID,URL,TagID,Tag,Start,End,Time,State\r
\r
one,one.mp4,20,background_background,21.5,21.5,1,1\r
v_one,one.mp4,20,background_background,64,64.5,2,1\r
"""
SFNET = 'one,12.25,Jump\r\n\r\ntwo,0,Run\r\n\r\n'
LACP = """class,class_index,start_frame,stop_frame,video_id,point
Jump,1,250,500,one,300
"""
HRPRO = """class,start_frame,stop_frame,video_id,point
Jump,250.0,500.0,one,300
"""
AAPL = 'video_id,timestamp,action_label\none,12.25,Jump\ntwo,0,Run\n'
OURS = """video_id,time,label,annotator
one,12.25,Jump,Ann
,,,
two,5e-1,background,
"""


@pytest.mark.parametrize(('name', 'format', 'text', 'expected'), [
  # Start, not End.
  ('Clicks_A2.txt', 'backtal', BACKTAL,
   [('one', 21.5, 'background', 'A2'), ('one', 64.0, 'background', 'A2')]),
  ('sfnet.txt', 'sfnet', SFNET,
   [('one', 12.25, 'Jump', 'sfnet'), ('v_two', 0.0, 'Run', 'sfnet')]),
  # Frame 300 at the video's own 25 frames a second.
  ('lacp.csv', 'frames', LACP, [('one', 12.0, 'Jump', 'lacp')]),
  ('hrpro.csv', 'frames', HRPRO, [('one', 12.0, 'Jump', 'hrpro')]),
  ('aapl.csv', 'aapl', AAPL,
   [('one', 12.25, 'Jump', 'aapl'), ('v_two', 0.0, 'Run', 'aapl')]),
  ('ours.csv', 'csv', OURS,
   [('one', 12.25, 'Jump', 'Ann'), ('v_two', 0.5, 'background', 'ours')]),
])  # fmt: skip
def test_each_click_format(tmp_path, name, format, text, expected):
  path, expected = written(tmp_path, text, name), [Click(*c) for c in expected]
  assert annotations.read_clicks(path, TRUTH) == (expected, [])
  assert click_formats.read(path).format == format
  again = tmp_path / 'again' / 'x.csv'
  annotations.write_clicks(again, expected)
  assert annotations.read_clicks(again) == (expected, [])


ONE_CLICK = [('one', 12.5, 'Jump', 'Ann')]


@pytest.mark.parametrize(('text', 'expected'), [
  # As spreadsheets save them, in the settings of several countries.
  ('video_id;time;label;annotator\none;12,5;Jump;Ann\n', ONE_CLICK),
  ('sep=;\r\nvideo_id;time;label;annotator\r\none;12.5;Jump;Ann\n', ONE_CLICK),
  ('video_id\ttime\tlabel\tannotator\none\t12,5\tJump\tAnn\n', ONE_CLICK),
  ('Video_ID,TIME,Label,Annotator\none,0:00:12.5,Jump,Ann\n', ONE_CLICK),
  ('video_id;time;label;annotator\none;0:12,5;Jump;Ann\n', ONE_CLICK),
  ('\ufeffvideo_id;time;label;annotator\none;12,5;Jump;Ann\n'.encode('utf-16'),
   ONE_CLICK),
  ('video_id,time,label\none,12.5,Jump\n', [('one', 12.5, 'Jump', 'x')]),
  ('one;12,5;Jump\n', [('one', 12.5, 'Jump', 'x')]),
  ('video_id,time,label,annotator\none,12.5,Background,A\n',
   [('one', 12.5, 'background', 'A')]),
  # Commas delimit here, whatever a name holds.
  ('video_id,time,label,annotator\none,12.5,Jump,a;b\tc\n',
   [('one', 12.5, 'Jump', 'a;b\tc')]),
  # Columns in any order, and more of them.
  ('Note,Annotator,Label,Time,Video_ID\n"a, b",Ann,Run,1,one\n',
   [('one', 1.0, 'Run', 'Ann')]),
])  # fmt: skip
def test_dialects_of_tables_of_clicks(tmp_path, text, expected):
  path = written(tmp_path, text, 'x.csv')
  clicks, _ = annotations.read_clicks(path, TRUTH)
  assert clicks == [Click(*c) for c in expected]


def test_dialects_of_tables_of_labels(tmp_path):
  text = 'video_id\tsubset\tlabel\tduration\none\ttrain\tRun\t12,5\n'
  videos, labels = inputs.read_labels(written(tmp_path, text))
  assert (videos['one'].duration, labels) == (12.5, {'one': {'Run'}})


# "café" with one letter e with an accent, and with the accent behind the e.
COMPOSED, DECOMPOSED = 'caf\u00e9', 'cafe\u0301'


@pytest.mark.parametrize(
  ('known', 'other'), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)]
)
def test_canonically_equal_names_are_one(tmp_path, known, other):
  names = [known, f'x{known}']
  assert video_names.match_one(f'{other}.MP4', names) == known
  rows = [{'label': known, 'segment': [1, 2]}]
  text = database(**{known: {'subset': 'a', 'annotations': rows}})
  path = written(tmp_path, text)
  truth = annotations.read_ground_truth(path)
  assert truth.classes == (COMPOSED,)
  path = written(tmp_path, f'video_id,time,label\n{other},1,{other}\n')
  (click,), _ = annotations.read_clicks(path, truth)
  assert (click.video, click.label) == (known, COMPOSED)


def test_numbers_as_other_tools_write_them(tmp_path):
  items = [{'label': x, 'segment': ['1', 2]} for x in (3, 10)]
  entry = {'subset': 'a', 'fps': '30000/1001', 'annotations': items}
  truth = annotations.read_ground_truth(written(tmp_path, database(one=entry)))
  assert truth.videos['one'].fps == 30000 / 1001
  assert set(truth.classes) == {'3', '10'}
  path = written(tmp_path, 'video_id,time,label\none,1,3\n')
  assert annotations.read_clicks(path, truth)[0][0].label == '3'


def test_boundaries_in_click_files_leave_no_trace(tmp_path):
  other = LACP.replace('250,500', 'nobody,knows')
  assert annotations.read_clicks(
    written(tmp_path, LACP), TRUTH
  ) == annotations.read_clicks(written(tmp_path, other), TRUTH)


def test_frames_need_a_rate(tmp_path):
  path = written(tmp_path, HRPRO.replace(',one,', ',two,'))
  with pytest.raises(errors.InputError, match=r":2: .*'v_two'.*fps"):
    annotations.read_clicks(path, TRUTH)
  clicks, _ = annotations.read_clicks(path, TRUTH, fps=10)
  assert clicks == [Click('v_two', 30.0, 'Jump', 'file')]
  # The ground truth's own rate goes first.
  clicks, _ = annotations.read_clicks(written(tmp_path, HRPRO), TRUTH, fps=10)
  assert clicks == [Click('one', 12.0, 'Jump', 'file')]


def test_a_break_in_a_cell_is_a_space_and_lines_are_still_counted(tmp_path):
  text = OURS.replace(',Ann', ',"Ann\r\nB"') + 'one,x,Run,\n'
  path = written(tmp_path, text)
  clicks, complaints = annotations.read_clicks(path, TRUTH, lenient=True)
  assert clicks[0].annotator == 'Ann B'
  assert complaints[0].startswith(f'{path}:6: ')


@pytest.mark.parametrize(('line', 'match'), [
  ('one,soon,Run,Ann', "'soon'"),
  ('one,,Run,Ann', "''"),
  ('one,nan,Run,Ann', "'nan'"),
  ('one,1_0,Run,Ann', "'1_0'"),
  ('one,1e999,Run,Ann', "'1e999'"),
  ('one,-0.5,Run,Ann', '-0.5 s'),
  ('one,100.5,Run,Ann', '100.5 s.*100 s'),
  ('three,1,Run,Ann', "'three'"),
  ('one,1,Swim,Ann', "'Swim'"),
  ('one,1,,Ann', 'no label'),
  (',1,Run,Ann', 'no video'),
  ('one,1,Run', '3 columns, expected 4'),
  ('one,1,Run,Ann,more', '5 columns, expected 4'),
  ('one,12,5,Run,Ann', '5 columns, expected 4'),
  ('video_id,time,label,annotator', 'header'),
])  # fmt: skip
def test_a_wrong_line_is_named_and_dropped_only_if_asked(tmp_path, line, match):
  text = f'video_id,time,label,annotator\r\n\r\none,2,Run,Ann\r\n{line}\r\n'
  path = written(tmp_path, text)
  with pytest.raises(errors.InputError, match=f':4: .*{match}') as info:
    annotations.read_clicks(path, TRUTH)
  assert str(info.value).startswith(f'{path}:4: ')
  clicks, complaints = annotations.read_clicks(path, TRUTH, lenient=True)
  assert clicks == [Click('one', 2.0, 'Run', 'Ann')]
  assert complaints == [str(info.value)]


def test_all_wrong_lines_are_counted_and_listed_in_order(tmp_path):
  text = 'video_id,time,label,annotator\none,x,Run,A\none,1\none,-1,Run,A\n'
  path = written(tmp_path, text)
  with pytest.raises(errors.InputError, match=r':2: .* \(and 2 more'):
    annotations.read_clicks(path, TRUTH)
  _, complaints = annotations.read_clicks(path, TRUTH, lenient=True)
  places = [c.removeprefix(f'{path}:').split(':')[0] for c in complaints]
  assert places == ['2', '3', '4']


@pytest.mark.parametrize('lenient', [False, True])
@pytest.mark.parametrize(('text', 'match'), [
  ('', 'empty'),
  ('\n \n', 'empty'),
  ('video_id,label,annotator\n', ':1: no column time'),
  ('URLID,Tag,End\n', ':1: no column start'),
  ('class,video_id,start_frame\n', ':1: no column point'),
  ('video,seconds\none,1\n', 'no column'),
  ('video_id|time|label|annotator\n', 'comma, semicolon or tab'),
  ('video_id,time,Time,label\nx,1,2,background\n', ':1: column time twice'),
  (AAPL + BACKTAL, ':4: the header of backtal .* aapl'),
  (SFNET + OURS, ':5: the header of csv .* sfnet'),
  (OURS + 'time,video_id,label,annotator\n', ':5: the header of csv'),
  (OURS + '"one,1,Run,Ann\n', ':5: not CSV'),
  (b'video_id\xff', 'not UTF-8'),
])  # fmt: skip
def test_no_known_format_or_two(tmp_path, text, match, lenient):
  path = written(tmp_path, text)
  with pytest.raises(errors.InputError, match=match) as info:
    annotations.read_clicks(path, TRUTH, lenient=lenient)
  assert str(info.value).startswith(str(path))


# A name in a CSV cell is one line, and nothing but spaces is no name.
trimmed = names.filter(
  lambda s: (
    s == s.strip(' \t\n\r\x0b\x0c\ufeff\xa0')
    and not {'\r', '\n'}.intersection(s)
  )
)
click_lists = st.lists(
  st.builds(Click, trimmed, seconds.map(abs), trimmed, trimmed), max_size=5
)


@in_one_folder
@hypothesis.given(click_lists)
@hypothesis.example([Click('a"b",', 0.1 + 0.2, "x'y", '#z;')])
def test_click_round_trip(tmp_path, clicks):
  path = tmp_path / 'clicks.csv'
  annotations.write_clicks(path, clicks)
  assert annotations.read_clicks(path) == (clicks, [])


headers = [t.split('\n')[0] for t in (BACKTAL, SFNET, LACP, HRPRO, AAPL, OURS)]
click_texts = st.builds(
  lambda header, rows, end: end.join([header, *map(','.join, rows)]),
  st.sampled_from(headers) | st.text(max_size=20),
  st.lists(st.lists(cells, max_size=8), max_size=5),
  st.sampled_from(['\n', '\r\n', '\r', '\n\n']),
)


@in_one_folder
@hypothesis.given(
  st.binary() | st.text() | click_texts,
  st.booleans(),
  st.sampled_from([None, TRUTH]),
  st.sampled_from([None, 25, 1e-310]),
)
def test_any_click_file_reads_or_is_an_input_error(
  tmp_path, text, lenient, truth, fps
):
  if isinstance(text, str):
    text = text.encode(errors='surrogatepass')
  path = written(tmp_path, text)
  try:
    clicks, complaints = annotations.read_clicks(
      path, truth, lenient=lenient, fps=fps
    )
  except errors.InputError as e:
    assert '\n' not in str(e)
    return
  assert lenient or not complaints
  assert all(c.time >= 0 for c in clicks)
  annotations.write_clicks(tmp_path / 'again.csv', clicks)
  assert annotations.read_clicks(tmp_path / 'again.csv') == (clicks, [])


# Real files; the counts stand in method.md, section 8, or were taken with bare
# json and csv.DictReader before the readers were written.


# Once: it is as slow as it is large.
read_real = functools.cache(annotations.read_ground_truth)


@pytest.mark.parametrize(('name', 'subsets', 'numbers', 'problems'), [
  ('thumos14/gt_thumos14.json', {'val': 200, 'test': 210}, (6314, 20),
   {'beyond duration': 4}),
  ('points/lacp_thumos_gt.json', {'train': 200, 'test': 210}, (6318, 20),
   {'no duration': 410}),
  ('activitynet12/activity_net.v1-2.min.json',
   {'training': 4819, 'validation': 2383, 'testing': 2480}, (10733, 100),
   {'end <= start': 10, 'beyond duration': 185, 'twice': 34}),
])  # fmt: skip
def test_real_ground_truth(shared, tmp_path, name, subsets, numbers, problems):
  path = shared / 'data' / name
  found = read_real(path)
  assert {s: len(found.subset(s)) for s in subsets} == subsets
  assert len(found.videos) == sum(subsets.values())
  num_segments = sum(len(v.segments) for v in found.videos.values())
  assert (num_segments, len(found.classes)) == numbers
  told = annotations.problems(found)
  assert {kind: len(lines) for kind, lines in told.items() if lines} == problems
  files.write_json(tmp_path / 'again.json', found.as_json())
  assert annotations.read_ground_truth(tmp_path / 'again.json') == found
  for entry in json.loads(path.read_text())['database'].values():
    for item in entry['annotations']:
      assert item.get('idx') in (None, found.classes.index(item['label']))


@pytest.mark.parametrize(('name', 'num_clicks', 'num_videos', 'num_classes'), [
  ('thumos14/THUMOS14_Background-Click-Annotation_A1.txt', 2264, 200, 1),
  ('thumos14/THUMOS14_Background-Click-Annotation_A2.txt', 2323, 199, 1),
  ('thumos14/THUMOS14_Background-Click-Annotation_A3.txt', 2344, 199, 1),
  ('points/lacp_thumos_point_labels.csv', 3003, 200, 20),
  ('points/sfnet_THUMOS1.txt', 2980, 200, 20),
  # Of other data sets, without their ground truth.
  ('points/hrpro_beoid_point.csv', 594, 46, 34),
  ('points/hrpro_gtea_point.csv', 367, 21, 7),
  ('points/sfnet_GTEA1.txt', 369, 21, 7),
])  # fmt: skip
def test_real_clicks(
  shared, tmp_path, name, num_clicks, num_videos, num_classes
):
  is_thumos = 'beoid' not in name and 'gtea' not in name.casefold()
  data = shared / 'data'
  truth = read_real(data / 'thumos14/gt_thumos14.json') if is_thumos else None
  clicks, _ = annotations.read_clicks(data / name, truth, fps=30)
  assert len(clicks) == num_clicks
  assert len({c.video for c in clicks}) == num_videos
  assert len({c.label for c in clicks}) == num_classes
  annotations.write_clicks(tmp_path / 'again.csv', clicks)
  assert annotations.read_clicks(tmp_path / 'again.csv', truth) == (clicks, [])


def test_real_frame_clicks_lie_in_their_instances_at_the_own_rate(shared):
  truth = read_real(shared / 'data/thumos14/gt_thumos14.json')
  path = shared / 'data/points/lacp_thumos_point_labels.csv'
  clicks, _ = annotations.read_clicks(path, truth)
  odd = [c for c in clicks if truth.videos[c.video].fps != 30]
  assert len(odd) > 100
  inside = [
    c
    for c in odd
    if any(
      s.start - 0.1 <= c.time <= s.end + 0.1 and s.label == c.label
      for s in truth.videos[c.video].segments
    )
  ]
  assert len(inside) > 0.95 * len(odd)
