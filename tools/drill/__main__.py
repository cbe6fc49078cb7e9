"""The command python -m tools.drill."""

import command
from tools.drill import main

if __name__ == '__main__':
    command.run(main)
