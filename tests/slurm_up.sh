#!/usr/bin/env bash
# Run a command with a Slurm of two nodes that are both this machine.
#
#   tests/slurm_up.sh FOLDER COMMAND [ARGUMENTS]
#
# Needs root and apt-get install slurm-wlm munge. The nodes are 127.0.0.1 and
# 127.0.0.2, whose names every program finds; each pretends to have 8 CPUs and,
# unless GPUS=0, 8 GPUs. The daemons end with the command; their logs lie in
# FOLDER. The partition `high` takes the nodes from `low`, whose jobs are queued
# again. SLURM_PORT is the first of three.
set -euo pipefail
folder=$(realpath -m "$1") host=$(hostname -s) port=${SLURM_PORT:-16817}
gres='' pids=()
shift
[[ ${GPUS:-8} == 0 ]] || gres='Gres=gpu:8'
mkdir -p "$folder"/{state,spool}
chmod 755 "$folder"
head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
export SLURM_CONF=$folder/slurm.conf
cat > "$SLURM_CONF" << CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again may start when its credential has expired.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=5,sched_interval=5,sched_min_interval=0
MinJobAge=7200
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
${gres:+GresTypes=gpu}
NodeName=127.0.0.1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=8 $gres
NodeName=127.0.0.2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=8 $gres
PartitionName=main Nodes=ALL Default=YES PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
CONF
# Any eight devices will do for the pretended GPUs: nothing opens them.
[[ -z $gres ]] || echo 'Name=gpu File=/dev/tty[0-7]' > "$folder/gres.conf"
echo 'CgroupPlugin=autodetect' > "$folder/cgroup.conf"

start() { # NAME COMMAND: in the background, its words in FOLDER/NAME.out
  "${@:2}" > "$folder/$1.out" 2>&1 &
  pids+=($!)
}
# shellcheck disable=SC2317 # the trap reaches it
stop() {
  scancel --user=root 2> /dev/null || true
  for _ in {1..60}; do
    [[ $(squeue --noheader 2> /dev/null) ]] || break
    sleep 0.5
  done
  kill "${pids[@]}" 2> /dev/null || true
  wait || true
}
trap stop EXIT
start munged munged --foreground --force --num-threads=2 \
  --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --seed-file="$folder/munge.seed" \
  --log-file="$folder/munged.log"
for _ in {1..50}; do [[ -S $folder/munge.socket ]] || sleep 0.1; done
start slurmctld slurmctld -D -c
for node in 127.0.0.1 127.0.0.2; do start "slurmd.$node" slurmd -D -N "$node"; done
for _ in {1..150}; do
  if [[ $(sinfo --noheader -p main -t idle -o %D 2> /dev/null) == 2 ]]; then
    status=0
    "$@" || status=$?
    exit $status
  fi
  sleep 0.2
done
tail -n 5 "$folder"/*.out "$folder"/*.log >&2
exit 1
