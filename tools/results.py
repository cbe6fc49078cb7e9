"""Builds the tables of docs/results.md from the result.json files of finished runs.

  python -m tools.results --list             list the tables
  python -m tools.results digits             run what the table still lacks, then print it
  python -m tools.results                    print every table; runs nothing
  python -m tools.results --update_docs      write every table into docs/results.md; runs nothing

A run that has its result.json is never repeated, and one that was stopped is resumed, so the same
command continues after an interruption. Options after -- are passed to train.py:

  python -m tools.results mnist -- --config.data.dir=DIR

The tables are declared in tools/experiments.py.
"""

import argparse
import concurrent.futures
import contextlib
import json
import math
import shlex
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import console as rich_console
from rich import live as rich_live
from rich import markup as rich_markup

import files
import processes
from errors import UserError
from tools import docs_tables as readme_file
from tools.experiments import TABLES, Row, Table, find_table, run_folder
from training.progress import format_seconds

ROOT = Path(__file__).resolve().parent.parent
TO_BE_CONTINUED = 75  # exit code of train.py if it was stopped and can be resumed
MOST_STARTS = 20  # of one run, before it counts as failed


# --- reading results ---------------------------------------------------------------------------


def read_result(workdir: Path, table: Table, row: Row, seed: int) -> dict[str, Any] | None:
    """Returns the result of a run, or None if there is none.

    Raises:
      UserError: it is the result of another program, or of another configuration than the row's.
    """
    path = run_folder(workdir, table, row, seed) / 'result.json'
    if not path.exists():
        return None
    try:
        result = files.read_json(path)
        actual = {'seed': result['seed']}
        actual |= {key: _lookup(result['config'], key) for key, _ in row.overrides}
        numbers = [float(result[key]) for key in ('steps', 'test_accuracy', 'wall_seconds')]
        hardware = f'{result["device"]}{int(result["devices"])}'
    except (UserError, ValueError, TypeError, KeyError) as error:
        raise UserError(f'{path} is not a result of train.py: {error!r}.') from error
    if not all(map(math.isfinite, numbers)) or not hardware:
        raise UserError(
            f'{path} holds a number that is not finite. Move the folder away and run it again: '
            f'{table.command}'
        )
    # Converted to JSON and back, as the result was: a tuple becomes a list.
    declared = json.loads(json.dumps({'seed': seed, **dict(row.overrides)}))
    for key, value in declared.items():
        if actual[key] != value:
            raise UserError(
                f'{path} was made with {key} = {actual[key]!r}, but table "{table.name}" declares '
                f'{value!r}. Move the folder away and run it again: {table.command}'
            )
    return result


def _lookup(config: dict[str, Any], key: str) -> Any:
    """Returns the value of a dotted key."""
    for name in key.split('.'):
        config = config[name]
    return config


# --- tables ------------------------------------------------------------------------------------

HEAD = ('Model', 'Test accuracy', 'Seeds', 'Steps', 'Time per run', 'Hardware', 'Published')


def markdown(table: Table, workdir: Path) -> str:
    """Returns a table as Markdown, with its caption above and its command below."""
    lines = [
        table.caption,
        '',
        readme_file.table_line(HEAD),
        readme_file.table_line(['---'] * len(HEAD)),
    ]
    lines += [readme_file.table_line(cells(table, row, workdir)) for row in table.rows]
    return '\n'.join([*lines, '', f'Reproduce: `{table.command}`'])


def cells(table: Table, row: Row, workdir: Path) -> list[str]:
    """Returns the cells of one row, from the results that exist."""
    results = [read_result(workdir, table, row, seed) for seed in row.seeds]
    results = [result for result in results if result is not None]
    if not results:
        return [row.label, 'not run', str(len(row.seeds)), '-', '-', '-', row.published]
    seeds = f'{len(row.seeds)}'
    if len(results) < len(row.seeds):
        seeds = f'{len(results)} of {len(row.seeds)}'
    return [
        row.label,
        format_accuracy([result['test_accuracy'] for result in results]),
        seeds,
        _each(f'{result["steps"]:,}' for result in results),
        format_seconds(statistics.median(result['wall_seconds'] for result in results)),
        _each(_hardware(result) for result in results),
        row.published,
    ]


