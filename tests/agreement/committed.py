"""What is in the repository: every committed file, and the rooms."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("benchmarks", "consent", "feature_repo", "models", "orchestration", "serving", "simulator", "troth")
ROOMS = (*PACKAGES, "dbt_project")
NOT_OURS = {".venv", "var", "target", "__pycache__", "build", "dist"}


@cache
def files() -> tuple[Path, ...]:
    """Every committed file; in a copy without history, every file that is not made by a tool."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
        return tuple(ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists())
    found = (path for path in sorted(ROOT.rglob("*")) if path.is_file())
    return tuple(path for path in found if not NOT_OURS & set(path.relative_to(ROOT).parts))


def modules() -> list[Path]:
    return [path for room in PACKAGES for path in sorted((ROOT / room).rglob("*.py"))]


def readmes() -> list[Path]:
    return [ROOT / "README.md", *sorted(path for path in ROOT.glob("*/README.md"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
