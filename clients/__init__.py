"""The clients, a folder for each language, and the command line. They import only the schema."""
