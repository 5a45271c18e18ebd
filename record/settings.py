"""Settings of a run: frozen, checked, read from TOML and flags; the run id is a hash of them."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError
from .format import RUN_NAMES, flatten, is_run_name
from .schedule import Schedule, compile_schedule


class SettingsError(UserError):
    """A setting that is unknown, of the wrong type or out of range."""


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
CountOrOff = Annotated[int, Field(ge=0)]
Part = Annotated[float, Field(gt=0, lt=1)]
_BYTES = re.compile(r"(\d+(?:\.\d*)?(?:e\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
ImageSize = Annotated[int, Field(ge=1, le=1024)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _check_schedule(value: Schedule) -> Schedule:
    compile_schedule(value)
    return value


def _read_bytes(value: Any) -> Any:
    """2000000000, 2e9, "2GB" or "1.5 GiB" as a whole number of bytes; anything else as it is."""
    if isinstance(value, str) and (match := _BYTES.fullmatch(value.strip())):
        number, letter, binary = match.groups()
        value = float(number) * (1024 if binary else 1000) ** " KMGT".index((letter or " ").upper())
    elif isinstance(value, str):
        raise ValueError("expected a number of bytes, or one with a unit such as 500MB, 2GB or 1.5GiB")
    return int(value) if isinstance(value, float) and 1 <= value < 2**62 else value


Bytes = Annotated[int, Field(ge=1), BeforeValidator(_read_bytes)]
Due = Annotated[Schedule, AfterValidator(_check_schedule)]
"""every n steps (0: never), "log:10", "burst:8/200", or a list of steps; see `schedule`"""


_LATER = ("products_every", "snapshot_tolerance", "curvature_every", "per_sample_every", "max_overhead", "max_bytes")
"""settings of the recorder that came after the first run ids"""


class RecorderSettings(BaseModel):
    """What is recorded and how often; 0 switches a channel off.

    A cadence is a number of steps, "log:10" (per factor of ten), "burst:8/200" (8 consecutive every 200), or a list
    of steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    products_every: Due = Field(
        default=1,
        description="when to take the exact inner products and the sketches; analyses need consecutive steps, such as "
        "burst:500/5000. Clocks, hyper-parameters and what is logged are kept of every step",
    )
    probe_every: Due = Field(default=50, description="when to take an independent-batch probe")
    curvature_every: Due = Field(
        default=0,
        description="when to take the curvature along the velocity, vᵀHv, on a batch of the probe, which it needs",
    )
    per_sample_every: Due = Field(
        default=0,
        description="when to take the noise of single samples' gradients, for models without BatchNorm; dear, see "
        "--dry-run",
    )
    sketch_size: CountOrOff = Field(
        default=256,
        description="numbers kept of each group's displacement, gradient and update; 0 is none, and with them go all "
        "analyses but temperature, dissipation, noise and events",
    )
    sketch_seed: CountOrOff = Field(default=0, description="seed of the sketch's random signs")
    moments_window: CountOrOff = Field(
        default=0, description="steps over which mean and second moment of each gradient element are taken; 0 is never"
    )
    snapshot_every: Due = Field(default=200, description="when to keep all parameters")
    snapshot_tolerance: NonNegative = Field(
        # Nothing should be recorded less exactly than it was without being asked; 200 steps apart snapshots are few.
        default=0.0,
        description="largest error of a snapshot, in units of a layer's rms displacement since the one before; "
        "0 is lossless",
    )
    flush_seconds: Positive = Field(default=5.0, description="longest time that a step waits in memory")
    max_overhead: Positive | None = Field(
        default=None,
        description="time that recording may take, over what training takes, such as 0.05; kept by leaving out all "
        "that is not taken at every step, so that which of them there are depends on the clock",
    )
    max_bytes: Bytes | None = Field(
        default=None,
        description="size of the recording on disk, a number or 500MB, 2GB; kept by leaving out all that "
        "is not taken at every step, spread over the training where its length is known",
    )


Sampling = Literal["shuffle", "replacement"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)


