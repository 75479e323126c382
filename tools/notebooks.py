"""Execute the notebooks and keep what reads on a code host: ``python tools/notebooks.py [NOTEBOOK ...]``.

Widget state and widget views are taken out, static images and text stay. A notebook with an error is left as
it was.
"""

import base64
import io
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"


def smaller(output: nbformat.NotebookNode) -> None:
    """Keep a large image as JPEG instead of PNG, so that the notebook stays small and still shows everywhere."""
    png = output.get("data", {}).get("image/png")
    if png is None or len(png) < 60_000:
        return
    image, file = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO()
    image.save(file, "JPEG", quality=80, optimize=True)
    output.data["image/jpeg"] = base64.b64encode(file.getvalue()).decode()
    del output.data["image/png"]


def clean(notebook: nbformat.NotebookNode) -> None:
    """Take out widgets, progress and warnings; what an output also says as an image or text stays."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            for output in cell.outputs:
                smaller(output)
            cell.outputs = [output for output in cell.outputs if stays(output)]


def stays(output: nbformat.NotebookNode) -> bool:
    """Whether an output is worth keeping; a widget's view is taken out of one that has an image as well."""
    data = output.get("data", {})
    viewed = data.pop(WIDGET, None) is not None
    return output.get("name") != "stderr" and not (viewed and not {"image/png", "image/jpeg"} & set(data))


def execute(path: Path) -> float:
    """Execute one notebook in its folder and write it back; return the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    NotebookClient(
        notebook, timeout=1200, store_widget_state=False, resources={"metadata": {"path": path.parent}}
    ).execute()
    clean(notebook)
    nbformat.write(notebook, path)
    return time.perf_counter() - start


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        print(f"{path.name}: {execute(path):.0f} s", flush=True)
