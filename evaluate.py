"""Evaluates a trained network: python evaluate.py --workdir=runs/digits."""

import argparse
from pathlib import Path

import command
import files

EPILOG = """\
examples:
  python evaluate.py --workdir=runs/digits
  python evaluate.py --workdir=runs/digits --split=validation --checkpoint=best
  python evaluate.py --workdir=runs/digits --report

Prints the report of the task (for classification: accuracy, loss, precision and recall of each
class, the confusion matrix and the calibration), and writes evaluation_SPLIT.json and pictures such
as confusion_SPLIT.png into the workdir; for segmentation and detection also pictures_SPLIT.png, the
best, median and worst pictures with truth and answer. Every example counts once. Fields of the run
can be set by --config.NAME=VALUE, such as --config.data.dir=DIR.

--report writes report.html as well (report_validation.html for that split): the same with curves,
the surest mistakes, filters, layers and what made the run, in one file that needs no other.

exit codes: 0 done, 2 the command or its input is wrong
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description='Evaluates the network that train.py has trained in a workdir.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--workdir', metavar='DIR', required=True, help='folder of the run')
    add('--split', choices=('validation', 'test'), default='test', help='split to evaluate [test]')
    add(
        '--checkpoint',
        metavar='WHICH',
        default='last',
        help='last, best (by validation), or a step [last]',
    )
    add('--output', metavar='DIR', help='folder for the files [the workdir]')
    add('--report', action='store_true', help='write a page of all of it, report.html')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    import input_pipeline
    from inspection import extremes
    from training import facts, trained, workdir
    from training.evaluation import Evaluator
    from training.runner import Runner

    network = trained.load(arguments.workdir, arguments.checkpoint, overrides)
    config, step = network.experiment.config, network.step
    output = Path(arguments.output or arguments.workdir)
    # Before the evaluation, which may take long.
    option = '--output' if arguments.output else '--workdir'
    workdir.check_writable(output, option, 'Give another folder for the files by --output=DIR.')
    split = input_pipeline.open_split(config, arguments.split)
    facts.check_split(network.experiment, split)
    runner = Runner(network.spec, config.runner, network.devices, detailed=True)
    evaluation = Evaluator(network.experiment, runner, split)(runner.replicate(network.variables))
    report = network.spec.task.report(evaluation.sums, evaluation.rows, split.class_names)
    title = f'{config.model.name} on {config.data.name}, {arguments.split} split, step {step}'
    bad = evaluation.bad_records
    result = {'split': arguments.split, 'step': step, 'bad_records': bad, **report.to_json()}
    path = output / f'evaluation_{arguments.split}.json'
    files.write_json(path, result)
    paths = [path, *report.pictures(output, arguments.split, title)]
    sheet = extremes.sheet(network, split, evaluation, title)
    if sheet:
        paths.append(output / f'pictures_{arguments.split}.png')
        files.write(paths[-1], sheet)
    left_out = f'\n{bad} record(s) did not decode and were not counted' if bad else ''
    print(f'{title}\n\n{report.text()}{left_out}\n', flush=True)
    if arguments.report:
        from inspection import report as html

        path = output / html.FILES[arguments.split]
        print(f'Making {path} ...', flush=True)
        folder = Path(arguments.workdir)
        evaluated = html.Evaluated(folder, network, split, evaluation, report, title, sheet)
        paths.append(html.write(path, evaluated))
    print('Written: ' + ', '.join(map(str, paths)))
    return 0


if __name__ == '__main__':
    command.run(main)
