"""A real Slurm of two nodes, where it is installed, runs the launch scripts."""

import os
import pathlib
import shutil
import subprocess
import time

import launch_test
import pytest
from launch_test import clicked_root, one_device  # noqa: F401

_ROOT = pathlib.Path(__file__).parents[1]
_NEEDED = 'slurmctld', 'slurmd', 'munged', 'sbatch'
_MISSING = [name for name in _NEEDED if not shutil.which(name)]
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    bool(_MISSING),
    reason=f"needs Debian's slurm-wlm and munge: no {', '.join(_MISSING)}",
  ),
  pytest.mark.skipif(os.geteuid() != 0, reason='slurmd needs root'),
]
_WITHOUT_GPUS = '--gpus-per-node=0', '--cpus-per-task=1'


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
  """Start Slurm; return a function that runs one of its commands."""
  folder = tmp_path_factory.mktemp('slurm')
  port = str(20000 + os.getpid() % 10000)
  with subprocess.Popen(
    [_ROOT / 'tests/slurm_up.sh', folder, 'bash', '-c', 'echo up; cat'],
    env=os.environ | {'SLURM_PORT': port},
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  ) as process:  # fmt: skip
    assert process.stdout.readline() == 'up\n'
    env = launch_test.ENV | {'SLURM_CONF': str(folder / 'slurm.conf')}

    def run(*command, **more):
      done = subprocess.run(
        list(map(str, command)), cwd=_ROOT, env=env | more,
        capture_output=True, text=True, timeout=120,
      )  # fmt: skip
      assert done.returncode == 0, done.stderr
      return done.stdout

    yield run
    process.stdin.close()


def _submit(slurm, *arguments, **env):
  return slurm('sbatch', '--parsable', *arguments, **env).strip()


def _state(slurm, job):
  """Return what Slurm knows of a job."""
  words = slurm('scontrol', 'show', 'job', '-o', job).split()
  return dict(word.partition('=')[::2] for word in words)


def _wait(slurm, job, state):
  """Wait until a job is in a state, and return all that is known then."""
  for _ in range(3000):  # ten minutes: a busy machine
    found = _state(slurm, job)
    if found['JobState'] == state:
      return found
    time.sleep(0.2)
  raise AssertionError(f'{job}: {found}, expected {state}')


_TELL = """
from backtal_jax import errors
from backtal_jax.run import hosts
with errors.one_line():
  hosts.initialize()
  import os, jax
  from jax._src.xla_bridge import CUDA_VISIBLE_DEVICES as used
  hosts.check_same({'step': os.environ['SLURM_STEP_ID']})
  print(os.environ['CUDA_VISIBLE_DEVICES'], used.value, jax.process_count())
"""


def test_two_steps_at_once_keep_apart_and_take_all_gpus(slurm, tmp_path):
  # Of one task a node, and of two.
  job = tmp_path / 'job.sh'
  job.write_text(
    '#!/bin/bash\nfor tasks in 2 4; do\n'
    'srun --overlap -n$tasks -N2 "$PYTHON" -c "$TELL" &\ndone\nwait\n'
  )
  job = _submit(
    slurm, '--nodes=2', '--ntasks-per-node=2', '--gpus-per-node=8',
    f'--output={tmp_path}/log', job, TELL=_TELL,
  )  # fmt: skip
  _wait(slurm, job, 'COMPLETED')
  lines = (tmp_path / 'log').read_text().splitlines()
  lines = sorted(line for line in lines if '[Gloo]' not in line)
  seen = '0,1,2,3,4,5,6,7'
  assert lines == [
    *[f'{seen} 0,1,2,3 4'] * 2, *[f'{seen} 4,5,6,7 4'] * 2,
    *[f'{seen} all 2'] * 2,
  ]  # fmt: skip


# In the place of Python: task 2 is asked to end in its first run, task 1 runs
# until it is there again.
_STUB = """#!/bin/bash
echo "$SLURM_ARRAY_TASK_ID $*"
if [[ $SLURM_ARRAY_TASK_ID == 1 ]]; then
  for _ in {1..3000}; do [[ -e $AGAIN ]] && exit; sleep 0.2; done
fi
((${SLURM_RESTART_COUNT:-0})) || { kill -TERM $$; sleep 5; }
touch "$AGAIN"
"""


def test_one_task_of_an_array_is_queued_again_alone(slurm, tmp_path):
  (tmp_path / 'stub').write_text(_STUB)
  (tmp_path / 'stub').chmod(0o755)
  job = _submit(
    slurm, '--array=1-2', *_WITHOUT_GPUS, f'--output={tmp_path}/%a',
    'launch/features.sbatch', '--videos', 'a b', PYTHON=f'{tmp_path}/stub',
    AGAIN=f'{tmp_path}/again',
  )  # fmt: skip
  for task in '1', '2':
    found = _wait(slurm, f'{job}_{task}', 'COMPLETED')
    assert found['Restarts'] == str(int(task == '2'))
  assert (tmp_path / '1').read_text() == (
    '1 -m backtal_jax.prepare video --videos a b\n'
  )


@pytest.mark.parametrize('status', [75, 143, 3])
def test_where_no_requeue_is_allowed_the_status_stays(slurm, tmp_path, status):
  (tmp_path / 'stub').write_text(f'#!/bin/bash\nexit {status}\n')
  (tmp_path / 'stub').chmod(0o755)
  job = _submit(
    slurm, '--no-requeue', '--nodes=2', *_WITHOUT_GPUS,
    f'--output={tmp_path}/log', 'launch/slurm.sbatch',
    PYTHON=f'{tmp_path}/stub',
  )  # fmt: skip
  assert _wait(slurm, job, 'FAILED')['ExitCode'] == f'{status}:0'


# That a run of several processes goes on to the same bits: launch_test.py.
def test_two_tasks_are_preempted_and_train_as_one_device_does(
  slurm,
  clicked_root,  # noqa: F811
  tmp_path,
  one_device,  # noqa: F811
):
  given = launch_test.arguments(clicked_root, **{'train.checkpoint_every': 5})
  job = _submit(
    slurm, '--partition=low', '--nodes=2', *_WITHOUT_GPUS,
    f'--output={tmp_path}/log', 'launch/slurm.sbatch', *given,
    f'--workdir={tmp_path}/w',
  )  # fmt: skip
  while not launch_test.steps(tmp_path / 'w'):
    assert _state(slurm, job)['JobState'] in ('PENDING', 'RUNNING')
    time.sleep(0.1)
  # Not to be done before Slurm takes the nodes, which lets it go on to its end.
  slurm('scancel', '--signal=STOP', job)
  other = _submit(
    slurm, '--partition=high', '--nodes=2', '--exclusive', '--output=/dev/null',
    '--wrap=true',
  )  # fmt: skip
  _wait(slurm, other, 'COMPLETED')
  assert _wait(slurm, job, 'COMPLETED')['Restarts'] == '1'
  said = (tmp_path / 'log').read_text()
  assert 'asked to end after step' in said
  assert 'Terminated' not in said  # both ended with 75
  launch_test.assert_same_training(tmp_path / 'w', one_device)
