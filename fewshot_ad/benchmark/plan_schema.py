"""What a plan's file may say, as pydantic models; `fewshot-ad benchmark schema` publishes them as JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from fewshot_ad.documents.fields import Entry
from fewshot_ad.documents.naming import unknown


def _text_of_number(value: Any) -> Any:
    """YAML reads a name of digits as a number; whoever writes `categories: [1, 2]` means names."""
    return str(value) if type(value) is int else value


def _empty_if_none(value: Any) -> Any:
    return {} if value is None else value


def _list_of_one(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _setting(value: Any) -> Any:
    """A bare name is a setting without options."""
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, dict) and len(value) == 1:
        return {name: {} if options is None else options for name, options in value.items()}
    return value


Name: TypeAlias = Annotated[str, BeforeValidator(_text_of_number)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
# No dataset has as many images of one category.
Shots: TypeAlias = Annotated[int, Field(ge=0, le=1_000_000)]
Size: TypeAlias = Annotated[int, Field(ge=1)]


class MethodEntry(Entry):
    """One method: a baseline of the zoo with some of its hyper-parameters set."""

    baseline: Name | None = Field(None, description="Name in the zoo. Default: the method's own name.")
    configuration: Literal["package", "published"] = Field(
        "package",
        description="Where hyper-parameters come from that `options` leaves out: this package's defaults, or the "
        "paper; its backbone needs `weights` among the options (a file, or timm, which fetches them).",
    )
    options: Annotated[dict[str, Any], BeforeValidator(_empty_if_none)] = Field(
        default_factory=dict, description="Hyper-parameters other than those, see `fewshot-ad zoo NAME`."
    )


class DatasetEntry(Entry):
    """One dataset: a local copy and the categories of it that take part."""

    layout: Name | None = Field(None, description="Name of its reader. Default: the dataset's own name.")
    root: Name = Field(description="Folder of the local copy, relative to the plan's folder.")
    categories: list[Name] = Field(default_factory=list, description="Those that take part. Default: all of the copy.")
    support: Name | None = Field(None, description="Text file of fixed support lists, relative to the plan's folder.")

    @field_validator("categories")
    @classmethod
    def _different(cls, categories: list[str]) -> list[str]:
        if len(set(categories)) < len(categories):
            raise ValueError(f"expected a list of different categories, got {categories!r}")
        return categories


class NoOptions(Entry):
    """A setting without options."""


class NoisyEntry(Entry):
    """Some of the support images are defective."""

    noise: float = Field(gt=0, lt=1, description="Share of defective support images.")


class FewAbnormalEntry(Entry):
    """Methods that learn from defects get a few."""

    count: Size = Field(description="Labeled defective images of each category.")
    defect_type: Name | None = Field(None, description="Type of defect that they show. Default: any.")


class ContinualEntry(Entry):
    """One category after the other."""

    replay: Count = Field(0, description="Images of each earlier category that are in the support set again.")


class TransferEntry(Entry):
    """Another dataset first."""

    source: Name = Field(description="Name of the dataset that a transferred model comes from.")


def _or_a_bare_name(schema: dict[str, Any]) -> None:
    entry = {key: schema.pop(key) for key in ("type", "properties", "additionalProperties")}
    # A name alone is enough of those whose options have defaults.
    schema["anyOf"] = [{"enum": ["few-shot", "unified", "continual", "one-category"]}, entry]


class SettingEntry(Entry):
    """One setting: its name, or its name with its options."""

    model_config = ConfigDict(json_schema_extra=_or_a_bare_name)

    few_shot: NoOptions | None = Field(None, alias="few-shot")
    unified: NoOptions | None = None
    noisy: NoisyEntry | None = None
    continual: ContinualEntry | None = None
    transfer: TransferEntry | None = None
    one_category: NoOptions | None = Field(None, alias="one-category")
    few_abnormal: FewAbnormalEntry | None = Field(None, alias="few-abnormal")

    @model_validator(mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        names = [field.alias or name for name, field in cls.model_fields.items()]
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError(f"expected one of {', '.join(names)}, or one of them with its options, got {value!r}")
        if "full-shot" in value:
            raise ValueError("got 'full-shot', which is no setting here. For full-shot give shots: [full]")
        (name,) = value
        if name not in names:
            raise ValueError(unknown(str(name), names, "a setting"))
        return value


Setting: TypeAlias = Annotated[SettingEntry, BeforeValidator(_setting)]
# A plan with one setting needs no list.
SettingsAsWritten: TypeAlias = Annotated[list[Setting], Field(min_length=1)] | Setting


class ProtocolEntry(Entry):
    """How every method is measured."""

    test_limit: Size | None = Field(
        None, description="The most good and the most defective test images per category. Default: all."
    )
    pixel_side: Size | None = Field(
        256, le=8192, description="Side in pixels of the square to which maps are scaled; null: the image's own size."
    )
    bootstrap: Count = Field(1000, le=1_000_000, description="Resamples for the 95% intervals; 0 = none.")
    overlays: Count = Field(4, description="Pictures of single results per category.")


class PlanEntry(Entry):
    """A plan of `fewshot-ad benchmark run`: methods x datasets x categories x shots x draws."""

    name: Name = Field("Benchmark", description="Title of the report.")
    methods: dict[str, Annotated[MethodEntry | None, BeforeValidator(_empty_if_none)]] = Field(
        min_length=1, description="The methods by name."
    )
    datasets: dict[str, DatasetEntry] = Field(min_length=1, description="The datasets by name.")
    shots: list[Shots | Literal["full"]] = Field(
        [2, 4, 8],
        min_length=1,
        description="Numbers of good images, and `full`; 0 for settings that transfer and methods that are zero-shot.",
    )
    draws: int = Field(3, ge=1, le=1000, description="Support draws; for `full`, as many seeds.")
    settings: Annotated[list[Setting], BeforeValidator(_list_of_one, json_schema_input_type=SettingsAsWritten)] = Field(
        ["few-shot"], min_length=1, validate_default=True, description="Which images a method is fitted on."
    )
    # Numbers of draws are added to it, and torch takes no more.
    seed: int = Field(0, ge=0, lt=2**32 - 1000, description="Of everything random.")
    protocol: Annotated[ProtocolEntry, BeforeValidator(_empty_if_none)] = Field(
        default_factory=lambda: ProtocolEntry.model_validate({}), description="How every method is measured."
    )

    @field_validator("shots")
    @classmethod
    def _different(cls, shots: list[int | str]) -> list[int | str]:
        if len(set(shots)) < len(shots):
            raise ValueError(f"expected different whole numbers and `full`, got {shots!r}")
        return shots
