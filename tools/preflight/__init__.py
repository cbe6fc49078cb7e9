"""Says before hours are booked whether a run can go, what it takes, how long. Nothing is written.

    python -m tools.preflight --config=configs/mnist_lenet.py
    python -m tools.preflight --config=configs/imagenet_resnet50.py --hosts=4 --devices=8
    python -m tools.preflight --config=configs/digits_lenet.py --workdir=/scratch/digits --json

Everything is done as train.py does it: the data are opened and records of them decoded, the step is
compiled and makes some tens of updates. Memory and time are those of a first run, which compiles; a
later one finds its programs in the cache. For a run of several processes start it as train.py is
started, once for each.

exit codes: 0 go, 2 no-go: sentences say why, 69 another process did not come, hangs, or is gone
"""

import argparse
import time

import command
from distributed import watchdog


def parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.preflight',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--config', metavar='FILE', required=True, help='a file of configs/, or a config.json')
    add('--workdir', metavar='DIR', default='.', help='of the run to come: its disk counts [.]')
    add(
        '--devices',
        metavar='N',
        type=command.positive,
        help='devices of each host in the run to come [config.devices, or those that are here]; '
        'where there are fewer, what is measured is the part of the run that falls to them',
    )
    add('--hosts', metavar='N', type=command.positive, help='hosts of the run to come [these]')
    add('--json', action='store_true', help='everything as JSON, in bytes and seconds')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    begin = time.monotonic()
    arguments, overrides = command.parse(parser(), argv)
    from tools.preflight import checks

    asked = checks.Asked.now(arguments, overrides, begin)
    with watchdog.reporting_errors():
        verdict = checks.run(asked)
    if verdict.first:
        print(verdict.as_json() if arguments.json else verdict.ending())
    if verdict.first and verdict.findings.problems:
        raise verdict.findings.failure('no-go. ' + ' '.join(verdict.findings.problems))
    return verdict.findings.exit_code
