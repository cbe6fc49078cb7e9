"""What can be learned: the contract is in task.py, and each task is one file."""
