#!/usr/bin/env bash
# Runs train.py as a step of a SLURM job, and requeues the job if that can help.
# Called by the .sbatch files; its arguments are those of train.py.
#
# train.py ends with 75 when it was told to stop and has saved, with 69 when another process of the
# run hangs or is gone, and with more than 128 when a signal ended it. In all three cases the run
# resumes from the last checkpoint when the job runs again. The failures (all but 75) are limited to
# MAX_FAILURES; they are counted in the job's comment, whose other contents are kept.
# Any other exit code (2: a mistake in the command) would only occur again.
set -u
PYTHON=${PYTHON:-.venv/bin/python}
MAX_FAILURES=${MAX_FAILURES:-5}
# Seconds after which srun kills the remaining processes once one has ended. Until then they may be
# waiting for process 0 to save. When a process hangs or dies, the others end by themselves
# (config.distributed_timeout), so this is for a process that cannot even end itself, because it is
# stopped or stuck in the kernel. It must be longer than config.distributed_timeout, after which a
# process that has not started is named.
WAIT=${WAIT:-700}

srun --kill-on-bad-exit=0 --wait="$WAIT" --label "$PYTHON" train.py "$@"
code=$?

# Runs a command of SLURM up to five times, because the controller may be busy.
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
  # If the comment cannot be read, every earlier start counts as a failure: the job may then be
  # requeued too seldom, but not forever.
  failures=$((${SLURM_RESTART_COUNT:-0} + 1))
  if comment=$(patiently squeue --noheader --jobs="$SLURM_JOB_ID" --format=%k); then
    earlier=$(sed -n 's/.*failures=\([0-9]*\).*/\1/p' <<< "$comment")
    others=$(sed 's/ *failures=[0-9]*//; s/^(null)$//' <<< "$comment")
    count=$((${earlier:-0} + 1))
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
