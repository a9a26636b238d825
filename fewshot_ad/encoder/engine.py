"""The same encoder on OpenVINO, ONNX Runtime or torch, behind one call: image in, stage features out."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.encoder.requests import CompiledPool, Requests
from fewshot_ad.errors import WeightsError
from fewshot_ad.host.lifetime import ForkSafeLock, fork_count, is_forked, keep_in_children
from fewshot_ad.host.runtimes import import_onnxruntime, import_openvino, signal_stack_kept

if TYPE_CHECKING:
    from fewshot_ad.encoder.pyramid import Pyramid

EngineName: TypeAlias = Literal["openvino", "onnxruntime", "torch"]
Precision: TypeAlias = Literal["f32", "bf16"]
ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime", "torch")
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16")
Device: TypeAlias = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Levels:
    """How stage features become levels of patch embeddings; see `EncoderSpec` for the meaning.

    Attributes:
        norm_power: Each stage's feature vectors are divided by their length to this power.
        scaled: Which stages that is done to, one flag per stage.
        joined: Whether all stages are brought to the finest grid and joined into one level.
        finest: Index of the stage with the finest grid; an embedding may be finer than the stages before it.
    """

    norm_power: float
    scaled: tuple[bool, ...]
    joined: bool
    finest: int


class Engine(Protocol):
    """Runs the encoder's network.

    Attributes:
        makes_levels: Whether `run` gives finished levels, as `Levels` describes, instead of stage features.
        device: What it really runs on: the CPU also where a GPU was asked for and there is none.
    """

    makes_levels: bool
    device: Device

    def run(self, image: Uint8Array) -> list[Float32Array]:
        """Stage features of one input.

        Args:
            image: (H, W, 3) uint8 RGB, C-contiguous, H and W multiples of the encoder's stride.

        Returns:
            One array (h, w, C) float32 per stage or level, owned by the caller.
        """


class OpenVINOEngine:
    """OpenVINO on the CPU. The stages are scaled and joined inside the graph.

    Args:
        path: ONNX file; None for a subclass that builds its network itself.
        outputs: Names of the outputs to compute; the rest of the graph is cut away.
        precision: `f32` (default; the same scores on every processor) or `bf16` (faster where the processor has it).
        threads: Number of CPU threads; None leaves it to OpenVINO.
        levels: How the stages become levels; None gives the stage features as they are.
    """

    device: Device = "cpu"

    def __init__(
        self,
        path: Path | None,
        outputs: Sequence[str],
        precision: Precision,
        threads: int | None,
        levels: Levels | None = None,
    ) -> None:
        self._ov = import_openvino()
        if precision == "bf16" and not has_bf16():
            raise WeightsError(
                "precision='bf16' needs a processor with bfloat16 instructions, and this one has none: the scores "
                "would silently be float32's. Use precision='f32'."
            )
        self._path = path
        self._outputs = list(outputs)
        self._levels = levels
        self.makes_levels = levels is not None
        # OpenVINO picks bf16 by itself on processors that have it; the hint pins what was asked for.
        self.config: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            self.config["INFERENCE_NUM_THREADS"] = threads
        self._requests = Requests(self.graph, self.config)
        # Of this network with a search behind it, see `OnePass`.
        self.searches = CompiledPool()

    def graph(self) -> Any:
        """The OpenVINO model: `photograph` (N, H, W, 3) uint8 -> one output (N, h, w, C) per stage or level."""
        model = self._read()
        outputs = [model.output(name).node.input_value(0) for name in self._outputs]
        if self._levels is not None:
            outputs = _make_levels(outputs, self._levels)
        return self._ov.Model(outputs, model.get_parameters())

    def _read(self) -> Any:
        """The network: `photograph` (N, H, W, 3) uint8 -> one named output (N, h, w, C) per stage."""
        return self._ov.Core().read_model(self._path)

    def run(self, image: Uint8Array) -> list[Float32Array]:
        """See `Engine.run`."""
        return [output[0] for output in self._requests.infer(image[None])]


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16."""
    with signal_stack_kept():
        return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _make_levels(stages: list[Any], levels: Levels) -> list[Any]:
    """The graph's outputs, (N, h, w, C) per stage -> per level; the same arithmetic as `Encoder.encode`."""
    ops = import_openvino().opset13
    axis = ops.constant(np.array([3]))
    maps = []
    for stage, scaled in zip(stages, levels.scaled, strict=True):
        if scaled and levels.norm_power > 0:
            squared = ops.reduce_sum(ops.multiply(stage, stage), axis, True)
            floor = ops.constant(np.float32(1e-12))
            length = ops.power(ops.maximum(squared, floor), ops.constant(np.float32(-levels.norm_power / 2)))
            stage = ops.multiply(stage, length).output(0)
        maps.append(stage)
    if not levels.joined or len(maps) == 1:
        return maps
    grid = ops.slice(ops.shape_of(maps[levels.finest]), *(ops.constant(np.array([n])) for n in (1, 3, 1)))
    # Channels first: the only layout OpenVINO's CPU kernels enlarge.
    to_first, to_last = (ops.constant(np.array(order)) for order in ([0, 3, 1, 2], [0, 2, 3, 1]))
    enlarged = [
        stage
        if at == levels.finest
        else ops.transpose(
            ops.interpolate(
                ops.transpose(stage, to_first),
                grid,
                "linear_onnx",
                "sizes",
                coordinate_transformation_mode="half_pixel",
                axes=ops.constant(np.array([2, 3])),
            ),
            to_last,
        ).output(0)
        for at, stage in enumerate(maps)
    ]
    return [ops.concat(enlarged, 3).output(0)]


