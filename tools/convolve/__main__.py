"""The command python -m tools.convolve."""

import command
from tools.convolve import main

if __name__ == '__main__':
    command.run(main)
