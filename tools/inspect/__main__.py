"""Runs the command: python -m tools.inspect."""

import command
from tools.inspect import main

if __name__ == '__main__':
    command.run(main)
