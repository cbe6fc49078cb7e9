"""Commands run as `python -m tools.NAME`; they may import everything, and nothing imports them."""

import command

command.only_commands(__name__)
