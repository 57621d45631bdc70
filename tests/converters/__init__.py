"""Converters of the exports of other applications, as examples to copy.

Each yields the commands that store what a file says, and nothing that it does not say.
"""
