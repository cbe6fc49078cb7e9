#!/usr/bin/env bash
# Runs train.py as a step of a SLURM job, and has SLURM queue the job again where that helps.
# Called by the .sbatch files; its arguments are those of train.py.
#
# train.py ends with 75 when it was told to stop and has saved, with 69 when another process of the
# run hangs or is gone, and with more than 128 when a signal ended it. All three go on from the last
# checkpoint when the job runs again; a process may be lost MAX_FAILURES times, which are counted in
# the job's comment, beside what else is there.
# Anything else (2: a mistake in the command) would only happen again.
set -u
PYTHON=${PYTHON:-.venv/bin/python}
MAX_FAILURES=${MAX_FAILURES:-5}
# Seconds for the others once one has ended: they may be waiting for process 0 to save. Where one
# hangs or dies, the others end by themselves (config.distributed_timeout); this is for one that
# cannot even end itself, because it is stopped or stuck in the system. More than
# config.distributed_timeout: one that never starts is named only when that is over.
WAIT=${WAIT:-700}

srun --kill-on-bad-exit=0 --wait="$WAIT" --label "$PYTHON" train.py "$@"
code=$?

# The controller may be busy.
patiently() {
  for _ in 1 2 3 4 5; do
    if "$@"; then return 0; fi
    sleep 10
  done
  return 1
}

requeue() {
  echo "step.sh: $1: queued again"
  patiently scontrol requeue "$SLURM_JOB_ID" || echo "step.sh: the job could not be queued again" >&2
}

if [ "$code" = 75 ]; then
  requeue 'saved and stopped (75)'
elif [ "$code" = 69 ] || [ "$code" -gt 128 ]; then
  # Where they cannot be counted, all earlier starts are: better too few than for ever.
  failures=$((${SLURM_RESTART_COUNT:-0} + 1))
  if comment=$(patiently squeue --noheader --jobs="$SLURM_JOB_ID" --format=%k); then
    found=$(sed -n 's/.*failures=\([0-9]*\).*/\1/p' <<< "$comment")
    others=$(sed 's/ *failures=[0-9]*//; s/^(null)$//' <<< "$comment")
    count=$((${found:-0} + 1))
    if [ "$count" -gt "$MAX_FAILURES" ] || patiently scontrol update JobId="$SLURM_JOB_ID" \
      Comment="${others:+$others }failures=$count"; then
      failures=$count
    fi
  fi
  if [ "$failures" -le "$MAX_FAILURES" ]; then
    requeue "a process was lost ($code), failure $failures"
  fi
fi
exit "$code"
