"""How a run is kept: what `chosen_one_nb.run.run.Run` is made of, from the disk upwards.

`decision` (choices as data), `node` (one iteration on disk), `tree` (all of them), `reading` (images, and advice
where a file is damaged), `drawing` and `stages` (what each stage reads and leaves behind), `choosing` (what a person
may change), `opening` (checks before a run begins), `tables` (a run as DataFrames); and the sides of a run, one on
the other: `view` (what can be read), `editor` (what a person decides), `painter` (what needs models).
"""
