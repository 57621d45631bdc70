"""The generator of clients in other languages: types and operations, from the language's own description.

    describe() ──▶ model.py: records, fields, operations ──▶ a template, such as go.py ──▶ clients/go

What is generated is committed. `python -m backscroll.clients.generator` writes it; a test says when it is not current.
"""
