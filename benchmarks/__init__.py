"""Comparisons with what a user would pick instead: python -m benchmarks.run."""

import command

command.only_commands(__name__)
