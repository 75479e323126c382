"""How a run is kept: what `chosen_one_nb.run.Run` is made of, from the disk upwards.

`decision` (choices as data), `node` (one iteration on disk), `tree` (all of them), `drawing` and `stages`
(what each stage reads and leaves behind), `choosing` (what a person may change), `opening` (checks before
a run begins), `view` (what can be read of a run), `editor` (what a person changes), `tables` (a run as
DataFrames).
"""
