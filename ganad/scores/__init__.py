"""Score tables: rows, SQL over them, notes on errors, their images."""
