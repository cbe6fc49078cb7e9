"""The subcommands of tools.prepare_data; imports `preparation`, `data_sources` and `errors`."""
