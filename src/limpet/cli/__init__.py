"""cli: one module per family of commands: arguments, tables, progress. Decisions are made in the rooms below."""
