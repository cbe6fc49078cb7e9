"""report.html: what a trained network does on a split, what it looks like, and what made it.

One file with nothing outside of it, for the browser and for paper. What is general stands here;
what belongs to a task comes from its report (tasks/task.py:Report.sections).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import files
from errors import UserError
from inspection import opened
from inspection.examples import Examples
from inspection.report import answers, document, network, origin
from tasks.answer import Report
from tasks.section import Gallery, Picture, Section
from training import curves, records
from training.evaluation import Evaluation
from training.experiment import Split
from training.trained import Trained

# {split: name of its file}
FILES = {'test': 'report.html', 'validation': 'report_validation.html'}


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What is reported.

    Attributes:
      folder: the workdir.
      trained: the network of one of its checkpoints.
      split: the split, open.
      evaluation: of the network on that split.
      report: the task's report of it.
      title: says which network, data set, split and step it is.
      sheet: the best, median and worst answers (inspection/extremes.py), if there is one.
    """

    folder: Path
    trained: Trained
    split: Split
    evaluation: Evaluation
    report: Report
    title: str
    sheet: bytes | None = None


def write(path: Path, evaluated: Evaluated) -> Path:
    """Writes the report into a file; returns its path.

    Raises:
      UserError: the file cannot be written, or one of the run's files cannot be used.
    """
    content = page(evaluated).encode()
    try:
        files.replace(path, content)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f'Cannot write {path}: {reason}. Free some space, or give another folder by '
            '--output=DIR.'
        ) from error
    return path


def page(evaluated: Evaluated) -> str:
    """Returns the report as HTML.

    A part that there is nothing to show for says why.
    """
    inside = opened.of(evaluated.trained)
    # All examples, so that none is missing among the worst.
    looked = Examples(evaluated.trained.experiment, evaluated.split, evaluated.split.size)
    sections = [
        *evaluated.report.sections(),
        *_extremes(evaluated),
        _or_reason(answers.TITLE, lambda: answers.section(inside, looked)),
        _or_reason(_CURVES, lambda: _curves(evaluated)),
        _or_reason(network.FILTERS, lambda: network.filters_section(inside)),
        _or_reason(network.TITLE, lambda: network.section(inside)),
        origin.section(evaluated.folder, evaluated.trained, evaluated.split.split),
    ]
    return document.page(evaluated.title, _lead(evaluated), _figures(evaluated), sections)


def _lead(evaluated: Evaluated) -> str:
    bad = evaluated.evaluation.bad_records
    split, smoke = evaluated.split.split, evaluated.trained.experiment.config.smoke
    of = f'a sample of the {split} split, as smoke runs have it,' if smoke else f'the {split} split'
    sentence = f'Every example of {of} was counted once.'
    if bad:
        sentence += f' {bad:,} record(s) did not decode and were not counted.'
    return sentence


def _figures(evaluated: Evaluated) -> dict[str, str]:
    """Returns the metrics and counts, as texts by name."""
    task, evaluation = evaluated.trained.spec.task, evaluated.evaluation
    values = task.summarize(evaluation.sums, evaluation.rows)
    shown = {
        f'{metric.name.replace("_", " ")}{f" ({metric.unit})" if metric.unit else ""}': (
            metric.shown(values[metric.name])
        )
        for metric in task.metrics
    }
    examples = {'examples': f'{int(evaluation.sums["count"]):,}'}
    return {**shown, **examples, 'records that did not decode': f'{evaluation.bad_records:,}'}


def _extremes(evaluated: Evaluated) -> list[Section]:
    """Returns the section of the best, median and worst answers; [] if the task has none."""
    if not evaluated.sheet:
        return []
    what = 'Pictures beside their truth and the answer of the network: the best, median and worst.'
    return [Section('The best, median and worst pictures', [Picture(evaluated.sheet, what)])]


def _or_reason(title: str, make: Callable[[], Section]) -> Section:
    """Returns a section, or one of the same title that says why there is nothing to show."""
    try:
        return make()
    except UserError as error:
        return Section(title, [str(error)])
    except NotImplementedError:
        reason = 'The task has not what this needs: tasks/task.py lists it below "looked into".'
        return Section(title, [reason])


_CURVES = 'Training'


def _curves(evaluated: Evaluated) -> Section:
    """Returns the metrics against the step.

    Raises:
      UserError: a record is damaged.
    """
    metrics = evaluated.trained.spec.task.metrics
    per_epoch = evaluated.trained.experiment.steps_per_epoch
    drawn = curves.pictures(evaluated.folder, metrics, per_epoch)
    if not drawn:
        return Section(
            _CURVES, [f'The workdir has no {records.METRICS_FILE}, so there are no curves to draw.']
        )
    pictures = [
        Picture(
            png,
            f'Curves of the {metric.name.replace("_", " ")} of the training and the validation '
            'split against the step.',
            plot=True,
        )
        for metric, png in zip(metrics, drawn, strict=True)
    ]
    words = (
        'Points of the training split are means over the steps since the point before; while a '
        'network trains, its images are augmented and it uses dropout if the configuration says '
        f'so. The checkpoint that was evaluated is that of step {evaluated.trained.step:,}.'
    )
    return Section(_CURVES, [words, Gallery(pictures)])
