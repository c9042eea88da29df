"""The command `prepare custom`, and those of the benchmarks.

Any features, annotations and clicks to npz files ready for training.
"""

import argparse
import collections
import dataclasses
import json
import os
import zlib
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import tqdm

from backtal_jax import command_line, errors, files
from backtal_jax.data import (
  annotations,
  arrays,
  clicks,
  feature_records,
  resampling,
  sources,
)
from backtal_jax.prepare import inputs, options, scan

BENCHMARKS: dict[str, dict[str, Any]] = {  # other defaults of options.Recipe
  'thumos14': {
    'train_split': 'val', 'eval_split': 'test', 'num_snippets': 750,
  },
  'activitynet12': {},
  'hacs': {'num_snippets': 200},
}  # fmt: skip
_FEATURE_DIM = 2048  # D of the benchmarks
# How argparse makes a value of each type.
_KINDS: dict[Any, dict[str, Any]] = {
  int: {'type': int},
  float | None: {'type': float},
  bool: {'action': 'store_true'},
  bool | None: {'action': argparse.BooleanOptionalAction},
  tuple[str, ...]: {'nargs': '+'},
}
# What decides, beside the annotations, what lies in the files.
_MADE_BY = ('features', 'train_split', 'eval_split', 'num_snippets', 'fps',
            'stride', 'window', 'video_names', 'channels_first')  # fmt: skip
# Training videos up to which a set counts as small; those that the rates were
# tried on have 32 to 262.
_MANY = 1000
# Steps that a training has at least.
_STEPS = 400
_GUARD = """\
  if recipe != 'published':
    # Look at training videos at every evaluation, and do without the clicks
    # where fewer than a fifth of them are found to be of one of their classes.
    c.eval.watch = True
    c.stages.without_clicks_below = 0.2
"""
_HERE = 'str(pathlib.Path(__file__).parent)'


def add_options(parser: argparse.ArgumentParser, benchmark: str = '') -> None:
  """Add the options that options.Recipe declares."""
  for field in dataclasses.fields(options.Recipe):
    if field.metadata:
      spellings = {f'--{field.name}', f'--{field.name.replace("_", "-")}'}
      how = _KINDS.get(field.type, {}) | field.metadata
      required = field.default is dataclasses.MISSING
      parser.add_argument(
        *sorted(spellings, reverse=True),
        required=required,
        default=None if required else field.default,
        **how,
      )
  parser.set_defaults(**BENCHMARKS.get(benchmark, {}))


def run(
  features: Sequence[str],
  clicks: Sequence[str],
  benchmark: str = '',
  **given: Any,
) -> None:
  """Prepare what the options of options.Recipe say."""
  recipe = options.Recipe(
    features=tuple(features),
    clicks=tuple(clicks),
    base=benchmark,
    feature_dim=_FEATURE_DIM if benchmark else 0,
    **given,
  )
  prepare(recipe)


def prepare(recipe: options.Recipe) -> dict[str, int]:
  """Write npz files, ground_truth.json, clicks.csv and, last, config.py.

  Every wrong video is told; unless lenient that is an error, and the last
  three files are not written. What is whole already is not written again.

  Returns:
    {subset: number of videos}.

  Raises:
    errors.InputError: Something is wrong with an annotation or a feature file.
  """
  output = files.path(recipe.output)
  files.require_ending(output)
  given = inputs.read(recipe)
  recipe, truth = given.recipe, given.truth
  _claim(output, given)
  problems = _convert(given, output)
  errors.tell([p for p in problems.values() if p], recipe.lenient)
  files.write_json(output / 'ground_truth.json', truth.as_json())
  if recipe.clicks:
    annotations.write_clicks(output / 'clicks.csv', given.clicks)
  if given.record:
    feature_records.claim(output, given.record)
  counts = collections.Counter(
    truth.videos[name].subset for name, p in problems.items() if not p
  )
  train = recipe.train_split.casefold()
  num_training = sum(n for k, n in counts.items() if k.casefold() == train)
  _write_config(output, given, num_training)
  clicked = collections.Counter(
    truth.videos[click.video].subset for click in given.clicks
  )
  for split, count in sorted(counts.items()):
    print(f'{output}: {count} videos of {split}, {clicked[split]} clicks')
  config = output / 'config.py'
  print(command_line.command('-m', 'backtal_jax.main', '--config', config))
  return dict(counts)


