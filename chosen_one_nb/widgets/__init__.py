"""The explorer: one screen to step through a run, look at its clusters, disagree and compare.

`explorer` lays out panels, each in a file of its own; what they share is in `session`, what a click does in `actions`.
`gallery`, `cards`, `tree` and `preview` are views in the browser (.py, .js, .css), `map_figure` and `curves` figures,
drawn by Plotly through `plotly_figure`; `tasks` and `background` hold the threads. Nothing outside imports from here.
"""
