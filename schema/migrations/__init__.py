"""The steps that bring a database to the present tables: a folder for each database system."""
