"""Speed beside what a user would pick instead, measured side by side.

    make bench                                 everything, with PyTorch in an environment of its own
    python -m benchmarks.run --only=step       one section; --list says which there are
    python -m benchmarks.run --markdown        as README.md shows it

Contestants take turns within one run, A B A B ..., each in a process of its own; figures are
medians of the turns: quote their ratios, for the rates are those of this machine at this hour.
Tables go to standard output as soon as they are measured, all else to standard error.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich import console as rich_console
from rich import markup

import command
import files
from benchmarks import machine
from benchmarks.contest import ROOT
from benchmarks.output import reserved
from benchmarks.tables import Table, Work
from errors import UserError, did_you_mean
from tools import readme as readme_file

TORCH_PYTHON = ROOT / '.venv-torch' / 'bin' / 'python'  # `make bench` makes it
MARKER = 'speed'
ROUNDS = 5
WIDTH = 120  # of tables in a file, where there is no terminal to ask


@dataclasses.dataclass(frozen=True)
class Section:
    """One table of the benchmark.

    Attributes:
      module: of benchmarks/, imported when it is needed; its run(Work) gives the table.
      what: is measured, for --list.
      beside_torch: whether PyTorch has rows in it.
    """

    module: str
    what: str
    beside_torch: bool = False

    def run(self, work: Work) -> Table:
        """Measures it."""
        return importlib.import_module(f'benchmarks.{self.module}').run(work)


SECTIONS = {
    'step': Section('step', 'one training step on the CPU', beside_torch=True),
    'trace': Section('step_trace', "where that step's time goes, on one core and on two"),
    'evaluation': Section('evaluation', 'a pass of evaluation on the CPU', beside_torch=True),
    'job': Section('job', 'a whole training on MNIST, from the start of the process', True),
    'start': Section('start', 'from the start of the process to the first step', True),
    'checkpoint': Section('checkpoint', 'how long a save holds the training up'),
    'memory': Section('memory', 'peak memory of a run against what tools.preflight estimates'),
    'growth': Section('growth', 'cost per image and memory as data sets and runs grow'),
    'devices': Section('virtual_devices', 'eight virtual devices on one CPU against one'),
    'sweep': Section('sweep_engines', 'trials in one program against a process for each'),
    'trials': Section('trials', "bookkeeping of a sweep's trials"),
}


@dataclasses.dataclass
class Report:
    """Where tables go, each as soon as it is there: a later failure loses none.

    Args:
      where: it was measured.
      markdown: print Markdown.
      readme: to write them into, or None.
      output: JSON file to write all figures into, or None; it is this run's own.
      options: of the command, for the JSON file.
    """

    where: machine.Machine
    markdown: bool
    readme: Path | None
    output: Path | None
    options: dict[str, Any]
    results: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, name: str, table: Table) -> None:
        """Prints and writes the table of a section."""
        where = self.where.sentence(SECTIONS[name].beside_torch)
        text = f'{table.markdown()}\n\n{where} Reproduce: `{self._command(name)}`'
        if self.markdown:
            print(f'### {name}\n\n{text}\n', flush=True)
        else:
            console = rich_console.Console()
            if not console.is_terminal:
                console = rich_console.Console(width=WIDTH)
            console.print(table.rich())
            console.print(f'{table.caption} {where}\n', markup=False, highlight=False)
        self.results[name] = dataclasses.asdict(table)
        if self.output:
            whole = {'options': self.options, 'machine': dataclasses.asdict(self.where)}
            files.write_json(self.output, {**whole, 'sections': self.results})
        if self.readme:
            readme_file.update(self.readme, MARKER, {name: text})

    def _command(self, name: str) -> str:
        rounds = self.options['rounds']
        more = '' if rounds == ROUNDS else f' --rounds={rounds}'
        return f'python -m benchmarks.run --only={name}{more}'


class Screen:
    """What the user sees on standard error while it runs."""

    def __init__(self):
        self._console = rich_console.Console(stderr=True)

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def section(self, title: str) -> Iterator[Callable[[str], None]]:
        """Gives a function that shows what is under way in a section; in a terminal only."""
        with self._console.status(markup.escape(title)) as status:
            yield lambda text: status.update(markup.escape(f'{title}: {text}'))


def measure(
    names: Sequence[str], make_work: Callable[..., Work], report: Report, screen: Screen
) -> None:
    """Measures sections one after the other.

    Raises:
      UserError: one or more of them failed; the others are measured all the same.
    """
    failures = []
    for number, name in enumerate(names, start=1):
        title = f'[{number}/{len(names)}] {name}'
        screen.say(f'{title}: {SECTIONS[name].what}')
        # What is printed while the status is shown would go where the status goes.
        with tempfile.TemporaryDirectory() as scratch, screen.section(title) as show:
            work = make_work(scratch=Path(scratch), show=show)
            try:
                table = SECTIONS[name].run(work)
            except UserError as error:
                screen.say(f'{title} FAILED: {error}')
                failures.append(name)
                continue
        report.add(name, table)
    if failures:
        raise UserError(
            f'{len(failures)} of {len(names)} sections failed: {", ".join(failures)}; why is said '
            f'above. Again: python -m benchmarks.run --only={",".join(failures)}'
        )


def main(argv: list[str]) -> None:
    """Measures, prints, writes."""
    arguments = _make_parser().parse_args(argv)
    if arguments.list:
        for name, section in SECTIONS.items():
            print(
                f'{name:<12} {section.what}' + (" beside PyTorch's" if section.beside_torch else '')
            )
        return
    names = _chosen(arguments.only)
    torch_python = _find_torch(arguments.torch_python)
    rounds = 1 if arguments.quick else arguments.rounds
    readme = arguments.readme if arguments.update_readme else None
    if readme and arguments.quick:
        raise UserError("--quick's figures say nothing and do not go into a README: leave one out.")
    if readme:
        readme_file.check(readme, MARKER, names)
    where = machine.look(torch_python)
    options = {'only': names, 'rounds': rounds, 'quick': arguments.quick}
    screen = Screen()
    with reserved(arguments.output) as output:
        if torch_python is None and any(SECTIONS[name].beside_torch for name in names):
            screen.say("PyTorch's rows are left out: `make bench` makes the environment for them.")
        report = Report(where, arguments.markdown, readme, output, options)
        make_work = functools.partial(
            Work,
            torch_python=torch_python,
            data_dir=arguments.data_dir.absolute(),
            rounds=rounds,
            quick=arguments.quick,
            say=screen.say,
        )
        measure(names, make_work, report, screen)


def _chosen(only: str | None) -> list[str]:
    """The sections that --only names, in the order of SECTIONS."""
    if only is None:
        return list(SECTIONS)
    names = [name.strip() for name in only.split(',')]
    for name in names:
        if name not in SECTIONS:
            raise UserError(
                f'--only: there is no section "{name}"; there are {", ".join(SECTIONS)}.'
                + did_you_mean(name, SECTIONS)
            )
    return [name for name in SECTIONS if name in names]


def _find_torch(given: Path | None) -> Path | None:
    """The Python with PyTorch. Links are kept: that of an environment leads out of it."""
    if given is not None:
        return given.expanduser().absolute()
    return TORCH_PYTHON if TORCH_PYTHON.exists() else None


class _Parser(argparse.ArgumentParser):
    """Refuses in one sentence, as all commands do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message}; see `{self.prog} --help`.')


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog='python -m benchmarks.run',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--list', action='store_true', help='print the sections that there are')
    add('--only', metavar='NAME[,NAME]', help='measure these sections [all]')
    add(
        '--rounds',
        type=command.positive,
        default=ROUNDS,
        help=f'turns of each contestant [{ROUNDS}]',
    )
    add('--quick', action='store_true', help='smallest sizes, to see that it works')
    add('--markdown', action='store_true', help='print Markdown')
    add('--update_readme', action='store_true', help='write the tables into --readme')
    add('--readme', type=Path, default=ROOT / 'README.md', help='[README.md]')
    add('--output', type=Path, metavar='FILE.json', help='write all figures; must not be there yet')
    add(
        '--torch_python',
        type=Path,
        metavar='PYTHON',
        help='a Python that has PyTorch [.venv-torch/bin/python, if it is there]',
    )
    add('--data_dir', type=Path, default=Path('data'), help='prepared data sets [data]')
    return parser


if __name__ == '__main__':
    # A polite kill ends as Ctrl-C does: no contestant is left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command.run(main)
