"""Make .venv with everything the project needs. Nothing of ours is imported: it runs before anything is there."""

import argparse
import os
import platform
import re
import subprocess
import sys

OLDEST = (3, 11)
VENV = ".venv"
LOG = os.path.join(VENV, "setup.log")
OTHER_BACKENDS = {"cpu": ["mlx-cuda-13"], "cuda13": ["mlx-cpu"], "metal": ["mlx-cpu", "mlx-cuda-13"]}
NETWORK = (
    "NewConnectionError",
    "Temporary failure in name resolution",
    "Could not find a version",
    "ConnectTimeout",
    "No matching distribution",
    "Max retries exceeded",
    "Network is unreachable",
    "Connection refused",
)
EXAMPLES = """examples:
  python3 scripts/setup.py                      MLX's own backend: Metal on a Mac, the CPU on Linux
  python3 scripts/setup.py --backend cuda13     MLX on an NVIDIA GPU
"""


def fail(message):
    sys.exit("set-up failed: " + message)


def stamp(backend):
    """What .venv was made for: the interpreter, the backend and the requirements."""
    with open("pyproject.toml") as file:
        return "%s %s\n%s" % (" ".join(sys.version.split()), backend, file.read())


def backend_before():
    """The backend that .venv was last made with, None if it was not."""
    try:
        with open(os.path.join(VENV, "ready")) as file:
            words = file.readline().split()
    except OSError:
        return None
    return words[-1] if words and words[-1] in OTHER_BACKENDS else None


def is_ready(backend):
    try:
        with open(os.path.join(VENV, "ready")) as file:
            return file.read() == stamp(backend)
    except OSError:
        return False


def run(command, what, next_step):
    """Run `command` with its output in LOG, a dot now and then for progress; one line and the end if it fails."""
    print("%s " % what, end="", flush=True)
    with open(LOG, "a+") as log:
        start = log.tell()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        for line in process.stdout or ():
            log.write(line)
            if re.match("(Collecting|  Downloading|Installing)", line):
                print(".", end="", flush=True)
        code = process.wait()
        log.seek(start)
        text = log.read()
    print()
    if code:
        if any(sign in text for sign in NETWORK):
            fail("the package index cannot be reached or lacks a package; check the network, then `make setup` again")
        reason = [line for line in text.splitlines() if "rror" in line] or text.splitlines() or ["no reason given"]
        fail("%s; %s (all of it: %s)" % (reason[-1].strip(), next_step, LOG))


def main():
    default = backend_before() or ("metal" if platform.system() == "Darwin" else "cpu")
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=sorted(OTHER_BACKENDS), default=default, help="default: " + default)
    backend = parser.parse_args().backend
    if sys.version_info < OLDEST:
        fail(
            "Python %d.%d or newer is needed, this is %s; name one: make setup PYTHON=python3.12"
            % (*OLDEST, platform.python_version())
        )
    os.environ.setdefault("SYSTEM_VERSION_COMPAT", "0")  # or pip takes MLX's wheel for macOS 15 on 26: asv_plugin.py
    try:
        if not is_ready(backend):
            install(backend)
        if not os.path.exists(os.path.expanduser("~/.asv-machine.json")):
            run([venv_python(), "-m", "asv", "machine", "--yes"], "telling asv of this machine", "run `asv machine`")
    except OSError as error:
        fail("%s: %s; make room or mend it, then run `make setup` again" % (error.filename or VENV, error.strerror))


def venv_python():
    return os.path.join(VENV, "bin", "python")


def install(backend):
    python = venv_python()
    os.makedirs(VENV, exist_ok=True)
    open(LOG, "w").close()
    make = [sys.executable, "-m", "venv", "--clear", VENV]
    if broken(python):
        run(make, "making %s" % VENV, "install Python's venv module (Debian: apt install python3-venv)")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "uninstall", "-y", *OTHER_BACKENDS[backend]], "checking backends", "remove .venv and run again")
    extras = ".[bench,test,%s%s]" % (backend, ",energy" if backend == "cuda13" else "")
    run([*pip, "install", "-e", extras], "installing (about 30 s)", "remove .venv and run again")
    partial = os.path.join(VENV, "ready.partial")
    with open(partial, "w") as file:
        file.write(stamp(backend))
    os.replace(partial, os.path.join(VENV, "ready"))


def broken(python):
    """Whether .venv has no Python that runs, or one of another version."""
    try:
        found = subprocess.check_output([python, "-c", "import sys; print(sys.version)"], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return True
    return found.decode().strip() != sys.version.strip()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nset-up interrupted; run `make setup` again, it goes on where it was")
