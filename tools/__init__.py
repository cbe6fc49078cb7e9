"""Commands run as `python -m tools.NAME`; they may import everything, and nothing imports them."""
