"""The launch files: well formed, and several processes train as one does."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import time

import jax
import jsonschema
import numpy as np
import pytest
import yaml
from faults_test import KILLS

from backtal_jax import checkpoints, train
from configs import demo

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


# 20 steps with dropout; few activations are wide, and segments are found.
_FIELDS = {
  'model.hidden_dim': 16,
  'train.num_epochs': 2,
  'train.eval_every': 2,
  'localization.class_threshold': 0.05,
}


def _arguments(root, **fields):
  fields = _FIELDS | {'data.root': root} | fields
  return (
    '--config=configs/demo.py',
    *(f'--config.{name}={value}' for name, value in fields.items()),
  )


@pytest.fixture(scope='module')
def one_device(demo_root, tmp_path_factory):
  """Train on one device."""
  workdir = tmp_path_factory.mktemp('runs') / 'one'
  _train(demo_root, workdir, mesh=(1,))
  return workdir


def _train(root, workdir, **fields):
  config = demo.get_config()
  with config.unlocked():
    config.update_from_flattened_dict(
      _FIELDS | {'data.root': str(root)} | fields
    )
  train.train_and_evaluate(config, workdir)


def _on_eight_devices(root, workdir):
  _train(root, workdir, mesh=(8,))


def _with_sharded_state(root, workdir):
  _train(root, workdir, mesh=(8,), **{'train.shard_state': True})


def _in_processes(root, workdir, *, number, devices, mode=()):
  ended = _run(
    _ROOT / 'launch/multi_process.sh', number, *_arguments(root), *mode,
    f'--workdir={workdir}', LOG_DIR=str(workdir.with_suffix('.logs')),
    JAX_NUM_CPU_DEVICES=str(devices),
  )  # fmt: skip
  assert ended.returncode == 0, ended.stderr
  logs = sorted(workdir.with_suffix('.logs').iterdir())
  assert [f.name for f in logs] == [
    f'process_{i}.log' for i in range(1, number)
  ]


def _two_by_four(root, workdir):
  _in_processes(root, workdir, number=2, devices=4)


def _four_by_one(root, workdir):
  _in_processes(root, workdir, number=4, devices=1)


def _two_hosts(root, workdir):
  """Train in two network namespaces, joined by a bridge, as two hosts."""
  if os.geteuid() or not shutil.which('ip'):
    pytest.skip('network namespaces need root and iproute2')
  number, net = os.getpid(), '10.213.77'
  ip = lambda command: subprocess.run(['ip', *command.split()], check=True)
  names = [f'backtal{number}-{i}' for i in range(2)]
  bridge = f'bt{number}'
  with contextlib.ExitStack() as stack:
    try:
      ip(f'link add {bridge} type bridge')
    except subprocess.CalledProcessError:
      pytest.skip('this system allows no network of its own')
    stack.callback(ip, f'link delete {bridge}')
    ip(f'link set {bridge} up')
    for i, name in enumerate(names):
      ip(f'netns add {name}')
      stack.callback(ip, f'netns delete {name}')
      ip(f'link add {bridge}-{i} type veth peer name eth0 netns {name}')
      ip(f'link set {bridge}-{i} master {bridge} up')
      ip(f'-n {name} address add {net}.{i + 1}/24 dev eth0')
      for device in ('eth0', 'lo'):
        ip(f'-n {name} link set {device} up')
      # Gloo listens where the host's own name points to.
      hosts = pathlib.Path('/etc/netns', name, 'hosts')
      hosts.parent.mkdir(parents=True)
      stack.callback(shutil.rmtree, hosts.parent)
      hosts.write_text(
        f'127.0.0.1 localhost\n{net}.{i + 1} {socket.gethostname()}\n'
      )
    processes = [
      subprocess.Popen(
        [
          *('ip', 'netns', 'exec', name, _ROOT / 'launch/local.sh'),
          *_arguments(root),
          *(f'--workdir={workdir}', f'--coordinator_address={net}.1:2345'),
          *('--num_processes=2', f'--process_id={i}'),
        ],
        cwd=_ROOT,
        env=_ENV | {'JAX_NUM_CPU_DEVICES': '4'},
      )
      for i, name in enumerate(names)
    ]
    assert [p.wait(timeout=200) for p in processes] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
  'run',
  [
    _on_eight_devices,
    _with_sharded_state,
    _two_by_four,
    _two_hosts,
    _four_by_one,
  ],
  ids=lambda f: f.__name__[1:],
)
def test_however_many_devices_the_training_is_the_same(
  demo_root, tmp_path, one_device, run
):
  run(demo_root, tmp_path / 'w')
  ours, theirs = (
    [s['loss/total'] for s in _lines(w) if 'loss/total' in s]
    for w in (tmp_path / 'w', one_device)
  )
  assert len(ours) == 20
  assert ours == pytest.approx(theirs, rel=1e-5)
  ours, theirs = (
    jax.tree.leaves(checkpoints.restore_params(w, None)[0])
    for w in (tmp_path / 'w', one_device)
  )
  for a, b in zip(ours, theirs, strict=True):
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


@pytest.mark.slow
def test_two_processes_find_the_same_segments(demo_root, tmp_path, one_device):
  # Of the same parameters: what near-ties rank would depend on more.
  _in_processes(
    demo_root, tmp_path / 'w', number=2, devices=4,
    mode=('--mode=evaluate', f'--checkpoint={one_device}'),
  )  # fmt: skip
  read = lambda w, name: json.loads((w / name).read_text())
  ours, theirs = (
    read(w, 'predictions.json')['results'] for w in (tmp_path / 'w', one_device)
  )
  # Every video once, whoever predicted it.
  assert ours.keys() == theirs.keys() and len(ours) == 60
  assert sum(map(len, ours.values())) > 60
  for video in ours:
    for a, b in zip(ours[video], theirs[video], strict=True):
      assert a['label'] == b['label']
      assert a['segment'] == pytest.approx(b['segment'], abs=1e-4)
  ours, theirs = (read(w, 'metrics.json') for w in (tmp_path / 'w', one_device))
  assert theirs['average_mAP'] > 0
  assert ours['mAP'] == pytest.approx(theirs['mAP'], abs=1e-6)


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
  arguments = _arguments(
    demo_root,
    **{
      'train.checkpoint_every': 1,
      'train.num_epochs': KILLS // 2,
      'train.eval_every': KILLS // 2,
    },
  )
  script, moments = _ROOT / 'launch/multi_process.sh', random.Random(0)
  workdirs = [tmp_path / 'whole', tmp_path / 'killed']
  for _ in range(KILLS // 2):
    before = _steps(workdirs[1])
    with subprocess.Popen(
      [script, '2', *arguments, f'--workdir={workdirs[1]}'],
      cwd=_ROOT,
      env=_ENV | {'LOG_DIR': str(tmp_path)},
      stderr=subprocess.DEVNULL,
    ) as launched:
      while not _steps(workdirs[1]) - before:
        assert launched.poll() is None
        time.sleep(0.02)
      time.sleep(moments.uniform(0, 0.3))
      victim = f'{workdirs[1]}.*process_id={moments.randrange(2)}'
      subprocess.run(['pkill', '-KILL', '-f', victim])
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


def _steps(workdir):
  return {p.name for p in (workdir / 'checkpoints').glob('[0-9]*')}
