"""Checks before a run whether it can be done, and how much memory, disk and time it needs.

    python -m tools.preflight --config=configs/mnist_lenet.py
    python -m tools.preflight --config=configs/imagenet_resnet50.py --hosts=4 --devices=8
    python -m tools.preflight --config=configs/digits_lenet.py --workdir=/scratch/digits --json

Everything is done as in train.py: the data set is opened and some of its records are decoded, and
the step is compiled and does some tens of updates. Nothing is written. Memory and time are those of
a first run, which compiles; a later one finds its programs in the cache. For a run of several
processes, start it once for each of them, as train.py.

exit codes:
  0   go
  2   no-go, for the reasons that are printed
  69  another process did not start, hangs or is gone
"""

import argparse
import time

import command
from distributed import watchdog


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.preflight',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--config', metavar='FILE', required=True, help='a file of configs/, or a config.json')
    add('--workdir', metavar='DIR', default='.', help='folder of the planned run, for its disk [.]')
    add(
        '--devices',
        metavar='N',
        type=command.positive,
        help='devices per host in the planned run [config.devices, or those of this machine]; if '
        'this machine has fewer, their part of the run is measured',
    )
    add('--hosts', metavar='N', type=command.positive, help='hosts in the planned run [these]')
    add('--json', action='store_true', help='print everything as JSON, in bytes and seconds')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    begin = time.monotonic()
    arguments, overrides = command.parse(parser(), argv)
    from tools.preflight.verdict import Asked, run

    asked = Asked.now(arguments, overrides, begin)
    with watchdog.reporting_errors():
        verdict = run(asked)
    if verdict.first:
        print(verdict.as_json() if arguments.json else verdict.ending())
    if verdict.first and verdict.findings.problems:
        raise verdict.findings.failure('no-go. ' + ' '.join(verdict.findings.problems))
    return verdict.findings.exit_code
