#!/usr/bin/env bash
# Runs train.py as a step of a SLURM job, and has SLURM queue the job again where that helps.
# Called by the .sbatch files; its arguments are those of train.py.
#
# train.py ends with 75 when it was told to stop and has saved, with 69 when another process of the
# run hangs or is gone, and with more than 128 when a signal ended it. All three go on from the last
# checkpoint when the job runs again; a process may be lost MAX_FAILURES times, which are counted in the
# job's comment.
# Anything else (2: a mistake in the command) would only happen again.
set -u
PYTHON=${PYTHON:-.venv/bin/python}
MAX_FAILURES=${MAX_FAILURES:-5}

# Tasks are not to be killed when the first of them ends: it may be waiting for process 0 to save.
# Where one dies, the others end by themselves (config.distributed_timeout).
srun --kill-on-bad-exit=0 --label "$PYTHON" train.py "$@"
code=$?

comment=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%k)
failures=0
case $comment in failures=*) failures=${comment#failures=} ;; esac
if [ "$code" = 75 ]; then
  echo "step.sh: saved and stopped (75): queued again"
  scontrol requeue "$SLURM_JOB_ID"
elif { [ "$code" = 69 ] || [ "$code" -gt 128 ]; } && [ "$failures" -lt "$MAX_FAILURES" ]; then
  failures=$((failures + 1))
  echo "step.sh: a process was lost ($code), failure $failures: queued again"
  scontrol update JobId="$SLURM_JOB_ID" Comment="failures=$failures"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
