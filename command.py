"""Code shared by the commands: parsing options, reporting errors, setting up the process."""

import argparse
import contextlib
import errno
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import printing
from errors import UserError, did_you_mean, shortened

# Of these the person who chose the file has to take care, wherever it was opened.
_ABOUT_FILES = (
    errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENXIO,
    errno.EPERM, errno.EROFS,
)  # fmt: skip


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the parsed options and the remaining '--config.NAME=VALUE' arguments.

    '--config.NAME VALUE' becomes one of them.

    Raises:
      UserError: an argument is neither.
    """
    arguments, overrides = parser.parse_known_args(_joined(argv))
    for argument in overrides:
        if not argument.startswith('--config.'):
            start = parser.prog.removeprefix('python ')
            name = start.removeprefix('-m ')
            known = [*re.findall(r'--[a-z_]+', parser.format_usage()), '--config.']
            raise UserError(
                f'{shortened(argument)} is not an option of {name}; see `python {start} --help`.'
                + did_you_mean(argument.partition('=')[0], known)
            )
    return arguments, overrides


def _joined(argv: list[str]) -> list[str]:
    """Returns the arguments with '--config.NAME', 'VALUE' as one, '--config.NAME=VALUE'.

    A value may be a negative number; what begins with two dashes is the next option.
    """
    joined, left = [], iter(argv)
    for argument in left:
        if argument == '--':  # what follows are no options
            return [*joined, argument, *left]
        previous = joined[-1] if joined else ''
        needs_value = previous.startswith('--config.') and '=' not in previous
        if needs_value and not argument.startswith('--'):
            joined[-1] = f'{previous}={argument}'
        else:
            joined.append(argument)
    return joined


def only_commands(package: str) -> None:
    """Ends `python -m PACKAGE.MODULE` with a sentence and exit code 2 if MODULE is no command.

    Python imports the package before it runs the module, which would do nothing without a word. A
    package of commands calls this in its `__init__.py`.
    """
    if sys.argv[0] != '-m':  # Python's name for the program until it has found the module
        return
    module = sys.orig_argv[sys.orig_argv.index('-m') + 1] if '-m' in sys.orig_argv else ''
    root = Path(sys.modules[package].__file__).parents[1]
    modules = {
        '.'.join(path.relative_to(root).with_suffix('').parts).removesuffix('.__main__'): path
        for path in sorted((root / package).rglob('*.py'))
    }
    mark = "if __name__ == '__main__':"
    commands = [name for name, path in modules.items() if mark in path.read_text()]
    if module.startswith(f'{package}.') and module not in commands:
        listed = ', '.join(name for name in commands if name.count('.') == 1)
        hint = '' if module in modules else did_you_mean(module, commands)
        print(f'error: {module} is no command; there are {listed}.{hint}', file=sys.stderr)
        sys.exit(UserError.exit_code)


def positive(text: str) -> int:
    """Parses a whole number above 0; an argparse type."""
    # Python takes the digits of all scripts for decimal, and refuses to parse very many.
    if not re.fullmatch('0*[1-9][0-9]{0,8}', text):
        limit = ' and below 1,000,000,000' * (len(text) > 9)
        raise argparse.ArgumentTypeError(f'{shortened(text)} is not a whole number above 0{limit}')
    return int(text)


def fraction(text: str) -> float:
    """Parses a number from 0 to 1; an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{shortened(text)} is not a number from 0 to 1')
    return value


def make_parser(prog: str, doc: str, kind=argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Returns a parser whose help begins with the module's docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    return kind(f'python -m {prog}', description=doc, formatter_class=formatter, allow_abbrev=False)


def chosen(only: str | None, names: Sequence[str], what: str, option: str = '--only') -> list[str]:
    """Returns the names that --only=NAME,NAME gives, in the order of all `names`.

    Raises:
      UserError: there is no such name; `what` says what it should be of.
    """
    wanted = list(names) if only is None else [name.strip() for name in only.split(',')]
    for name in wanted:
        if name not in names:
            there_are = f'there is no {what} "{name}"; there are {", ".join(names)}.'
            raise UserError(f'{option}: {there_are}{did_you_mean(name, names)}')
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
    """Whether this machine has a GPU or TPU, judged by /dev alone so that no library starts."""
    return any(Path(name).exists() for name in ('/dev/nvidiactl', '/dev/kfd', '/dev/accel0'))


def _restart_with_huge_pages() -> None:
    """Restarts this process on Linux so that the C library allocates memory in huge pages.

    XLA's CPU backend allocates all memory of a step anew at each step, and the system maps it one
    page at a time: with pages of 2 MB, a step takes 10 to 20 % less time. The C library reads the
    setting only when a process starts, hence the restart, which costs 20 ms.
    """
    setting = 'GLIBC_TUNABLES'
    if sys.platform != 'linux' or setting in os.environ or has_accelerator():
        return
    os.environ[setting] = 'glibc.malloc.hugetlb=1'
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _set_xla_log_level() -> None:
    """Sets the log level of XLA's libraries; call it before JAX is imported, as they read it once.

    Warnings about absent accelerators are hidden. On a machine without any, errors are hidden as
    well: XLA:CPU logs an error of 2,000 characters for each program that it loads from the cache,
    about tuning hints that it stored there itself. Fatal errors are still logged, and everything
    else that matters is raised as an exception.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2' if has_accelerator() else '3')


def run(main: Callable[[list[str]], int | None]) -> None:
    """Calls `main` with the command line and exits with its exit code."""
    _open_standard_streams()
    # The restart comes first: whatever is set up before it is lost.
    _restart_with_huge_pages()
    _set_xla_log_level()
    sys.exit(call(main, sys.argv[1:]))


def call(main: Callable[[list[str]], int | None], argv: list[str]) -> int:
    """Returns main(argv), or 0 for None. Prints a UserError and returns its exit code."""
    code = 0
    try:
        with printing.checked():
            code = main(argv) or 0
    except UserError as error:
        _tell(f'error: {error}')
        return error.exit_code
    except BrokenPipeError:
        pass  # the reader of our output (head, less) has seen enough
    except OSError as error:
        if error.errno not in _ABOUT_FILES or error.filename is None:
            raise
        name = shortened(str(error.filename))
        _tell(f'error: {name} cannot be used: {error.strerror}. Choose another file or folder.')
        return UserError.exit_code
    except (MemoryError, RuntimeError) as error:
        # JAX says so by an error of its own, which is a RuntimeError.
        if isinstance(error, RuntimeError) and 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        reason = shortened(' '.join(str(error).split())) or 'no details'
        _tell(
            f'error: there is not enough memory ({reason}): choose smaller batches, images or '
            'networks; `python -m tools.preflight --help` says how to find out what fits.'
        )
        return UserError.exit_code
    except KeyboardInterrupt:
        _tell('interrupted')
        return 130
    return code


def _tell(text: str) -> None:
    """Prints a line on standard error, which may be closed or on a full disk."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _open_standard_streams() -> None:
    """Opens what the caller has closed (`>&-`), so that no file of ours gets its number.

    Libraries write to numbers 1 and 2 whatever file they are.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # the lowest free number is taken, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in ((1, 'stdout'), (2, 'stderr')):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, 'w', closefd=False))
