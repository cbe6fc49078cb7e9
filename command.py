"""The common parts of the commands: parsing, and mistakes as a sentence and an exit code."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from errors import UserError, did_you_mean


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the parsed options, and the '--config.NAME=VALUE' arguments.

    Raises:
      UserError: an argument is neither.
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


def has_accelerator() -> bool:
    """Returns whether the system has a GPU or TPU, without asking a library, which would start."""
    return any(Path(name).exists() for name in ('/dev/nvidiactl', '/dev/kfd', '/dev/accel0'))


def _ask_for_huge_pages() -> None:
    """Restarts this process with the C library's memory in huge pages, if Linux has them.

    XLA's CPU backend allocates all of a step's memory at each step, and the system provides it page
    by page. With pages of 2 MB a step takes 10 to 20 % less time. The library reads the setting
    only when a process starts, so the process has to be restarted, which takes 20 ms.
    """
    setting = 'GLIBC_TUNABLES'
    if sys.platform != 'linux' or setting in os.environ or has_accelerator():
        return
    os.environ[setting] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _hush_xla() -> None:
    """Silences XLA's libraries; JAX must not be imported yet, because they read this only once.

    Messages about missing accelerators are left out. Without an accelerator errors are left out as
    well: XLA:CPU reports one of two thousand characters for each program that it takes from the
    cache, about tuning hints that it wrote itself. Fatal errors are still reported, and all others
    that matter are raised as exceptions.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2' if has_accelerator() else '3')


def run(main: Callable[[list[str]], int | None]) -> None:
    """Calls `main` with the command line, and exits with its code."""
    _ask_for_huge_pages()
    _hush_xla()
    code = call(main, sys.argv[1:])
    sys.stdout.flush()
    sys.exit(code)


def call(main: Callable[[list[str]], int | None], argv: list[str]) -> int:
    """Calls main(argv); returns its exit code, or that of a UserError, which is printed."""
    try:
        return main(argv) or 0
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0  # the reader of the output (head, less) has ended
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
