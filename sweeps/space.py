"""The names that sweep files import; they live in configs/search.py."""

from configs.search import Categorical, Float, Int, Objective, Sweep

__all__ = ['Categorical', 'Float', 'Int', 'Objective', 'Sweep']
