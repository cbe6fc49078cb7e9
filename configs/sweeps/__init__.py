"""Sweep files: each has get_sweep(), which returns a configs.search.Sweep."""
