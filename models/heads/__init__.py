"""Heads: what a task makes of a network's stages; head.py is the base of all."""

from models.heads.head import HeadedNetwork

__all__ = ['HeadedNetwork']
