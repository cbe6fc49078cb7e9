"""Speed beside what a user would pick instead, measured side by side.

    make bench                                 everything, with PyTorch in an environment of its own
    python -m benchmarks.run --only=step       one section; --list shows all of them
    python -m benchmarks.run --markdown        as docs/speed.md shows it

Contestants take turns within one run, A B A B ..., each in a process of its own. Figures are
medians of the turns: quote their ratios, because the rates depend on the machine and the hour.
Tables go to standard output as soon as they are measured, everything else to standard error.
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
from benchmarks.tables import BenchmarkContext, BenchmarkTable, Machine, describe_machine
from errors import UserError
from processes import ROOT
from tools import docs_tables

TORCH_PYTHON = ROOT / '.venv-torch' / 'bin' / 'python'  # `make bench` makes it
DOCS = ROOT / 'docs' / 'speed.md'
MARKER = 'speed'
ROUNDS = 5
_SCREEN = rich_console.Console(stderr=True)
_say = functools.partial(_SCREEN.print, markup=False, highlight=False, soft_wrap=True)
WIDTH = 120  # of a table when the output is no terminal


@dataclasses.dataclass(frozen=True)
class Section:
    """One table of the benchmark."""

    module: str  # of benchmarks/, imported when it is needed
    description: str  # for --list
    beside_torch: bool = False  # whether PyTorch has rows in the table
    function: str = 'run'  # of the module

    def run(self, context: BenchmarkContext) -> BenchmarkTable:
        """Measures the section."""
        module = importlib.import_module(f'benchmarks.{self.module}')
        return getattr(module, self.function)(context)


SECTIONS = {
    'step': Section('networks', 'one training step on the CPU', True, 'training_step'),
    'trace': Section('step_trace', "where that step's time goes, on one core and on two"),
    'evaluation': Section('networks', 'a pass of evaluation on the CPU', True, 'evaluation'),
    'segmentation': Section(
        'segmentation', 'U-Net: a training step and a pass of evaluation', True
    ),
    'detection': Section(
        'detection', "a detector beside torchvision's: a training step and inference", True
    ),
    'job': Section('job', 'a whole training on MNIST, from the start of the process', True),
    'start': Section('job', 'from the start of the process to the first step', True, 'start'),
    'checkpoint': Section('checkpoint', 'how long a save holds the training up'),
    'memory': Section(
        'growth', 'peak memory of a run against what tools.preflight estimates', False, 'memory'
    ),
    'growth': Section('growth', 'cost per image and memory as data sets and runs grow'),
    'devices': Section(
        'networks', 'eight virtual devices on one CPU against one', False, 'devices'
    ),
    'sweep': Section('trials', 'trials in one program against a process for each', False, 'sweep'),
    'trials': Section('trials', "bookkeeping of a sweep's trials"),
}


@dataclasses.dataclass
class ResultWriter:
    """Prints and writes each table as soon as it is measured: a later failure loses none."""

    host: Machine
    markdown: bool  # whether to print Markdown
    docs: Path | None  # Markdown file to write the tables into
    output: Path | None  # JSON file for all figures
    options: dict[str, Any]  # of the command, for the JSON file
    results: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, name: str, table: BenchmarkTable) -> None:
        """Prints and writes the table of a section."""
        host = self.host.sentence(SECTIONS[name].beside_torch)
        rounds = self.options['rounds']
        options = f'--only={name}' + f' --rounds={rounds}' * (rounds != ROUNDS)
        reproduce = f'Reproduce: `python -m benchmarks.run {options}`'
        text = f'{table.markdown()}\n\n{host} {reproduce}'
        if self.markdown:
            print(f'### {name}\n\n{text}\n', flush=True)
        else:
            terminal = rich_console.Console().is_terminal
            console = rich_console.Console(width=None if terminal else WIDTH)
            console.print(table.rich())
            console.print(f'{table.caption} {host}\n', markup=False, highlight=False)
        self.results[name] = dataclasses.asdict(table)
        if self.output:
            whole = {'options': self.options, 'machine': dataclasses.asdict(self.host)}
            files.write_json(self.output, whole | {'sections': self.results})
        if self.docs:
            docs_tables.update(self.docs, MARKER, {name: text})


def measure(names: Sequence[str], context: BenchmarkContext, writer: ResultWriter) -> None:
    """Measures sections one after the other, with a status on standard error in a terminal.

    Raises:
      UserError: one or more of them failed; the others are measured all the same.
    """
    failures = []
    for number, name in enumerate(names, start=1):
        title = f'[{number}/{len(names)}] {name}'
        context.say(f'{title}: {SECTIONS[name].description}')
        # While the status is shown it would redirect what is printed.
        with tempfile.TemporaryDirectory() as scratch, _status(title) as show:
            try:
                own = dataclasses.replace(context, scratch=Path(scratch), show=show)
                table = SECTIONS[name].run(own)
            except UserError as error:
                context.say(f'{title} FAILED: {error}')
                failures.append(name)
                continue
        writer.add(name, table)
    if failures:
        raise UserError(
            f'{len(failures)} of {len(names)} sections failed: {", ".join(failures)}; why is said '
            f'above. Again: python -m benchmarks.run --only={",".join(failures)}'
        )


@contextlib.contextmanager
def _status(title: str) -> Iterator[Callable[[str], None]]:
    """Yields a function that shows what is being measured."""
    with _SCREEN.status(markup.escape(title)) as status:
        yield lambda text: status.update(markup.escape(f'{title}: {text}'))


def main(argv: list[str]) -> None:
    """Runs the command."""
    arguments = _make_parser().parse_args(argv)
    if arguments.list:
        for name, section in SECTIONS.items():
            beside = " beside PyTorch's" * section.beside_torch
            print(f'{name:<12} {section.description}{beside}')
        return
    names = command.chosen(arguments.only, list(SECTIONS), 'section')
    torch_python = arguments.torch_python or (TORCH_PYTHON if TORCH_PYTHON.exists() else None)
    if torch_python:  # not resolved: the link is what leads into its environment
        torch_python = torch_python.expanduser().absolute()
    rounds = 1 if arguments.quick else arguments.rounds
    docs = arguments.docs if arguments.update_docs else None
    if docs:
        if arguments.quick:
            raise UserError("--quick's figures mean nothing and do not go into the docs: drop one.")
        docs_tables.check(docs, MARKER, names)
    host = describe_machine(torch_python)
    options = {'only': names, 'rounds': rounds, 'quick': arguments.quick}
    data_dir = arguments.data_dir.absolute()
    context = BenchmarkContext(Path(), torch_python, data_dir, rounds, arguments.quick, _say)
    with command.reserved(arguments.output) as output:
        if torch_python is None and any(SECTIONS[name].beside_torch for name in names):
            _say("PyTorch's rows are left out: `make bench` makes the environment for them.")
        measure(names, context, ResultWriter(host, arguments.markdown, docs, output, options))


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option in one sentence, as all commands do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message}; see `{self.prog} --help`.')


def _make_parser() -> argparse.ArgumentParser:
    parser = command.make_parser('benchmarks.run', __doc__, _Parser)
    add = parser.add_argument
    add('--list', action='store_true', help='print the names of the sections')
    add('--only', metavar='NAME[,NAME]', help='measure these sections [all]')
    rounds_help = f'turns of each contestant [{ROUNDS}]'
    add('--rounds', type=command.positive, default=ROUNDS, help=rounds_help)
    add('--quick', action='store_true', help='smallest sizes, to see that it works')
    add('--markdown', action='store_true', help='print Markdown')
    add('--update_docs', action='store_true', help='write the tables into --docs')
    add('--docs', type=Path, metavar='FILE.md', default=DOCS, help='[docs/speed.md]')
    add('--output', type=Path, metavar='FILE.json', help='new file for all figures')
    torch_help = 'a Python that has PyTorch [.venv-torch/bin/python if it exists]'
    add('--torch_python', type=Path, metavar='PYTHON', help=torch_help)
    add('--data_dir', type=Path, default=Path('data'), help='prepared data sets [data]')
    return parser


if __name__ == '__main__':
    # SIGTERM ends the command as Ctrl-C does, and with it every contestant.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command.run(main)
