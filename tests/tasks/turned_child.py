"""Runs a command of the product after the second task has been registered.

python -m tests.tasks.turned_child train --config=... --workdir=...
"""

import importlib
import sys

import command
from tests.tasks import turned

assert turned.Turned.name == 'turned'

if __name__ == '__main__':
    main = importlib.import_module(sys.argv.pop(1)).main
    command.run(main)
