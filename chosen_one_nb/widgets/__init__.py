"""The explorer: one screen to step through a run, look at its clusters, disagree and compare.

`explorer` puts the screen together from panels, each in a file of its own; `actions` is what a click does, always a
method of `chosen_one_nb.Run`. `gallery`, `cards`, `tree` and `preview` are views in the browser (.py, .js, .css),
`figures` and `curves` the Plotly figures, `job` and `later` the threads. Nothing outside imports from here.
"""
