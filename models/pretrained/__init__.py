"""Saves, loads and converts the weights of a network.

    variables, about = pretrained.load(folder)

folder.py has the format of this project, torch_files.py reads PyTorch's files,
torch_checkpoints.py finds a network's weights in them, torch_names.py has the names that PyTorch's
libraries give to the layers, torch_weights.py converts state dicts to variables and back, and
hub.py downloads from the Hugging Face Hub.
"""

from models.pretrained.folder import ABOUT, WEIGHTS, check_new, is_weights, load, save

__all__ = ['ABOUT', 'WEIGHTS', 'check_new', 'is_weights', 'load', 'save']
