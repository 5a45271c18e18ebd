"""Settings of the analyses: frozen and checked; each analysis names those that it depends on."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thermodl.record.errors import UserError


class AnalysisError(UserError):
    """An analysis that cannot be made of this run, with the reason."""


class NotDefinedError(AnalysisError):
    """A quantity that is not defined for this kind of training, or that its recorder was told to leave out.

    Nothing failed, and the recording as it is cannot be analyzed for it.

    Args:
        en, zh: why, in both languages; it is kept with the results.
    """

    def __init__(self, en: str, zh: str):
        super().__init__(en)
        self.zh = zh

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Errors are sent between processes, by default with what Exception was given alone."""
        return type(self), (str(self), self.zh)


class AnalysisSettings(BaseModel):
    """How runs are analyzed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segment: str = Field(
        default="auto",
        pattern=r"^(auto|\d+:\d+)$",
        description="steps to use, start:stop, or auto: the longest stationary end of the run",
    )
    windows: Annotated[int, Field(ge=2, le=400)] = Field(
        default=32, description="windows of the curves over time, at most"
    )
    lags_per_decade: Annotated[int, Field(ge=2, le=100)] = Field(default=10, description="lags in each factor of ten")
    diffusion_lag: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="lag ℓ at which D is taken from MSD(2ℓ) − MSD(ℓ); default 5/(1−μ)"
    )
    waiting_times: Annotated[int, Field(ge=1, le=64)] = Field(
        default=6, description="origins of the two-time displacement"
    )
    modes: Annotated[int, Field(ge=2, le=8)] = Field(
        default=4, description="principal directions of the motion in which entropy production is estimated"
    )
    flatness_modes: Annotated[int, Field(ge=4, le=64)] = Field(
        default=16, description="principal directions of the motion whose variance is held against their flatness"
    )


_EXPECTED = {"segment": "expected auto, or start:stop such as 1000:3000"}


def make_settings(**values: object) -> AnalysisSettings:
    """Check settings.

    Raises:
        AnalysisError: naming the setting, what came and what is allowed.
    """
    try:
        return AnalysisSettings.model_validate(values)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = ", ".join(AnalysisSettings.model_fields)
            raise AnalysisError(f"there is no setting {key!r}; expected one of {known}") from error
        # The pattern of a segment is for machines.
        expected = _EXPECTED.get(key, item["msg"].lower().replace("input should be", "expected"))
        raise AnalysisError(f"{key} = {item['input']!r}: {expected}") from error
