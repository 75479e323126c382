"""A real JupyterLab in Debian's Chromium, for tests that must see what a person sees."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

CHROMIUM = next(
    (
        path
        for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser", shutil.which("google-chrome") or "")
        if path and Path(path).exists()
    ),
    "",
)
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-first-run",
    "--disable-extensions",
    "--disable-gpu",
]
KERNEL_READY = """() => {
  const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300
"""Seconds that anything may take: a busy machine is no failure. What is awaited mostly comes within one."""


def why_not() -> str:
    """Say why no browser can be driven here; empty when one can."""
    if not CHROMIUM:
        return "no Chromium here (looked for /usr/bin/chromium and google-chrome): apt install chromium"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "Playwright is not installed: pip install playwright"
    return ""


def write_notebook(path: Path, cells: list[str]) -> Path:
    """Write a notebook of code cells."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve a folder with JupyterLab; give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = folder / ".jupyter-home"
    environment = {
        **os.environ,
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home),
        "OMP_NUM_THREADS": "1",
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True, exist_ok=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--port={port}",
        "--ServerApp.token=",
        "--ServerApp.password=",
        f"--ServerApp.root_dir={folder}",
        "--allow-root",
        "--ServerApp.port_retries=0",
        "--LabApp.expose_app_in_browser=True",
    ]
    with open(folder / "lab.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
        try:
            _await(f"http://127.0.0.1:{port}/api/status", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:  # a kernel at work holds the server up
                process.kill()
                process.wait(20)


def _await(address: str, process: subprocess.Popen, seconds: float = PATIENCE) -> None:
    for _ in range(int(seconds * 4)):
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            if process.poll() is not None:
                raise RuntimeError("JupyterLab ended at once; see lab.log") from None
            time.sleep(0.25)
    raise TimeoutError(f"JupyterLab did not answer within {seconds} seconds")


@contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


class Notebook:
    """A notebook open in JupyterLab.

    Parameters
    ----------
    chromium : playwright Browser
    address : str
        The server's.
    name : str
        The notebook's path under the served folder.
    """

    def __init__(
        self,
        chromium: Any,
        address: str,
        name: str,
        *,
        dark: bool = False,
        width: int = 1560,
        height: int = 1200,
    ) -> None:
        self.page = chromium.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(1000 * PATIENCE)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{address}/lab/workspaces/{Path(name).stem}/tree/{name}?reset")
        self.page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
        self.page.wait_for_function(KERNEL_READY)
        if dark:
            self.command("apputils:change-theme", theme="JupyterLab Dark")

    def close(self) -> None:
        """Shut the kernel down and close the page."""
        self.page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")
        self.page.close()

    def command(self, name: str, **arguments: Any) -> None:
        """Run one of Lab's commands, such as ``notebook:run-all-cells``."""
        self.page.evaluate("([name, args]) => { jupyterapp.commands.execute(name, args); }", [name, arguments])

    def do(self, name: str) -> None:
        """Run one of Lab's commands and wait until it is done."""
        self.page.evaluate("async (name) => { await jupyterapp.commands.execute(name); }", name)

    def run_all(self) -> None:
        """Run all cells and wait until the last is done."""
        self.do("notebook:run-all-cells")

    def restart(self) -> None:
        """Restart the kernel and wait until it is there again."""
        self.page.evaluate(
            "async () => { await jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }"
        )
        self.page.wait_for_function(KERNEL_READY)

    def wait_idle(self, seconds: float = PATIENCE) -> None:
        """Wait until no cell is running."""
        self.page.wait_for_function(
            "() => ![...document.querySelectorAll('.jp-InputArea-prompt')].some(p => p.textContent.includes('[*]'))",
            timeout=seconds * 1000,
        )
