"""compose: a project, that is a directory somebody wants up: parse, then plan (plain data), then execute."""
