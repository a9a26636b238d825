"""What a station is told: one YAML file, or the same as arguments, every mistake named with its field and line."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fewshot_ad.documents.fields import Entry, check
from fewshot_ad.documents.reading import Document
from fewshot_ad.documents.yaml_text import read_yaml
from fewshot_ad.errors import StationError

DEFAULT_PORT = 8470
KeepPictures: TypeAlias = Literal["all", "rejects", "none"]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86400)]


def _text_of_number(value: Any) -> Any:
    """YAML reads a name of digits as a number; whoever writes `station: 3` means the name."""
    return str(value) if type(value) is int else value


Name: TypeAlias = Annotated[str, BeforeValidator(_text_of_number), Field(min_length=1, max_length=100)]
File: TypeAlias = Annotated[str, Field(min_length=1, max_length=4096)]


class ListenEntry(Entry):
    """Where the station listens."""

    host: Name = Field("127.0.0.1", description="Address. Any but this computer's own needs `token_file`.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(DEFAULT_PORT, description="0 takes one that is free.")
    token_file: File | None = Field(None, description="File whose first line is what callers must know.")
    names: list[Name] = Field(
        default_factory=list, description="Names by which browsers may call this computer, besides its addresses."
    )

    @property
    def is_local(self) -> bool:
        """Whether only this computer can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class PicturesEntry(Entry):
    """Which images are kept."""

    folder: File = Field("pictures", description="Where they lie.")
    keep: KeepPictures = Field("rejects", description="Of which verdicts: all, all but good ones, or none.")
    quota_mb: Annotated[float, Field(gt=0)] = Field(
        5000.0, description="What they may take; beyond, the oldest of good parts go first, then the oldest."
    )


class LimitsEntry(Entry):
    """What is refused, so that one caller cannot stop the line."""

    image_mb: Annotated[float, Field(gt=0, le=1000)] = Field(32.0, description="Bytes of one image.")
    megapixels: Annotated[float, Field(gt=0, le=1000)] = Field(100.0, description="Pixels of one image.")
    images: Annotated[int, Field(ge=2, le=900)] = Field(200, description="Images of one enrollment or check.")
    upload_mb: Annotated[float, Field(gt=0, le=100_000)] = Field(500.0, description="Bytes of all of them together.")
    queue: Annotated[int, Field(ge=1, le=1000)] = Field(
        8, description="Inspections that may wait; further ones are told to come again (503)."
    )
    upload_s: Seconds = Field(20.0, description="How long sending an image may take.")
    inspection_s: Seconds = Field(60.0, description="How long an inspection may wait and take.")


class FolderEntry(Entry):
    """A folder that a camera or another program puts images into."""

    path: File = Field(description="The folder that is watched.")
    product: Name | None = Field(None, description="What the images show. Default: the catalog finds out.")
    done: File | None = Field(
        None, description="Where images go once they are judged, into good/, reject/, ... Default: PATH/done."
    )
    every_s: Seconds = Field(0.2, description="Seconds between two looks.")


class CameraEntry(Entry):
    """A camera, or what stands in for one."""

    device: Annotated[int | str, Field()] = Field(
        description="Number of the camera, a video file or stream, or `genicam:SERIAL` (extra `genicam`)."
    )
    product: Name | None = Field(None, description="What the images show. Default: the catalog finds out.")
    name: Annotated[str, BeforeValidator(_text_of_number), Field(pattern=r"^[^/?#\\]{1,100}$")] | None = Field(
        None, description="What it is called, without slashes. Default: the end of `device`."
    )
    every_s: Seconds = Field(1.0, description="Seconds between two images that are inspected.")
    producer: File | None = Field(None, description="The GenTL producer (.cti) of a GenICam camera.")


def camera_name(entry: CameraEntry) -> str:
    """What a camera is called: as it was named, or by its device, without what is secret or does not fit an address."""
    if entry.name is not None:
        return entry.name
    if isinstance(entry.device, int):
        return str(entry.device)
    parts = urlsplit(entry.device)
    if parts.scheme in ("", "genicam") or not parts.hostname:
        return re.split(r"[/\\]", entry.device)[-1] or "camera"
    # Passwords stand before the host, or in the query.
    return "-".join(filter(None, [parts.hostname, parts.path.strip("/").replace("/", "-")]))


