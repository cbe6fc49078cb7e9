"""Sweep files: each has get_sweep(), which returns a sweeps.space.Sweep."""