def format_accuracy(accuracies: Sequence[float]) -> str:
    """Returns mean and sample standard deviation (n - 1) in percent; the mean alone if n is 1."""
    percent = [100 * accuracy for accuracy in accuracies]
    mean = f'{statistics.fmean(percent):.2f}'
    if len(percent) == 1:
        return f'{mean} %'
    return f'{mean} ± {statistics.stdev(percent):.2f} %'


def _hardware(result: dict[str, Any]) -> str:
    devices, device = int(result['devices']), result['device']
    if devices == 1:
        return device
    if 'CPU' in device:  # the devices are virtual, and the text has the number of cores
        return f'{device} as {devices} devices'
    return f'{devices} x {device}'


def _each(texts: Iterator[str]) -> str:
    return ', '.join(dict.fromkeys(texts))


def update_docs(page: Path, workdir: Path, tables: Sequence[Table] = TABLES) -> None:
    """Puts every table between its markers in the page."""
    for name in readme_file.names(page, 'results'):
        find_table(name, tables)
    texts = {table.name: markdown(table, workdir) for table in tables}
    readme_file.update(page, 'results', texts)


# --- running -----------------------------------------------------------------------------------


class TableRuns:
    """Does the runs that a table lacks, several at a time if `jobs` is more than 1.

    Args:
      workdir: the folder of all results.
      jobs: number of runs at a time; times per run can be compared only if it is 1.
      flags: more options for train.py.
      train: the file of the training command.
    """

    def __init__(
        self,
        workdir: Path,
        jobs: int = 1,
        flags: Sequence[str] = (),
        train: Path = ROOT / 'train.py',
    ):
        self._workdir = workdir.resolve()  # train.py is started in ROOT, not in the current folder
        self._jobs = jobs
        self._flags = flags
        self._train = train
        self._stopped = threading.Event()
        self._running = {}  # name of a run -> (process, log file)
        self._console = rich_console.Console()

    def run(self, table: Table) -> None:
        """Does the runs that have no result.

        Raises:
          UserError: some runs failed; names them.
        """
        runs = [
            (row, seed)
            for row in table.rows
            for seed in row.seeds
            if read_result(self._workdir, table, row, seed) is None
        ]
        if not runs:
            return
        self._say(f'runs to do: {len(runs)}; their logs are in {self._workdir / table.name}')
        with concurrent.futures.ThreadPoolExecutor(self._jobs) as executor:
            futures = {executor.submit(self._run, table, *run): run for run in runs}
            try:
                failures = self._watch(table, futures)
            except KeyboardInterrupt:
                self._stop()
                executor.shutdown(cancel_futures=True)
                raise
        if failures:
            raise UserError(f'{len(failures)} of {len(runs)} runs failed:\n' + '\n'.join(failures))

    def _watch(self, table: Table, futures: dict) -> list[str]:
        """Shows the runs until all are done; returns a text for each that failed."""
        start, failures, pending = time.monotonic(), [], set(futures)
        screen = contextlib.nullcontext()
        if self._console.is_terminal:
            screen = rich_live.Live(console=self._console, auto_refresh=False, transient=True)
        with screen as live:
            while pending:
                done, pending = concurrent.futures.wait(
                    pending, timeout=0.5, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    row, seed = futures[future]
                    failure = future.result()
                    failures += [failure] if failure else []
                    finished = len(futures) - len(pending)
                    left = (time.monotonic() - start) / finished * len(pending)
                    outcome = 'FAILED' if failure else self._outcome(table, row, seed)
                    rest = f', about {format_seconds(left)} left' if pending else ''
                    self._say(
                        f'[{finished}/{len(futures)}] {row.label}, seed {seed}: {outcome}{rest}'
                    )
                if live is not None:
                    live.update('\n'.join(self._last_lines()), refresh=True)
        return failures

    def _run(self, table: Table, row: Row, seed: int) -> str:
        """Does one run, and resumes it if it is stopped; returns why it failed, or ''."""
        folder = run_folder(self._workdir, table, row, seed)
        with files.explaining_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
        log = folder.with_name(f'{folder.name}.log')
        command = [sys.executable, str(self._train), *row.flags(seed), f'--workdir={folder}']
        name = f'{row.label}, seed {seed}'
        for _ in range(MOST_STARTS):
            if self._stopped.is_set():
                return f'  {name}: not run'
            arguments = [*command, *self._flags]
            with log.open('ab') as output, processes.child(arguments, stdout=output) as process:
                self._running[name] = (process, log)
                if self._stopped.is_set():  # it may have been set since the check above
                    process.terminate()
                code = process.wait()
                del self._running[name]
            if code != TO_BE_CONTINUED:
                break
        reason = f'exit code {code}'
        if code == 0:
            try:
                if read_result(self._workdir, table, row, seed) is not None:
                    return ''
                reason = 'no result.json'
            except UserError as error:
                reason = str(error)
        return (
            f'  {name}: {reason}, "{_last_line(log)}"\n    {shlex.join([*command, *self._flags])}'
        )

    def _stop(self) -> None:
        """Asks the running processes to save and end."""
        self._stopped.set()
        for process, _ in list(self._running.values()):
            process.terminate()

    def _outcome(self, table: Table, row: Row, seed: int) -> str:
        result = read_result(self._workdir, table, row, seed)
        accuracy = format_accuracy([result['test_accuracy']])
        return f'{accuracy} in {format_seconds(result["wall_seconds"])}'

    def _last_lines(self) -> Iterator[str]:
        for name, (_, log) in list(self._running.items()):
            yield rich_markup.escape(f'{name}: {_last_line(log)}')

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError), log.open('rb') as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors='replace').split('\n')
        return next((line.strip() for line in reversed(lines) if line.strip()), '')
    return ''


