"""The tasks: task.py has their contract, and each task is one file."""
