"""Runs the command: python -m tools.preflight."""

import command
from tools.preflight import main

if __name__ == '__main__':
    command.run(main)
