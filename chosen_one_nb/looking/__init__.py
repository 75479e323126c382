"""Ways to look at a run; each takes arrays and returns arrays, tables or sentences.

`maps` (where the pictures lie), `vocabulary` and `attributes` (what a group of pictures shares), `asked` (was it
asked for, and is it on the figure), `drift` and `persistence` (does it stick), `foreground` and `heat` (where in the
picture). None of them reads a file that the caller did not name, shows anything, or loads torch.
"""
