"""What the commands share: a user's mistake is one sentence on standard error and exit code 2."""

import sys
from collections.abc import Callable

from errors import UserError

USER_MISTAKE = 2


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
