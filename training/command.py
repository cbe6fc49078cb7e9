"""What the commands share: a user's mistake is one sentence on standard error and exit code 2."""

import argparse
import re
import sys
from collections.abc import Callable

from errors import UserError, did_you_mean

USER_MISTAKE = 2


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


def run(main: Callable[[list[str]], int | None]) -> None:
    """Calls main(arguments) and exits with what it returns, 2 after a UserError."""
    try:
        code = main(sys.argv[1:])
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        code = USER_MISTAKE
    except BrokenPipeError:
        code = 0  # the reader of our output (head, less) has gone
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        code = 130
    sys.stdout.flush()
    sys.exit(code or 0)
