"""The commands, one file each; service/__main__.py declares them and imports them only when they are called."""
