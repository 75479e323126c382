"""Write constraints.txt from the versions installed here: ``python tools/constraints.py > constraints.txt``.

Local version marks (``+cpu``) are cut, so that the same file serves CPU and CUDA builds of PyTorch.
"""

from importlib.metadata import distributions

NOT_OURS = {"pip", "setuptools", "wheel", "chosen-one-nb"}

found = {d.metadata["Name"].lower().replace("_", "-"): d.version.split("+")[0] for d in distributions()}
print("\n".join(f"{name}=={version}" for name, version in sorted(found.items()) if name not in NOT_OURS))
