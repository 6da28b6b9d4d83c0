"""Numbers to pages: figures, tables, the sentences that depend on data, the book itself. No torch."""
