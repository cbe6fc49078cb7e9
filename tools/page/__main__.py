"""Runs the command: python -m tools.page."""

import command
from tools.page import main

if __name__ == '__main__':
    command.run(main)