class MqttEntry(Entry):
    """A broker that every record is published to."""

    host: Name = Field("127.0.0.1", description="Of the broker.")
    port: Port = Field(1883, description="Of the broker; 8883 is usual with TLS.")
    topic: Name = Field("fewshot-ad", description="Records go to TOPIC/STATION/verdicts, its state to .../state.")
    username: Name | None = Field(None, description="If the broker asks for one.")
    password_file: File | None = Field(None, description="File whose first line is the password.")
    tls: bool = Field(False, description="Whether the connection is encrypted, by the system's certificates.")
    ca_file: File | None = Field(None, description="Certificate of the plant's own authority, for TLS.")


class OpcuaEntry(Entry):
    """An OPC UA server that a control system reads verdicts from."""

    host: Name = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(4840, description="Port to listen on.")
    username: Name | None = Field(None, description="Whom to let in. Required where `host` is not this computer's own.")
    password_file: File | None = Field(None, description="File whose first line is the password.")
    identity_file: File | None = Field(
        None,
        description="Key and certificate that clients know the server by, made where there are none. Default: beside "
        "the journal, with the ending .opcua.pem.",
    )


class ModbusEntry(Entry):
    """A Modbus TCP server for a PLC: the verdict as coils and registers, and a coil that triggers an inspection."""

    host: Name = Field("127.0.0.1", description="Address to listen on; Modbus knows no passwords.")
    port: Port = Field(5020, description="Port to listen on; 502 is usual, and needs rights.")
    camera: Name | None = Field(None, description="Name of the camera that the trigger takes an image from.")


class WebhookEntry(Entry):
    """An address that every record is sent to."""

    url: File = Field(description="http:// or https:// address that takes a POST of JSON.")
    name: Name | None = Field(None, description="What it is called. Default: its host.")
    secret_file: File | None = Field(
        None, description="File whose first line signs each request (HMAC-SHA256, header X-Fewshot-Ad-Signature)."
    )
    timeout_s: Seconds = Field(10.0, description="How long an answer may take.")
    verdicts: list[Literal["good", "review", "anomalous", "not_inspectable", "unreadable"]] = Field(
        default_factory=list, description="Only records with these. Default: all."
    )

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected an address that begins with http:// or https://, got {url!r}")
        return url


class ReplicaEntry(Entry):
    """A database that this station's journal is copied to, with those of others."""

    url_file: File | None = Field(None, description="File whose first line is the database's URL, with its password.")
    url: File | None = Field(None, description="The same here: postgresql+psycopg://user@host/name, or sqlite:///FILE.")
    every_s: Seconds = Field(5.0, description="Seconds between two looks at what is new.")

    @model_validator(mode="after")
    def _one(self) -> ReplicaEntry:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("expected url or url_file, got " + ("both" if self.url else "neither"))
        return self


class StoreEntry(Entry):
    """Where products come from that another station has taught."""

    url: File = Field(description="A folder, or a URL such as s3://bucket/parts (extra s3).")
    every_s: Seconds = Field(300.0, description="Seconds between two looks at what is new.")


class StationSettings(Entry):
    """All that a station is told."""

    station: Name = Field("station", description="Its name in every record.")
    catalog: File = Field("products", description="Folder of the products, .fsad files.")
    baselines: list[File] = Field(
        default_factory=list, description="Folders of fitted baselines, which judge the products they are named after."
    )
    journal: File = Field("journal.db", description="The journal's file, or the URL of a database.")
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(None, description="CPU threads. Default: all.")
    memory_mb: Annotated[float, Field(ge=1)] = Field(700.0, description="What loaded products may take.")
    log: Literal["text", "json"] = Field("text", description="Form of the log on standard error.")
    listen: ListenEntry = Field(default_factory=lambda: ListenEntry.model_validate({}))
    pictures: PicturesEntry = Field(default_factory=lambda: PicturesEntry.model_validate({}))
    limits: LimitsEntry = Field(default_factory=lambda: LimitsEntry.model_validate({}))
    folders: list[FolderEntry] = Field(default_factory=list)
    cameras: list[CameraEntry] = Field(default_factory=list)
    mqtt: MqttEntry | None = None
    opcua: OpcuaEntry | None = None
    modbus: ModbusEntry | None = None
    webhooks: list[WebhookEntry] = Field(default_factory=list)
    replica: ReplicaEntry | None = None
    store: StoreEntry | None = None

    @model_validator(mode="after")
    def _consistent(self) -> StationSettings:
        if not self.listen.is_local and self.listen.token_file is None:
            raise ValueError(
                f"expected listen.token_file, since {self.listen.host} can be reached from other computers, got none. "
                "Write a long random word into a file and name it, or listen on 127.0.0.1"
            )
        names = [webhook.name or urlsplit(webhook.url).hostname or "" for webhook in self.webhooks]
        if len(set(names)) < len(names):
            raise ValueError(f"expected webhooks of different names, got {', '.join(names)}. Give each a `name`")
        cameras = [camera_name(camera) for camera in self.cameras]
        if len(set(cameras)) < len(cameras):
            raise ValueError(f"expected cameras of different names, got {', '.join(cameras)}. Give each a `name`")
        if self.modbus is not None and self.modbus.camera is not None and self.modbus.camera not in cameras:
            raise ValueError(
                f"expected modbus.camera as one of the cameras ({', '.join(cameras) or 'none'}), got "
                f"{self.modbus.camera!r}"
            )
        return self


