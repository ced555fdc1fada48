"""Score tables: their files and rows, SQL over them, and the images behind the rows."""
