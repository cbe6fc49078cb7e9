"""Section `evaluation`: evaluate.py's pass over a split beside PyTorch's, eager and compiled.

Ours is the whole pass: batches planned, gathered from uint8, normalised, loss, right answers and
confusion matrix summed up. PyTorch's is spared the first three and counts the right answers alone,
in inference_mode, which is how its users write it.
"""

import dataclasses

from benchmarks import step
from benchmarks.tables import Table, Work

# Small networks are evaluated as evaluate.py does, by eval_batch_size=1000. The large ones fill the
# cores with far fewer, and a pass over that many would take minutes.
SMALL_BATCH = 1000
BATCHES = {'lenet': 40, 'deep_cnn': 10, 'resnet18': 2, 'vgg11_bn': 2, 'resnet50': 2}


def cases() -> list[step.Case]:
    """Returns the cases of `step` with batches for evaluation; a turn is a pass over `steps`."""
    return [
        dataclasses.replace(
            case,
            batch_size=SMALL_BATCH if case.model in step.SMALL_NETWORKS else case.batch_size,
            steps=BATCHES[case.model],
        )
        for case in step.CASES
    ]


def run(work: Work) -> Table:
    """Measures all cases."""
    rows, figures = [], {}
    for case in cases()[:1] if work.quick else cases():
        scores = step.contest_of(case, 'evaluate', work)
        figures[case.model] = [dataclasses.asdict(score) for score in scores]
        for score in scores:
            rows.append(
                [
                    f'{case.model} {case.size} px, batch {case.batch_size}',
                    score.name,
                    f'{score.rate:,.0f}',
                    f'{score.slowest:,.0f} to {score.fastest:,.0f}',
                    f'{score.ratio:.2f}',
                ]
            )
    head = ('network', 'who', 'images/s', 'range', 'ours / it')
    caption = (
        f'Evaluation: float32, {step.THREADS} threads each. {step.turns_of(work, "passes")}. Ours '
        'gathers and normalises uint8, and sums up loss, right answers and confusion matrix; '
        'PyTorch, in `inference_mode`, counts the right answers in a batch that is normalised '
        'already.'
    )
    return Table(caption, head, rows, figures)
