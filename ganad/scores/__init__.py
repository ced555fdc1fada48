"""Score tables: rows, SQL, notes on errors, labels, metrics and evaluation."""