# --- command -----------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.results',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('name', nargs='?', help='the table to run and print')
    add('--workdir', type=Path, default=Path('runs/results'), help='all results')
    add('--jobs', type=int, default=1, help='runs at the same time')
    add('--docs', type=Path, default=ROOT / 'docs/results.md', help='page to update')
    add('--update_docs', action='store_true', help='write the tables into it')
    # The names that these options had while the tables stood in README.md.
    add('--readme', type=Path, dest='docs', help=argparse.SUPPRESS, default=argparse.SUPPRESS)
    add('--update_readme', action='store_true', dest='update_docs', help=argparse.SUPPRESS)
    add('--list', action='store_true', help='list the tables')
    own, flags = list(sys.argv[1:] if argv is None else argv), []
    if '--' in own:  # argparse would parse the options that follow
        own, flags = own[: own.index('--')], own[own.index('--') + 1 :]
    args = parser.parse_args(own)
    # SIGTERM has the effect of Ctrl-C: the running processes save before this one ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _command(args, flags)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped; the same command resumes', file=sys.stderr)
        return 130


def _command(args: argparse.Namespace, flags: Sequence[str]) -> int:
    if args.jobs < 1:
        raise UserError(f'--jobs must be 1 or more, not {args.jobs}.')
    if args.list:
        for table in TABLES:
            runs = sum(len(row.seeds) for row in table.rows)
            print(f'{table.name:<12} {runs:>2} runs  {table.caption}')
        return 0
    tables = TABLES
    if args.name:
        tables = [find_table(args.name)]
        TableRuns(args.workdir, args.jobs, flags).run(tables[0])
    if args.update_docs:
        update_docs(args.docs, args.workdir)
    else:
        print('\n\n'.join(markdown(table, args.workdir) for table in tables))
    return 0


if __name__ == '__main__':
    sys.exit(main())
