"""Augmentation: rows that say what there is, and the functions that run inside the step."""
