"""Training curves: where the losses of a fit go, if somebody asked to see them.

Lightning's loggers write them, so that those of anomalib's models and those of this package's methods look alike.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from fewshot_ad.errors import ZooError

Monitor: TypeAlias = Literal["tensorboard", "csv", "wandb", "mlflow", "comet"]
MONITORS: tuple[Monitor, ...] = get_args(Monitor)
# What each needs beside Lightning: the module that is imported, and the package that has it.
_NEEDS: dict[Monitor, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
    "comet": ("comet_ml", "comet-ml"),
}
# None of these libraries may report its use to its makers.
_SILENT = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "COMET_OFFLINE": "1",
}
PROJECT = "fewshot-ad"

_logger: ContextVar[Any] = ContextVar("logger", default=None)


@dataclass(frozen=True)
class Curves:
    """Where training curves go.

    Attributes:
        monitor: The library that writes them. W&B and Comet write what can be sent later (`wandb sync`,
            `comet upload`), MLflow a folder of its own: nothing is sent.
        folder: Folder of all runs.

    Raises:
        ZooError: There is no such monitor, or its package is not installed.
    """

    monitor: Monitor
    folder: Path

    def __post_init__(self) -> None:
        if self.monitor not in MONITORS:
            raise ZooError(f"expected a monitor among {list(MONITORS)}, got {self.monitor!r}.")
        for package in _missing(self.monitor):
            raise ZooError(
                f"expected the package {package}, which writes training curves for {self.monitor}, got none: pip "
                f"install {package}."
            )

    @contextlib.contextmanager
    def drawn(self, run: str) -> Iterator[None]:
        """Send all that is learned in this context to a run of its own.

        Args:
            run: Name of the run; another one of that name gets a number behind it, so nothing is drawn over.
        """
        name = re.sub(r"[^\w=.%+-]+", "-", run).strip("-.") or "run"
        folder = self.folder.absolute()
        name = next(n for n in _numbered(name) if not (folder / n).exists())
        # Left set: what these libraries start in the background ends with the process, not with the run.
        for variable, value in _SILENT.items():
            os.environ.setdefault(variable, value)
        logger = _BUILDERS[self.monitor](folder, name)
        token = _logger.set(logger)
        try:
            yield
        finally:
            _logger.reset(token)
            logger.finalize("success")


def is_installed(monitor: Monitor) -> bool:
    """Whether a monitor has all that it needs."""
    return not list(_missing(monitor))


def current_logger() -> Any:
    """Lightning's logger of the run that is drawn; None where nobody asked for curves."""
    return _logger.get()


def draw(values: Mapping[str, float], step: int) -> None:
    """Add a point to each of some curves, if they are drawn.

    Args:
        values: Names of the curves and their values, as `{"training/loss": 0.5}`.
        step: Number of gradient steps so far.
    """
    logger = _logger.get()
    if logger is not None:
        logger.log_metrics(dict(values), step)


def _missing(monitor: Monitor) -> Iterator[str]:
    """The packages that a monitor lacks."""
    for module, package in (("lightning", "lightning"), _NEEDS.get(monitor, ("lightning", "lightning"))):
        if importlib.util.find_spec(module) is None:
            yield package


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in itertools.count(2))


def _tensorboard(folder: Path, name: str) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name=name, version="")


def _csv(folder: Path, name: str) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(folder, name=name, version="")


def _wandb(folder: Path, name: str) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)
    return WandbLogger(name=name, save_dir=folder, project=PROJECT, offline=True)


def _mlflow(folder: Path, name: str) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    return MLFlowLogger(PROJECT, run_name=name, tracking_uri=folder.as_uri())


def _comet(folder: Path, name: str) -> Any:
    from lightning.pytorch.loggers import CometLogger

    folder.mkdir(parents=True, exist_ok=True)
    return CometLogger(project=PROJECT, name=name, online=False, offline_directory=str(folder))


_BUILDERS: dict[Monitor, Callable[[Path, str], Any]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "comet": _comet,
}
