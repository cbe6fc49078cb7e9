"""The experiments, one file each; base.py lists the fields, and schema.py checks them."""
