"""Import every module of the installed lps, and compare its files with those of a source tree.

    python -I check_wheel.py SOURCE

Run it in the environment of the wheel, from another folder than the checkout.
"""

import sys
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

PARTS = ("cli", "manifests", "model", "pipeline")
KINDS = (".py", ".pyi", ".typed", ".j2", ".css", ".js")


def main() -> None:
    """Exit with a message that names what the wheel lacks, or what does not import from it."""
    source = Path(sys.argv[1])
    installed = distribution("lps-prep")
    here = Path(str(installed.locate_file("lps"))).resolve()
    listed = [file for file in installed.files or () if file.parts[0] == "lps" and file.suffix in KINDS]
    files = {PurePosixPath(*file.parts[1:]) for file in listed}
    expected = {
        PurePosixPath(path.relative_to(source))
        for part in PARTS
        for path in (source / part).rglob("*")
        if path.suffix in KINDS
    }
    if missing := sorted(map(str, expected - files)):
        sys.exit(f"not in the wheel: {', '.join(missing)}; list the package or the kind of file in setup.cfg")
    modules = sorted(file for file in files if file.suffix == ".py")
    for file in modules:
        parts = file.parent.parts if file.name == "__init__.py" else file.with_suffix("").parts
        module = import_module(".".join(("lps", *parts)))
        if here not in Path(str(module.__file__)).resolve().parents:
            sys.exit(f"{module.__name__} comes from {module.__file__}, not from the wheel")
    others = len(files) - len(modules)
    sys.stdout.write(f"wheel: {len(modules)} modules imported, {others} other files in place, from {here}\n")


if __name__ == "__main__":
    main()