class RunSettings(BaseModel):
    """One built-in training run and its recording."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="cnn", description="cnn, mlp, a torchvision name, or package.module:function")
    data: str = Field(
        default="fashion-mnist-10k",
        description="fashion-mnist-10k, mnist, fashion-mnist, cifar10, cifar100, a folder or .zip of class folders, "
        "a .npz file, or package.module:function",
    )
    data_root: str | None = Field(
        default=None, description="folder that holds the data set's files, or receives the download or what a zip holds"
    )
    image_size: ImageSize | None = Field(
        default=None, description="resize the images to this width and height; default: as they are"
    )
    test_fraction: Part = Field(
        default=0.2, description="part of each class kept for testing, for class folders without train/ and test/"
    )
    split_seed: CountOrOff = Field(default=0, description="which images that part holds; not changed by seed")
    augmentation: Literal["none", "flip", "crop-flip"] = Field(
        default="none",
        description="random changes of the training images: mirrored left-right; also moved by up to an eighth",
    )
    steps: Count = Field(default=3000, description="optimizer steps")
    batch_size: Count = Field(default=64, description="examples per step")
    accumulate: Count = Field(
        default=1, description="equal micro-batches that a step's batch is computed in, to need less memory"
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32", description="of the forward pass; bf16 is autocast, with parameters in float32"
    )
    sampling: Sampling = Field(
        default="shuffle", description="shuffle: every example once per epoch; replacement: independent draws"
    )
    optimizer: str = Field(default="SGD", description="a class of torch.optim, such as SGD, Adam or AdamW")
    learning_rate: Positive = Field(
        default=0.05, description="learning rate η; of another optimizer than SGD 0.001 by default"
    )
    momentum: Fraction = Field(default=0.9, description="momentum μ (SGD only)")
    dampening: Fraction = Field(default=0.0, description="dampening ν (SGD only)")
    nesterov: bool = Field(default=False, description="Nesterov momentum (SGD only)")
    weight_decay: NonNegative = Field(default=0.005, description="L2 penalty; for AdamW decoupled")
    schedule: Literal["constant", "cosine", "warmup-cosine", "step"] = Field(
        default="constant",
        description="learning rate over the run; cosine: to 0; warmup-cosine: up over the first 5 % of the steps, then "
        "to 0; step: a tenth from 1/2 on, a hundredth from 3/4 on",
    )
    clip_norm: Positive | None = Field(default=None, description="clip the gradient to this norm")
    seed: Seed = Field(default=0, description="seed of weights, batches, augmentation and probes")
    device: str = Field(default="auto", description="auto, cpu, cuda or mps")
    evaluate_every: Due = Field(default=200, description="when to evaluate on train and test data")
    checkpoint_every: Due = Field(
        default=500, description="when to keep what --resume goes on from, also at Ctrl-C; 0: never, not even then"
    )
    recorder: RecorderSettings = RecorderSettings.model_validate({})

    @model_validator(mode="before")
    @classmethod
    def _know_the_optimizer(cls, table: Any) -> Any:
        if isinstance(table, dict) and "learning_rate" not in table:
            return {**table, "learning_rate": default_learning_rate(table.get("optimizer", "SGD"))}
        return table

    @model_validator(mode="after")
    def _check_micro_batches(self) -> "RunSettings":
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate = {self.accumulate} does not divide batch_size = {self.batch_size}, the batch of the "
                "whole step; the mean over unequal micro-batches would not be that of the batch"
            )
        return self

    def run_id(self) -> str:
        """Hash of the sorted settings: equal settings give equal ids, whatever order or file they came from.

        A setting that came later counts only where it is not at its default, so that older runs keep their ids.
        """
        defaults = {name: RecorderSettings.model_fields[name].default for name in _LATER}
        later = {name for name, default in defaults.items() if getattr(self.recorder, name) == default}
        text = json.dumps(self.model_dump(exclude={"recorder": later}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def name_differences(attributes: Mapping[str, Any], settings: RunSettings) -> str:
    """In words, which settings of a recording are others: `learning_rate is 0.05 there, and 0.2 here`."""
    stored = {**attributes.get("settings", {}), "recorder": attributes.get("recorder")}
    there, here = (flatten(table) for table in (stored, settings.model_dump(mode="json")))
    names = [name for name in here if there.get(name) != here[name]]
    return (
        ", ".join(f"{name} is {there.get(name)} there, and {here[name]} here" for name in names) or "an early recording"
    )


def default_learning_rate(optimizer: str) -> float:
    """0.05 of SGD; 0.001 of others, whose steps do not shrink with the gradient and diverge with that."""
    return 0.05 if optimizer == "SGD" else 0.001


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a settings file.

    Raises:
        SettingsError: if the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from error


def make_settings(table: dict[str, Any], source: str = "settings") -> RunSettings:
    """Check a nested table of settings.

    Raises:
        SettingsError: naming each wrong key or value, what came and what is allowed.
    """
    try:
        return RunSettings.model_validate(table)
    except ValidationError as error:
        raise SettingsError("\n".join(f"{source}: {_explain(item)}" for item in error.errors())) from error


def assign(table: dict[str, Any], assignment: str) -> None:
    """Apply one `key=value` (or `recorder.key=value`) to a table; the value is read as TOML, else as text.

    Raises:
        SettingsError: if there is no `=`.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise SettingsError(f"--set expects key=value, such as recorder.probe_every=10; got {assignment!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise SettingsError(f"--set {assignment}: {parent} holds a value, not a table")
    table[last] = value


def check_name(name: str) -> str:
    """A run name that is a plain file name.

    Raises:
        SettingsError: if it is not.
    """
    if not is_run_name(name):
        raise SettingsError(f"{name!r} cannot be a run's name: expected {RUN_NAMES}")
    return name


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        model = RecorderSettings if item["loc"][0] == "recorder" else RunSettings
        return f"unknown setting {key!r}{_suggest(str(item['loc'][-1]), model)}"
    if not key:  # of several settings together
        return str(item["ctx"]["error"]) if "ctx" in item else item["msg"]
    return f"{key} = {item['input']!r}: {_plainly(item['msg'])}{_meaning(item['loc'])}"


def _plainly(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _meaning(location: Sequence[int | str]) -> str:
    model, names = RunSettings, [str(part) for part in location]
    if names[0] == "recorder":
        model, names = RecorderSettings, names[1:]
    field = model.model_fields.get(names[0]) if names else None
    return f" ({field.description})" if field and field.description else ""


def _suggest(key: str, model: type[BaseModel]) -> str:
    names = list(model.model_fields)
    close = get_close_matches(key, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(names)}"
