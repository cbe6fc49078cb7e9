"""The checkpoints of a run: written asynchronously, atomic, and known by their run and step.

manager.py has what a run does with them, stored.py reads one from the disk and says whether it is
sound, and history.py has the list of those that a run has saved.
"""

from training.checkpoints.history import HISTORY, check_not_removed, damage
from training.checkpoints.manager import FOLDER, Checkpoints
from training.checkpoints.stored import best_of, read, read_arrays, steps_in

__all__ = [
    'FOLDER',
    'HISTORY',
    'Checkpoints',
    'best_of',
    'check_not_removed',
    'damage',
    'read',
    'read_arrays',
    'steps_in',
]
