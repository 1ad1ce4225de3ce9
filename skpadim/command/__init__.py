"""The `skpadim` command: its options, and what each of its subcommands does."""
