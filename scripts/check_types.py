"""Check the types of the package as a user's type checker sees it: `python scripts/check_types.py [mypy options]`.

Five folders of the repo are one installed package, and type checkers do not run the import hooks of an editable
install. So this lays out a view of symlinks under build/, where `tinytorch/ir` is the folder `ir`, checks
that, and reports every finding under the name that the file has in the repo.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VIEW = ROOT / "build" / "view"


def lay_out() -> list[str]:
    """Make the view anew; return the folders that the package map places inside tinytorch/, e.g. ["ir", "passes"]."""
    folders: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    mapped = [folder for name, folder in folders.items() if name.count(".") == 1]
    shutil.rmtree(VIEW, ignore_errors=True)
    (VIEW / "tinytorch").mkdir(parents=True)
    for path in [*(ROOT / "tinytorch").iterdir(), *(ROOT / folder for folder in mapped)]:
        (VIEW / "tinytorch" / path.name).symlink_to(path)
    return mapped


def main() -> int:
    """Run mypy on the view and return its exit status."""
    mapped = lay_out()
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    mypy = [sys.executable, "-m", "mypy", *options, "-p", "tinytorch", *sys.argv[1:]]
    run = subprocess.run(mypy, cwd=VIEW, stdout=subprocess.PIPE, text=True)
    print(re.sub(rf"^tinytorch/({'|'.join(mapped)})/", r"\1/", run.stdout, flags=re.MULTILINE), end="")
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
