"""What a night does, from one TOML file; every key has a default, an unknown one is an error."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from benchmarks.harness import cases
from scripts import command

Then = Literal["pass", "wait", "degrade", "refuse"]
Positive = Annotated[float, msgspec.Meta(ge=0)]


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What follows when a check fails. `limit` is in the check's own unit, `minutes` what "wait" waits at most."""

    then: Then = "degrade"
    limit: float | None = None
    minutes: Positive = 20.0
    expect: str = ""
    url: str = ""


class Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One for each function in `preflight.CHECKS`, by its name."""

    power: Check = Check("refuse")
    low_power: Check = Check("refuse")
    thermal: Check = Check("wait", limit=0.0)
    load: Check = Check("wait", limit=25.0)
    disk: Check = Check("refuse", limit=5.0)
    memory: Check = Check("wait", limit=4.0)
    device: Check = Check("refuse")
    clock: Check = Check("degrade", limit=1.0)
    awake: Check = Check("degrade")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """nightly.toml; its comments say what each key means."""

    profile: str = "default"
    machine: str = ""
    lanes: list[str] = msgspec.field(default_factory=lambda: ["adamw", "mlx"])
    hours: Positive = 6.0
    remote: str = ""
    branch: str = "results"
    push: bool = True
    report: bool = True
    confirm_seconds: Positive = 300.0
    bisect_seconds: Positive = 1800.0
    alerts_a_night: Annotated[int, msgspec.Meta(ge=0)] = 4
    wait_minutes: Positive = 0.0
    memory_floor_gb: Positive = 0.5
    checks: Checks = Checks()


def read(path: Path) -> Settings:
    """The settings in `path`; what a table does not say keeps its default. Raises UserError."""
    try:
        told = msgspec.toml.decode(path.read_bytes())
        settings = msgspec.convert(over(msgspec.to_builtins(Settings()), told), Settings)
    except FileNotFoundError as error:
        raise command.UserError(f"no {path}; name another with --settings") from error
    except msgspec.ValidationError as error:
        raise command.UserError(command.one_line(f"{path}: {error}; its comments say what each key is")) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise command.UserError(command.one_line(f"{path}: {error}")) from error
    if settings.profile not in cases.PROFILES:
        choices = ", ".join(cases.PROFILES)
        raise command.UserError(f"{path}: no profile {settings.profile[:20]!r}; choose one of: {choices}")
    return settings


def over(defaults: Any, told: Any) -> Any:
    """`defaults` with what is `told` in their place, table by table."""
    if not isinstance(defaults, dict) or not isinstance(told, dict):
        return told
    return defaults | {name: over(defaults.get(name), value) for name, value in told.items()}


def with_options(settings: Settings, **told: Any) -> Settings:
    """The settings with what the command line says otherwise; None says nothing."""
    return msgspec.structs.replace(settings, **{name: value for name, value in told.items() if value is not None})