def _claim(output, given):
  """Refuse an output that was made otherwise; drop what a dead run left."""
  recipe = given.recipe
  made = {key: getattr(recipe, key) for key in _MADE_BY}
  labels = sorted((k, sorted(v)) for k, v in given.labels.items())
  text = repr((given.truth.videos, given.truth.classes, given.clicks, labels))
  made['annotations'] = f'{zlib.crc32(text.encode()):08x}'
  made, path = json.loads(json.dumps(made)), output / 'prepared.json'
  splits = [recipe.train_split, recipe.eval_split]
  splits = [output / split for split in splits if split]
  there = [p for folder in splits for p in files.listed(folder, '.npz')]
  before = files.read_json(path) if path.exists() else {} if there else made
  if before != made and recipe.overwrite:
    for left in (output / 'config.py', path, *there):
      left.unlink(missing_ok=True)
  elif before != made:
    changed = ', '.join(
      f'{k} was {before.get(k)}, is {made[k]}'
      for k in made
      if made[k] != before.get(k)
    )
    raise errors.InputError(
      f'{output}: holds data made otherwise: {changed}; choose another '
      '--output, or --overwrite'
    )
  files.write_json(path, made, indent=1)
  for folder in (output, *splits):
    files.remove_temporary(folder)


def _convert(given, output):
  """Write the videos that are not there yet; return {video: problem}."""
  truth, recipe = given.truth, given.recipe
  clicked = clicks.by_video(given.clicks) if recipe.clicks else None

  def one(name):
    video = truth.videos[name]
    is_train = video.subset.casefold() == recipe.train_split.casefold()
    split = recipe.train_split if is_train else recipe.eval_split
    path = output / split / f'{files.name_of(name)}.npz'
    if path.exists():
      return None
    point_label = None
    if is_train and clicked is not None:
      point_label = clicks.snippet_labels(
        clicked.get(name, ()), video.duration, recipe.num_snippets,
        truth.classes,
      )  # fmt: skip
    try:
      streams = [_resample(x, video, recipe) for x in given.features[name]()]
    except errors.InputError as e:
      return str(e)
    sources.write_video(
      path,
      feat_spa=streams[0].T,
      # One stream stands in the first place, the second has no channels.
      feat_tem=streams[1].T if streams[1:] else streams[0].T[:0],
      cls_label=[label in given.labels[name] for label in truth.classes],
      vid_name=name,
      frame_num=max(1, round(video.duration * video.fps)),
      fps=video.fps,
      duration=video.duration,
      point_label=point_label,
    )
    return None

  names = list(given.features)
  with futures.ThreadPoolExecutor(recipe.workers) as pool:
    results = tqdm.tqdm(
      pool.map(one, names), total=len(names), unit='video', disable=None
    )
    return dict(zip(names, results, strict=True))


def _resample(array, video, recipe):
  array = arrays.finite(array, f'video {video.name!r}')
  grid = scan.find_grid(recipe, video)
  if grid:
    return grid.resample(array, recipe.num_snippets)
  return resampling.resample(array, recipe.num_snippets)


def _write_config(output, given, num_training):
  recipe = given.recipe
  name = os.path.basename(os.path.abspath(output))
  base = recipe.base or 'thumos14'
  default = 'published' if recipe.base else 'robust'
  # The folder may be moved; a config is never run from a bucket, though.
  is_bucket = '://' in os.fspath(output)
  root = repr(os.fspath(output)) if is_bucket else _HERE
  lines = {
    'model.num_classes': len(given.truth.classes),
    'model.feature_dim': given.feature_dim,
    'data.name': name,
    'data.train_split': recipe.train_split,
    'data.eval_split': recipe.eval_split,
    'data.num_snippets': recipe.num_snippets,
    'data.ground_truth': 'ground_truth.json',
    'data.features': feature_records.to_text(given.record),
  }
  if recipe.clicks and not recipe.eval_split:
    # For a share of them to be kept aside (config.data.clicks_aside).
    lines['data.clicks'] = 'clicks.csv'
  if not recipe.base or not recipe.eval_split:
    # Nothing is chosen on the evaluation split.
    lines |= {'eval.best_metric': 'last', 'eval.published': ()}
  text = f'''"""Made by backtal_jax.prepare."""

import pathlib

from configs import {', '.join(sorted(['recipes', base]))}


def get_config(recipe={default!r}):
  """Return {base}'s config but for what is set here."""
  c = {base}.get_config().unlock()
  c.data.root = {root}
'''
  text += ''.join(f'  c.{key} = {value!r}\n' for key, value in lines.items())
  if not recipe.base:
    text += _fit(num_training) + _GUARD
  text += '  return recipes.apply(c, recipe)\n'
  files.write_text(output / 'config.py', text)


def _fit(count):
  """Return lines of a config that fit a set of so many training videos."""
  if count > _MANY:
    return (
      f'  # Widths and rate are those of THUMOS14: no set of {count} training\n'
      '  # videos was tried.\n'
    )
  batch_size = min(max(count // 4, 1), 16)
  epochs = max(40, -(-_STEPS // -(-count // batch_size)))
  return f"""\
  # For {count} training videos. The rate, which the recipes robust and staged
  # double, is a quarter of that at which trainings begin to fail on small sets
  # of raw features (docs/raw_features.md); wider was not tried there.
  c.model.hidden_dim = 256
  c.model.reduce_dim = 128
  c.train.learning_rate = 5e-4
  # At least {_STEPS} steps.
  c.train.batch_size = {batch_size}
  c.train.num_epochs = {epochs}
  c.train.eval_every = 10
"""
