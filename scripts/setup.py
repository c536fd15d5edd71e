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
LOCK = "requirements.lock"
OTHER_BACKENDS = {"cpu": ["mlx-cuda-13"], "cuda13": ["mlx-cpu"], "metal": ["mlx-cpu", "mlx-cuda-13"]}
VIA = re.compile(r"^    #(?: via|  ) ([\w-]+)$", re.MULTILINE)
NETWORK = (
    "NewConnectionError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "nodename nor servname provided",
    "ConnectTimeout",
    "ReadTimeout",
    "Read timed out",
    "Max retries exceeded",
    "Network is unreachable",
    "Connection refused",
)
NOTHING = "from versions: none"
NO_VENV = ("ensurepip is not", "No module named ensurepip", "No module named venv")
FULL = ("No space left on device", "Disk quota exceeded")
EXAMPLES = """examples:
  python3 scripts/setup.py                      MLX's own backend: Metal on a Mac, the CPU on Linux
  python3 scripts/setup.py --backend cuda13     MLX on an NVIDIA GPU
  python3 scripts/setup.py --only share         what `python -m scripts.share` imports, without MLX and this project
"""


def fail(message):
    sys.exit("set-up failed: " + message)


def stamp(kind):
    """What .venv was made for: the interpreter, the backend or the extras alone, and the requirements."""
    return "%s %s\n%s%s" % (" ".join(sys.version.split()), kind, read("pyproject.toml"), read(LOCK))


def read(path):
    with open(path) as file:
        return file.read()


def backend_before():
    """The backend that .venv was last made with, None if it was not."""
    try:
        with open(os.path.join(VENV, "ready")) as file:
            words = file.readline().split()
    except OSError:
        return None
    return words[-1] if words and words[-1] in OTHER_BACKENDS else None


def is_ready(kind):
    try:
        return read(os.path.join(VENV, "ready")) == stamp(kind)
    except OSError:
        return False


def listed(extras):
    """The names of what extras of pyproject.toml list."""
    import tomllib  # not at the top: an older Python must come as far as to be told that it is too old

    every = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    for extra in extras:
        if extra not in every:
            fail("no extra %r in pyproject.toml; there are: %s" % (extra, ", ".join(every)))
    return names(requirement for extra in extras for requirement in every[extra])


def names(requirements):
    """The names of requirements, as the lock writes them."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", one, maxsplit=1)[0]).lower() for one in requirements}


def locked(wanted):
    """The part of the lock that brings the packages `wanted`: each with its hashes, and all that they need.

    Below each package the lock says `via` which others it is there. So one lock serves every set of extras.
    """
    entries = [(one.partition("==")[0], one) for one in re.split(r"\n(?=\w)", read(LOCK))[1:]]
    lacking = set(wanted) - {name for name, _ in entries}
    if lacking:
        fail("%s lacks %s; run `make lock`" % (LOCK, ", ".join(sorted(lacking))))
    before = None
    while wanted != before:
        before = wanted
        wanted = wanted | {name for name, one in entries if wanted & set(VIA.findall(one))}
    return "\n".join(one for name, one in entries if name in wanted)


def unreachable(text):
    """Whether that a program got no connection is why it failed: where it tried again and got one, it is not."""
    failed = "\n".join(line for line in text.splitlines() if "Retrying" not in line)
    return any(sign in (text if NOTHING in text else failed) for sign in NETWORK)


def hint(text):
    """The next step where the cause is known, of a program that failed with `text`; else empty."""
    if any(sign in text for sign in NO_VENV):
        return "; install Python's venv module (Debian: apt install python3-venv)"
    return "; make room, then `make setup` again" if any(sign in text for sign in FULL) else ""


def run(command, what):
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
        another = re.search(r"DO NOT MATCH THE HASHES.*\n +(\S+)", text)
        if another:
            fail("%s is another file than %s says; look where it came from (all of it: %s)" % (another[1], LOCK, LOG))
        if unreachable(text):
            fail("the package index cannot be reached; check the network, then `make setup` again")
        reason = (
            [line for line in text.splitlines() if "error" in line.lower()] or text.splitlines() or ["no reason given"]
        )
        if NOTHING in text:  # what pip says of an index that it cannot reach as well, if it may not try again
            fail(
                "the package index cannot be reached or lacks a package: %s (all of it: %s)" % (reason[-1].strip(), LOG)
            )
        fail("%s%s (all of it: %s)" % (reason[-1].strip(), hint(text), LOG))


def main():
    default = backend_before() or ("metal" if platform.system() == "Darwin" else "cpu")
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=sorted(OTHER_BACKENDS), default=default, help="default: " + default)
    parser.add_argument(
        "--only", nargs="+", metavar="EXTRA", help="these extras of pyproject.toml, and not the project itself"
    )
    options = parser.parse_args()
    if sys.version_info < OLDEST:
        fail(
            "Python %d.%d or newer is needed, this is %s; name one: make setup PYTHON=python3.12"
            % (*OLDEST, platform.python_version())
        )
    os.environ.setdefault("SYSTEM_VERSION_COMPAT", "0")  # or pip takes MLX's wheel for macOS 15 on 26: asv_plugin.py
    try:
        if options.only:
            kind, extras = "only " + " ".join(options.only), options.only
        else:
            kind = options.backend
            extras = ["bench", "test", kind] + ["energy"] * (kind == "cuda13")
        if not is_ready(kind):
            install(kind, extras)
        if not options.only and not os.path.exists(os.path.expanduser("~/.asv-machine.json")):
            run([venv_python(), "-m", "asv", "machine", "--yes"], "telling asv of this machine")
    except OSError as error:
        fail("%s: %s%s" % (error.filename or VENV, error.strerror, hint(str(error))))


def venv_python():
    return os.path.join(VENV, "bin", "python")


def install(kind, extras):
    python, wanted = venv_python(), os.path.join(VENV, "requirements.txt")
    requirements = locked(listed(extras))
    os.makedirs(VENV, exist_ok=True)
    open(LOG, "w").close()
    make = [sys.executable, "-m", "venv", "--clear", VENV]
    if broken(python):
        run(make, "making %s" % VENV)
    write(wanted, requirements)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    whole = kind in OTHER_BACKENDS
    if whole:
        run([*pip, "uninstall", "-y", *OTHER_BACKENDS[kind]], "checking backends")
    run([*pip, "install", "--require-hashes", "--only-binary", ":all:", "-r", wanted], "installing (about 30 s)")
    if whole:  # what builds it is in the lock
        run([*pip, "install", "--no-deps", "--no-build-isolation", "-e", "."], "installing this project")
    write(os.path.join(VENV, "ready"), stamp(kind))


def write(path, text):
    with open(path + ".partial", "w") as file:
        file.write(text)
    os.replace(path + ".partial", path)


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
