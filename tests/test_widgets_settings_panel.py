"""The table of settings and what an iteration with them takes."""

pytest_plugins = ["helpers.explorers"]


def test_settings_show_symbols_and_sources(explorer):
    assert "d_min-c" in explorer.settings.table.value
    assert "class='is-changed'" in explorer.settings.table.value


def test_what_an_iteration_takes_is_counted_when_asked(explorer, monkeypatch):
    asked = []
    count = "chosen_one_nb.run.cost_estimate.estimate_cost"
    monkeypatch.setattr(count, lambda models, settings: asked.append(settings) or "9 GB <peak>")
    assert explorer.settings.plan.value == ""
    explorer.settings.count.click()
    explorer.session.background.settle()
    explorer.session.refresh()
    assert explorer.settings.plan.value == "<pre>9 GB &lt;peak&gt;</pre>"
    assert asked == [explorer.node.settings]


def test_why_it_cannot_be_counted_is_said(explorer, monkeypatch):
    def fail(models, settings):
        raise OSError("no room")

    monkeypatch.setattr("chosen_one_nb.run.cost_estimate.estimate_cost", fail)
    explorer.settings.count.click()
    explorer.session.background.settle()
    explorer.session.refresh()
    assert explorer.settings.plan.value == "<p>This cannot be counted: no room</p>"
