"""The model card of an exported folder, in the form of the Hugging Face Hub."""

import json
from collections.abc import Mapping
from typing import Any

from backtal_jax import predict
from backtal_jax.metrics import scores

_TASK = 'temporal-action-localization'


def write(
  name: str, config: Mapping[str, Any], model: predict.Model,
  metrics: scores.Metrics,
) -> str:  # fmt: skip
  """Return the card of a model as Markdown with a head of metadata.

  Args:
    name: What the model is called.
    config: Config of the model, plain values.
    model: The model.
    metrics: Of the checkpoint, see docs/architecture.md; {} where unknown.
  """
  data = config['data']
  head: dict[str, Any] = {
    'library_name': 'backtal_jax',
    'tags': [_TASK, 'weakly-supervised', 'background-clicks', 'jax'],
  }
  named = scores.named(metrics)  # none of a run without an evaluation split
  numbers = {key.replace('_', ' '): value for key, value in named.items()}
  if numbers:
    dataset = {key: data['name'] for key in ('type', 'name')}
    result = {
      'task': {'type': _TASK},
      'dataset': dataset | {'split': data['eval_split']},
      'metrics': [
        {'type': 'mAP', 'name': key, 'value': round(value, 4)}
        for key, value in numbers.items()
      ],
    }
    head['model-index'] = [{'name': name, 'results': [result]}]
  # JSON is YAML, so that no name of a class or file is read as anything else.
  lines = [f'{key}: {json.dumps(value)}' for key, value in head.items()]
  return '\n'.join(['---', *lines, '---', *_body(name, config, model, numbers)])


def _body(name, config, model, numbers):
  data, train, loss = config['data'], config['train'], config['loss']
  head = model.head is not None
  on = {key: value for key, value in loss.items() if value}
  steps, channels = model.shape
  record = model.read.record
  made = json.dumps(record) if record else 'not recorded'
  table = [f'| {key} | {100 * value:.2f} |' for key, value in numbers.items()]
  return [
    f'# {name}',
    '',
    'BackTAL finds actions in untrimmed videos: features of a video go in, '
    'segments with a class and a score come out. It was trained with the '
    'classes of whole videos and background clicks, without the limits of '
    'actions.',
    '',
    '```python',
    'import backtal_jax',
    f"model = backtal_jax.load('{name}')",
    'segments = model.predict(features, duration=212.4)',
    '```',
    '',
    '## Metrics',
    *(
      [
        f'On `{data["eval_split"]}` of {data["name"]}, epoch {model.epoch}.',
        '', '| metric | % |', '| --- | --- |', *table,
      ] if table else ['None are known of this checkpoint.']
    ),
    '',
    '## Data',
    f'* {data["name"]}, trained on `{data["train_split"]}`.',
    f'* {len(model.classes)} classes: {", ".join(model.classes)}.',
    f'* Features: {channels} channels, resampled to {steps} snippets a video. '
    f'How they were made: {made}.',
    f'* Clicks: {data["clicks"] or "those of the feature files"}, of annotator '
    f'{data["annotator"]}.',
    '',
    '## Recipe',
    f'* {train["num_epochs"]} epochs of batches of {train["batch_size"]}, '
    f'learning rate {train["learning_rate"]}, seed {train["seed"]}; this is '
    f'epoch {model.epoch}.',
    f'* Loss: {json.dumps(on)}.',
    f'* Quality head: {"in stages/quality.npz" if head else "none"}.',
    '* All fields: config.json.',
    '',
    '## Limits',
    '* It is for features made as those of its training; others give noise '
    'without an error where their number of channels is the same.',
    f'* It knows its classes only, and sees a video as {steps} snippets.',
    '* Scores rank segments; they are no probabilities.',
    '* Whoever shares it says under which licence, and whether the licence of '
    'the data allows that.',
    '',
  ]  # fmt: skip
