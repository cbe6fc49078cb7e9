#!/usr/bin/env bash
# A SLURM cluster of two nodes on this machine, for as long as tests/cluster/test_slurm.py takes.
#
#   tests/cluster/run_slurm.sh PYTHON [options of pytest]
#
# Needs root and Debian's packages: apt-get install slurmctld slurmd slurm-client munge
set -euo pipefail
cd "$(dirname "$0")/../.."

for program in slurmctld slurmd srun munged; do
  if ! command -v "$program" > /dev/null && ! command -v "/usr/sbin/$program" > /dev/null; then
    echo "error: $program is missing: apt-get install slurmctld slurmd slurm-client munge" >&2
    exit 2
  fi
done
if [ "$(id -u)" != 0 ]; then
  echo "error: the cluster's daemons need root" >&2
  exit 2
fi
PATH=$PATH:/usr/sbin
python=$1
shift

dir=$(mktemp -d /tmp/slurm.XXXXXX)
chmod 755 "$dir" # munged looks at it
export SLURM_CONF=$dir/slurm.conf
pids=()

stop() {
  scancel --quiet --user=root 2> /dev/null || true
  kill "${pids[@]}" 2> /dev/null || true
  sleep 1
  kill -9 "${pids[@]}" 2> /dev/null || true
  if [ "${KEEP:-}" ]; then echo "kept: $dir"; else rm -rf "$dir"; fi
}
trap stop EXIT

free_port() {
  "$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

mkdir "$dir/state"
# A job that is queued again waits for a credential's life, which is two minutes unless said.
cat > "$SLURM_CONF" << CONF
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$(free_port) CPUs=8 RealMemory=8000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$(free_port) CPUs=8 RealMemory=8000
PartitionName=main Nodes=ALL Default=YES
CONF
head -c 1024 /dev/urandom > "$dir/munge.key"
chmod 400 "$dir/munge.key"

munged --force --foreground --key-file="$dir/munge.key" --socket="$dir/munge.sock" \
  --pid-file="$dir/munge.pid" --log-file="$dir/munge.log" --seed-file="$dir/munge.seed" &
pids+=($!)
until [ -S "$dir/munge.sock" ]; do sleep 0.1; done
slurmctld -D -f "$SLURM_CONF" > /dev/null 2>&1 &
pids+=($!)
for node in n1 n2; do
  mkdir "$dir/spool.$node"
  slurmd -D -f "$SLURM_CONF" -N "$node" > /dev/null 2>&1 &
  pids+=($!)
done

for _ in $(seq 300); do
  if [ "$(sinfo --noheader --format=%T 2> /dev/null)" = idle ]; then break; fi
  sleep 0.2
done
if [ "$(sinfo --noheader --format='%D %T')" != '2 idle' ]; then
  echo "error: the nodes did not come up: $(tail -n 3 "$dir"/*.log)" >&2
  exit 1
fi
"$python" -m pytest -m slurm tests/cluster "$@"
