"""Reports from rows: data frames, text tables, recommendation of an r, figure, and the files that hold them."""
