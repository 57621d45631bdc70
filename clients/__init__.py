"""The callers, a folder a language, and the command line. They import the schema only."""
