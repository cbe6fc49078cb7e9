"""One file per experiment; base.py lists every field, schema.py checks them."""
