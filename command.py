"""What the commands share: a user's mistake is one sentence on standard error and an exit code."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from errors import UserError, did_you_mean


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the parsed options and the '--config.NAME=VALUE' arguments beside them.

    Raises:
      UserError: an argument that is neither.
    """
    arguments, overrides = parser.parse_known_args(argv)
    for wrong in overrides:
        if not wrong.startswith('--config.'):
            name = parser.prog.removeprefix('python ')
            known = [*re.findall(r'--[a-z_]+', parser.format_usage()), '--config.']
            raise UserError(
                f'{wrong} is not an option of {name}; see `python {name} --help`.'
                + did_you_mean(wrong.partition('=')[0], known)
            )
    return arguments, overrides


def positive(text: str) -> int:
    """Parses a whole number above 0, as the type of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is not a whole number above 0')
    return int(text)


def make_parser(prog: str, doc: str, kind=argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Returns a parser whose help begins with the module's docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    return kind(f'python -m {prog}', description=doc, formatter_class=formatter, allow_abbrev=False)


def chosen(only: str | None, names: Sequence[str], what: str) -> list[str]:
    """Returns the names that --only=NAME,NAME gives, in the order of all `names`.

    Raises:
      UserError: there is no such name; `what` says what it should be of.
    """
    wanted = list(names) if only is None else [name.strip() for name in only.split(',')]
    for name in wanted:
        if name not in names:
            there_are = f'there is no {what} "{name}"; there are {", ".join(names)}.'
            raise UserError(f'--only: {there_are}{did_you_mean(name, names)}')
    return [name for name in names if name in wanted]


@contextlib.contextmanager
def reserved(output: Path | None) -> Iterator[Path | None]:
    """Creates --output before anything is measured; removes it if nothing is written into it.

    Raises:
      UserError: the file exists already, or cannot be written.
    """
    if output is None:
        yield None
        return
    try:
        output.open('x').close()
    except FileExistsError as error:
        raise UserError(f'--output={output} is there already: choose another name.') from error
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = error.strerror + '; it is in a folder that does not exist' * missing
        raise UserError(f'--output={output} cannot be written: {reason}.') from error
    try:
        yield output
    finally:
        if not output.stat().st_size:
            output.unlink()


def has_accelerator() -> bool:
    """Whether the system shows a GPU or TPU; asks no library, which would start it."""
    return any(Path(name).exists() for name in ('/dev/nvidiactl', '/dev/kfd', '/dev/accel0'))


def _ask_for_huge_pages() -> None:
    """Starts this process anew with the C library's memory in huge pages, where Linux has them.

    XLA's CPU backend asks for all of a step's memory anew at each step, and the system hands it out
    a page at a time: in pages of 2 MB a step takes 10 to 20 % less time. The library reads the
    setting only as a process starts, so there is no other way; it costs 20 ms.
    """
    setting = 'GLIBC_TUNABLES'
    if sys.platform != 'linux' or setting in os.environ or has_accelerator():
        return
    os.environ[setting] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _hush_xla() -> None:
    """Chooses what XLA's libraries say; JAX must not be imported yet, for they ask only once.

    Absent accelerators are not news. Without any, neither are errors: XLA:CPU reports one, of two
    thousand characters, for each program that it takes from the cache, about tuning hints that it
    put there itself. What is fatal is still said, and what matters is raised as an exception.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2' if has_accelerator() else '3')


def run(main: Callable[[list[str]], int | None]) -> None:
    """Calls main with the command line, and exits with its code."""
    _ask_for_huge_pages()
    _hush_xla()
    code = call(main, sys.argv[1:])
    sys.stdout.flush()
    sys.exit(code)


def call(main: Callable[[list[str]], int | None], argv: list[str]) -> int:
    """Returns what main(argv) does, 0 for nothing; after a UserError, which it prints, its code."""
    try:
        return main(argv) or 0
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0  # the reader of our output (head, less) has gone
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
