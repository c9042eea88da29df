"""The launch files: well formed, and several processes train as one does."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import jsonschema
import numpy as np
import pytest
import yaml

from backtal_jax import checkpoints

_ROOT = pathlib.Path(__file__).parents[1]
_SCRIPTS = sorted([*_ROOT.glob('launch/*.sh'), *_ROOT.glob('launch/*.sbatch')])
_ENV = {
  **{k: v for k, v in os.environ.items() if not k.startswith('JAX_')},
  'PYTHON': sys.executable,
  'JAX_PLATFORMS': 'cpu',
}


@pytest.mark.parametrize('path', _SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_well_formed(path):
  subprocess.run(['bash', '-n', path], check=True)
  if shutil.which('shellcheck'):
    subprocess.run(['shellcheck', path], check=True)


def test_the_kubernetes_file_fits_its_schema_and_itself():
  schema = json.loads((_ROOT / 'tests/kubernetes_schema.json').read_text())
  text = (_ROOT / 'launch/kubernetes.yaml').read_text()
  service, job = yaml.safe_load_all(text)
  validator = jsonschema.Draft202012Validator(schema)
  for document in (service, job):
    validator.validate(document)
  with pytest.raises(jsonschema.ValidationError):
    validator.validate({**job, 'kind': 'Jobb'})
  spec, name = job['spec'], job['metadata']['name']
  pod = spec['template']['spec']
  env = {e['name']: e['value'] for e in pod['containers'][0]['env']}
  assert spec['completions'] == spec['parallelism']
  assert env['JAX_NUM_PROCESSES'] == str(spec['completions'])
  # A pod of an indexed Job is found as JOB-INDEX.SUBDOMAIN.
  assert pod['subdomain'] == service['metadata']['name']
  host = env['JAX_COORDINATOR_ADDRESS'].split(':')[0]
  assert host == f'{name}-0.{service["metadata"]["name"]}'
  assert service['spec']['selector'] == {'job-name': name}


def _run(*command, **env):
  return subprocess.run(
    list(map(str, command)),
    cwd=_ROOT, env=_ENV | env, capture_output=True, text=True, timeout=300,
  )  # fmt: skip


def _lines(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_two_processes_train_as_one_does(demo_root, tmp_path):
  arguments = (
    '--config=configs/demo.py',
    f'--config.data.root={demo_root}',
    '--config.model.hidden_dim=16',
    '--config.train.num_epochs=2',  # 20 steps
    '--config.train.eval_every=2',
    '--config.localization.class_threshold=0.05',
  )
  losses, params = [], []
  launches = {'local.sh': (), 'multi_process.sh': (2,)}
  for name, number in launches.items():
    workdir = tmp_path / name
    ended = _run(
      _ROOT / 'launch' / name, *number, *arguments, f'--workdir={workdir}',
      LOG_DIR=str(tmp_path / 'logs'),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    lines = _lines(workdir)
    losses.append([s['loss/total'] for s in lines if 'loss/total' in s])
    params.append(jax.tree.leaves(checkpoints.restore_params(workdir, None)[0]))
  assert (tmp_path / 'logs/process_1.log').exists()
  assert len(losses[0]) == 20
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)
  for a, b in zip(*params, strict=True):
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)
  # Evaluating the same parameters: what near-ties rank would depend on more.
  whole = tmp_path / 'local.sh'
  ended = _run(
    _ROOT / 'launch' / 'multi_process.sh', 2, *arguments, '--mode=evaluate',
    f'--checkpoint={whole}', f'--workdir={tmp_path / "two"}',
  )  # fmt: skip
  assert ended.returncode == 0, ended.stderr
  one, two = (
    json.loads((folder / 'metrics.json').read_text())
    for folder in (whole, tmp_path / 'two')
  )
  assert one['average_mAP'] > 0
  assert one['mAP'] == pytest.approx(two['mAP'], abs=1e-6)


def test_a_process_that_fails_ends_the_others_with_its_status(tmp_path):
  # A stand-in for python: process 1 fails, process 0 would wait.
  fake = tmp_path / 'python'
  fake.write_text(
    '#!/bin/bash\ncase "$*" in *process_id=1*) exit 3 ;; '
    '*main*) exec sleep 100 ;; *) echo 1234 ;; esac\n'
  )
  fake.chmod(0o755)
  ended = _run(
    _ROOT / 'launch/multi_process.sh',
    2,
    PYTHON=str(fake),
    LOG_DIR=str(tmp_path),
  )
  assert ended.returncode == 3


def test_without_a_number_it_tells_its_usage():
  ended = _run(_ROOT / 'launch/multi_process.sh', '--config=configs/demo.py')
  assert ended.returncode == 2
  assert ended.stderr.startswith('usage: ')


@pytest.mark.slow
def test_one_of_two_processes_killed_and_the_run_goes_on(demo_root, tmp_path):
  arguments = (
    '--config=configs/demo.py',
    f'--config.data.root={demo_root}',
    '--config.model.hidden_dim=16',
    '--config.train.num_epochs=2',
    '--config.train.eval_every=2',
    '--config.train.checkpoint_every=1',
  )
  script = _ROOT / 'launch' / 'multi_process.sh'
  workdirs = [tmp_path / 'whole', tmp_path / 'killed']
  with subprocess.Popen(
    [script, '2', *arguments, f'--workdir={workdirs[1]}'],
    cwd=_ROOT,
    env=_ENV | {'LOG_DIR': str(tmp_path)},
  ) as launched:
    while not (workdirs[1] / 'checkpoints' / '3').exists():
      assert launched.poll() is None
      time.sleep(0.05)
    subprocess.run(['pkill', '-KILL', '-f', f'{workdirs[1]}.*process_id=1'])
    # The other must not wait for ever.
    assert launched.wait(timeout=90) == 128 + 9
  for workdir in workdirs:
    ended = _run(
      script, 2, *arguments, f'--workdir={workdir}', LOG_DIR=str(tmp_path)
    )
    assert ended.returncode == 0, ended.stderr
  whole, killed = (
    jax.tree.leaves(checkpoints.restore_params(workdir, None)[0])
    for workdir in workdirs
  )
  for a, b in zip(whole, killed, strict=True):
    np.testing.assert_array_equal(a, b)
  assert _lines(workdirs[0]) == _lines(workdirs[1])
