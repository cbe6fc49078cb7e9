"""Evaluates a trained network: python evaluate.py --workdir=runs/digits."""

import argparse
from pathlib import Path

import command
import files
from errors import UserError

EPILOG = """\
examples:
  python evaluate.py --workdir=runs/digits
  python evaluate.py --workdir=runs/digits --split=validation --checkpoint=best

Prints accuracy, loss, precision and recall of each class and the confusion matrix, and writes
evaluation_SPLIT.json and confusion_SPLIT.png into the workdir. Every example counts once.
Fields of the run can be given as --config.NAME=VALUE, such as --config.data.dir=DIR.
"""


def parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    parser = argparse.ArgumentParser(
        description='Evaluates the network that train.py has trained in a workdir.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--workdir', metavar='DIR', required=True, help='folder of the run')
    add('--split', choices=('validation', 'test'), default='test', help='what to read [test]')
    add(
        '--checkpoint',
        metavar='WHICH',
        default='last',
        help='last, best (by validation), or a step [last]',
    )
    add('--output', metavar='DIR', help='where to write the files [the workdir]')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    import input_pipeline
    from training import trained, workdir
    from training.evaluation import Evaluator
    from training.runner import Runner

    found = trained.load(arguments.workdir, arguments.checkpoint, overrides)
    config = found.experiment.config
    output = Path(arguments.output or arguments.workdir)
    workdir.check_writable(output, '--output' if arguments.output else '--workdir')
    split = input_pipeline.open_split(config, arguments.split)
    if tuple(split.class_names) != found.experiment.class_names:
        raise UserError(f'The {arguments.split} split has other classes than the training split.')
    runner = Runner(found.spec, config.runner, found.devices, detailed=True)
    evaluation = Evaluator(found.experiment, runner, split)(runner.replicate(found.variables))
    report = found.spec.task.report(evaluation.sums, evaluation.rows, split.class_names)
    title = f'{config.model.name} on {config.data.name}, {arguments.split} split, step {found.step}'
    bad = evaluation.bad_records
    result = {'split': arguments.split, 'step': found.step, 'bad_records': bad, **report.to_json()}
    numbers = output / f'evaluation_{arguments.split}.json'
    files.write_json(numbers, result)
    pictures = report.pictures(output, arguments.split, title)
    left_out = f'\n{bad} record(s) did not decode and were not counted' if bad else ''
    print(f'{title}\n\n{report.text()}{left_out}\n')
    print('Written: ' + ', '.join(map(str, [numbers, *pictures])))
    return 0


if __name__ == '__main__':
    command.run(main)
