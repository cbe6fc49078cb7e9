"""Hyperparameter sweeps: what sweep.py is made of. See "A sweep" in ARCHITECTURE.md."""