def no_gpu(reason: str) -> None:
    """Say that the CPU stands in for a GPU that is not there; the scores are the same."""
    logger.warning("device='cuda': %s. Going on with the CPU: the same scores, slower.", reason)


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU (extra `onnx`) or an NVIDIA GPU (extra `gpu` in its place).

    Arguments as for `OpenVINOEngine`; float32 only.
    """

    makes_levels = False

    def __init__(
        self, path: Path, outputs: Sequence[str], precision: Precision, threads: int | None, device: Device = "cpu"
    ) -> None:
        try:
            ort = import_onnxruntime()
        except ImportError as error:
            raise WeightsError(
                "engine='onnxruntime' needs ONNX Runtime: pip install 'fewshot-ad[onnx]', or use engine='openvino'."
            ) from error
        if precision != "f32":
            raise WeightsError(
                f"engine='onnxruntime' runs precision='f32' only, got {precision!r}. Use engine='openvino'."
            )
        options = ort.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        providers: list[Any] = ["CPUExecutionProvider"]
        if device == "cuda":
            if "CUDAExecutionProvider" in ort.get_available_providers():
                # TF32 would make a GPU's float32 scores differ from everybody else's.
                providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": 0}))
            else:
                no_gpu("ONNX Runtime has no CUDA here: pip uninstall onnxruntime, then pip install 'fewshot-ad[gpu]'")
        self._session = keep_in_children(ort.InferenceSession(str(path), options, providers=providers))
        self.device: Device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        if len(providers) > 1 and self.device == "cpu":
            no_gpu("ONNX Runtime's CUDA build finds no GPU it can use")
        self._forks = fork_count()
        self._input = self._session.get_inputs()[0].name
        self._outputs = list(outputs)

    def run(self, image: Uint8Array) -> list[Float32Array]:
        """See `Engine.run`."""
        _refuse_forked_gpu(self.device, self._forks)
        return [stage[0] for stage in self._session.run(self._outputs, {self._input: image[None]})]


class TorchEngine:
    """torch on the CPU or a GPU (extra `torch`).

    Args:
        pyramid: The network, with the stages to compute.
        precision: `f32` or `bf16`.
        threads: Number of CPU threads; None leaves it to torch. It is torch's number for the whole process, so it is
            set for the time of each run only, and runs that set it go one at a time.
        device: `cpu` or `cuda`.
    """

    makes_levels = False

    def __init__(self, pyramid: Pyramid, precision: Precision, threads: int | None, device: Device = "cpu") -> None:
        import torch

        _one_thread_in_children(torch)
        self._torch = torch
        self._threads = threads
        if device == "cuda" and not torch.cuda.is_available():
            no_gpu("torch sees no CUDA device")
            device = "cpu"
        self.device: Device = device
        self._pyramid = pyramid.to(self.device)
        self._bf16 = precision == "bf16"
        self._forks = fork_count()

    def run(self, image: Uint8Array) -> list[Float32Array]:
        """See `Engine.run`."""
        _refuse_forked_gpu(self.device, self._forks)
        torch = self._torch
        autocast = torch.autocast(self.device, torch.bfloat16, enabled=self._bf16)
        with _torch_settings(torch, self._threads, self.device), torch.inference_mode(), autocast:
            stages = self._pyramid(torch.from_numpy(np.ascontiguousarray(image)[None]).to(self.device))
            return [stage[0].float().cpu().numpy() for stage in stages]


_torch_lock = ForkSafeLock()


@contextmanager
def _torch_settings(torch: Any, threads: int | None, device: Device) -> Iterator[None]:
    """Settings that torch has for the whole process: one run at a time sets them, and puts them back."""
    if is_forked():
        # One thread, see `_one_thread_in_children`.
        threads = None
    with ExitStack() as settings:
        if threads is not None or device == "cuda":
            settings.enter_context(_torch_lock)
        if threads is not None:
            settings.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        if device == "cuda":
            # TF32 would make a GPU's float32 scores differ from everybody else's.
            settings.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        yield


@functools.cache
def _one_thread_in_children(torch: Any) -> None:
    """Make torch compute on one thread in processes forked from this one, as torch's own data loaders do.

    The threads that it has shared work out to are gone there, and it would wait for them forever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


def _refuse_forked_gpu(device: Device, forks: int) -> None:
    if device == "cuda" and forks != fork_count():
        raise WeightsError(
            "expected an encoder that was loaded in this process, got one on a GPU from the process it was forked "
            "from, and CUDA does not survive a fork. Load it here, or start processes with the method 'spawn'."
        )
