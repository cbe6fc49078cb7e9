"""Opens a page on which a network of a workdir is tried: draw, drop a picture, use the camera.

    python -m tools.page --workdir=runs/digits_lenet
    python -m tools.page --workdir=runs/digits_lenet --port=8080 --checkpoint=best

The page shows the answer while it is drawn, the picture as the network gets it, a heat map of what
speaks for the answer (Grad-CAM), and the feature maps of each stage. It needs neither the data set
nor the internet. Nothing that is drawn or shown is stored.

It is served to this machine alone. --host=0.0.0.0 serves it to all that reach this machine, without
a password; the camera then works on this machine only, because browsers give it to no page that
comes unencrypted from elsewhere.

exit codes: 0 ended by Ctrl-C, 2 the command or the workdir is wrong
"""

import argparse
import re

import command
from errors import shortened

PORT = 8000
_LAST_PORT = 65535


def port(text: str) -> int:
    """Parses the number of a port; an argparse type."""
    if not re.fullmatch('[0-9]{1,5}', text) or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(
            f'{shortened(text)} is not a whole number from 0 to {_LAST_PORT}'
        )
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command.make_parser('tools.page', __doc__)
    add = parser.add_argument
    add('--workdir', metavar='DIR', required=True, help='folder of the run')
    add('--checkpoint', metavar='WHICH', default='last', help='last, best, or a step [last]')
    add(
        '--port',
        type=port,
        default=PORT,
        metavar='N',
        help=f'port to listen on; 0 for any that is free [{PORT}]',
    )
    add(
        '--host',
        metavar='ADDRESS',
        default='127.0.0.1',
        help='address to listen on; 0.0.0.0 for all of this machine [127.0.0.1]',
    )
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    from tools.page.limits import Limits
    from tools.page.server import Server

    # Bound first: that a port is in use is said before a network is compiled.
    server = Server(arguments.host, arguments.port, Limits())
    try:
        _serve(server, arguments, overrides)
    except KeyboardInterrupt:  # the way to end it
        print(flush=True)
    finally:
        server.server_close()
    return 0


def _serve(server, arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Reads the network and serves it until Ctrl-C."""
    print(f'reading {arguments.workdir} and compiling its network ...', flush=True)
    from tools.page import answer
    from training import trained

    network = trained.load(arguments.workdir, arguments.checkpoint, overrides)
    answers = answer.Answers(network, arguments.workdir)
    answers.warm_up()
    server.start(answers)
    if server.open_to_others:
        print(
            f'warning: --host={arguments.host} serves the page to every machine that reaches this '
            'one, without a password.'
        )
    about = answers.about()
    print(f'{about["title"]}: open {server.url} in a browser; Ctrl-C ends it.', flush=True)
    server.serve_forever()
