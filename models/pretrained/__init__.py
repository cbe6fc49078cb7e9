"""Weights of a network without a run around them.

    variables, about = pretrained.load(folder)

folder.py is their format here; torch_files.py reads PyTorch's files, torch_names.py says what its
libraries call each layer, torch_weights.py turns their state dicts into variables and back; hub.py
downloads.
"""

from models.pretrained.folder import ABOUT, WEIGHTS, check_new, is_weights, load, save

__all__ = ['ABOUT', 'WEIGHTS', 'check_new', 'is_weights', 'load', 'save']
