"""Reports from rows: data frames, text tables, the sentence to act on, the figure, and the files that hold them."""
