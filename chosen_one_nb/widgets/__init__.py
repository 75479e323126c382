"""The explorer: one screen to step through a run, look at its clusters, disagree and compare.

========================================  =========================================================================
`explorer`                                builds the panels and lays them out; `snapshot` draws the state as an image
`session`                                 what is shown, selected and under way, as traits
`actions`                                 what a click does: functions on a session that call methods of `Run`
`panel`                                   what panels have in common, and the controls they are built of
`stages`, `history`                       where the run stands
`map_panel`, `cards`, `gallery`           the images: as points, as clusters, one by one
`look`                                    search by a phrase, isolate, name a selection
`selection_panel`, `attribute_panel`      what is chosen, and what it shares that nobody asked for
`compare`, `settings_panel`               branches and strengths of Θ side by side; every number of the method
`export_panel`, `files`, `still`          files to take away, downloads, the picture in a saved notebook
`figures`, `images`                       Plotly figures with their colours and symbols; images, sent once
`attribute_findings`                      what is known of the attributes, shown by several panels
`status`, `tasks`                         what the screen says; the threads
`rating`                                  apart from the explorer: the screens of a user study
========================================  =========================================================================

One rule keeps them apart: a panel takes the `Session` and observes it, and nothing reads another panel. Views in the
browser have their script and style beside them (.js, .css). Nothing outside imports from here but `Explorer`.
"""