def read_settings(path: Path) -> StationSettings:
    """The settings in a YAML file; paths in it are relative to its folder.

    Raises:
        StationError: It cannot be read, or says something that no station can be told; all mistakes are listed.
    """
    settings = check(StationSettings, read_yaml(path, StationError, "a station's settings in YAML"), StationError)
    return resolved(settings, path.parent)


def parse_settings(content: dict[str, Any], folder: Path = Path()) -> StationSettings:
    """The same from what a program has put together.

    Raises:
        StationError: It says something that no station can be told.
    """
    return resolved(check(StationSettings, Document("settings", content), StationError), folder)


def override(settings: StationSettings | None, given: Mapping[str, Any]) -> StationSettings:
    """Settings with some of them replaced.

    Args:
        settings: As read; None for the defaults, whose paths are those of the current folder.
        given: By field, `listen.port`; what is None stays. Paths are as seen from the current folder.

    Raises:
        StationError: It says something that no station can be told.
    """
    content: dict[str, Any] = {} if settings is None else settings.model_dump()
    for field, value in given.items():
        if value is None:
            continue
        *groups, name = field.split(".")
        place = content
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = str(value) if isinstance(value, Path) else value
    return parse_settings(content)


def resolved(settings: StationSettings, folder: Path) -> StationSettings:
    """The settings with their paths made absolute, as seen from a folder."""
    content = settings.model_dump()
    base = folder.absolute()
    content["catalog"] = str(base / content["catalog"])
    content["baselines"] = [str(base / folder) for folder in content["baselines"]]
    if "://" not in content["journal"]:
        content["journal"] = str(base / content["journal"])
    content["pictures"]["folder"] = str(base / content["pictures"]["folder"])
    for entry in content["folders"]:
        entry["path"] = str(base / entry["path"])
        entry["done"] = str(base / entry["done"]) if entry["done"] else str(base / entry["path"] / "done")
    parts = [content["listen"], content["mqtt"], content["opcua"], content["replica"], *content["webhooks"]]
    for part in (part for part in parts if part):
        for field in ("token_file", "password_file", "secret_file", "ca_file", "url_file", "identity_file"):
            if part.get(field):
                part[field] = str(base / part[field])
    if content["opcua"] and not content["opcua"]["identity_file"] and "://" not in content["journal"]:
        content["opcua"]["identity_file"] = str(Path(content["journal"]).with_suffix(".opcua.pem"))
    if content["store"] and "://" not in content["store"]["url"]:
        content["store"]["url"] = str(base / content["store"]["url"])
    for camera in content["cameras"]:
        if camera["producer"]:
            camera["producer"] = str(base / camera["producer"])
    return StationSettings.model_validate(content)


def read_secret(path: str | None, what: str) -> str | None:
    """The first line of a file that holds a secret; None for no file.

    Raises:
        StationError: It cannot be read, or its first line is empty.
    """
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.readline(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StationError(
            f"expected {what} in the first line of {path}, cannot read it ({getattr(error, 'strerror', error)}). "
            "Check the path."
        ) from error
    if not secret:
        raise StationError(f"expected {what} in the first line of {path}, got an empty line. Write it there.")
    return secret
