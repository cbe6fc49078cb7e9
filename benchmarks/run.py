"""Speed beside what a user would pick instead, measured side by side.

    make bench                                 everything, with PyTorch in an environment of its own
    python -m benchmarks.run --only=step       one section
    python -m benchmarks.run --markdown        as README.md shows it

Contestants take turns within one run, A B A B ..., each in a process of its own; figures are medians
of the turns: quote their ratios, for the rates are those of this machine at this hour.
"""

from benchmarks import step

SECTIONS = {'step': step.run}
