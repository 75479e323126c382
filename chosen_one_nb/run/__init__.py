"""How a run is kept: what `chosen_one_nb.run.run.Run` is made of, from the disk upwards.

`store` (files, checked and written whole), `decision` (choices as data, when to stop), `node` (one iteration on disk,
and the tree of them), `images` (drawing into a folder), `state` (what the parts of an open run share), `stages` (what
each stage reads and leaves behind); and the parts of `Run`: `selection`, `samples`, `attributes`, `tables`.
`cost_estimate` counts what an iteration will take.
"""
