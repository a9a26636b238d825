"""The same encoder on OpenVINO, ONNX Runtime or torch, behind one call: image in, stage features out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from fewshot_ad.arrays import Float32Array, Uint8Array
from fewshot_ad.errors import WeightsError

if TYPE_CHECKING:
    from fewshot_ad.encoder.pyramid import Pyramid

EngineName: TypeAlias = Literal["openvino", "onnxruntime", "torch"]
Precision: TypeAlias = Literal["f32", "bf16"]
ENGINES: tuple[EngineName, ...] = ("openvino", "onnxruntime", "torch")
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16")
Device: TypeAlias = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")

logger = logging.getLogger(__name__)

# A model compiled for one fixed input size is about a fifth faster than one for any size. A line has one camera, so a
# few sizes get their own; a stream of ever-changing sizes is served by the model for any size.
MAX_FIXED_SIZES = 8


@dataclass(frozen=True)
class Levels:
    """How stage features become levels of patch embeddings; see `EncoderSpec` for the meaning.

    Attributes:
        norm_power: Each stage's feature vectors are divided by their length to this power.
        scaled: Which stages that is done to, one flag per stage.
        joined: Whether all stages are brought to the finest grid and joined into one level.
    """

    norm_power: float
    scaled: tuple[bool, ...]
    joined: bool


class Engine(Protocol):
    """Runs the encoder's network.

    Attributes:
        makes_levels: Whether `run` gives finished levels, as `Levels` describes, instead of stage features.
    """

    makes_levels: bool

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
        path: ONNX file.
        outputs: Names of the outputs to compute; the rest of the graph is cut away.
        precision: `f32` (default; the same scores on every processor) or `bf16` (faster where the processor has it).
        threads: Number of CPU threads; None leaves it to OpenVINO.
        levels: How the stages become levels; None gives the stage features as they are.
    """

    def __init__(
        self,
        path: Path,
        outputs: Sequence[str],
        precision: Precision,
        threads: int | None,
        levels: Levels | None = None,
    ) -> None:
        import openvino as ov

        self._ov = ov
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

    def graph(self) -> Any:
        """The OpenVINO model: `photograph` (N, H, W, 3) uint8 -> one output (N, h, w, C) per stage or level."""
        model = self._ov.Core().read_model(self._path)
        outputs = [model.output(name).node.input_value(0) for name in self._outputs]
        if self._levels is not None:
            outputs = _make_levels(outputs, self._levels)
        return self._ov.Model(outputs, model.get_parameters())

    def run(self, image: Uint8Array) -> list[Float32Array]:
        """See `Engine.run`."""
        return [output[0] for output in self._requests.infer(image[None])]


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Requests:
    """A graph, compiled for each input size that comes, and its infer requests.

    Args:
        graph: Makes the OpenVINO model of one input, of any size.
        config: Of the compilation.
    """

    def __init__(self, graph: Callable[[], Any], config: Mapping[str, object]) -> None:
        import openvino as ov

        self._ov = ov
        self._graph = graph
        self._config = dict(config)
        self._fixed: dict[tuple[int, ...], Any] = {}
        self._any_size: Any = None
        self._lock = threading.Lock()

    def _compile(self, shape: tuple[int, ...] | None) -> Any:
        model = self._graph()
        if shape is not None:
            model.reshape(shape)
        return self._ov.Core().compile_model(model, "CPU", self._config).create_infer_request()

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._fixed and len(self._fixed) < MAX_FIXED_SIZES:
            self._fixed[shape] = self._compile(shape)
        if shape in self._fixed:
            return self._fixed[shape]
        if self._any_size is None:
            self._any_size = self._compile(None)
        return self._any_size

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs that have a model of their own."""
        return tuple(self._fixed)

    def infer(self, batch: Uint8Array) -> list[Float32Array]:
        """Run it on a batch (N, H, W, 3) uint8; the outputs are owned by the caller."""
        # OpenVINO shares memory with writable arrays only, and promises to write nothing into an input.
        if not (batch.flags.writeable and batch.flags.c_contiguous):
            batch = batch.copy()
        with self._lock:
            result = self._request(batch.shape).infer([self._ov.Tensor(batch, shared_memory=True)])
            return [result[i] for i in range(len(result))]


def _make_levels(stages: list[Any], levels: Levels) -> list[Any]:
    """The graph's outputs, (N, h, w, C) per stage -> per level; the same arithmetic as `Encoder.encode`."""
    from openvino import opset13 as ops

    axis = ops.constant(np.array([3]))
    maps = []
    for stage, scaled in zip(stages, levels.scaled, strict=True):
        if scaled and levels.norm_power > 0:
            squared = ops.reduce_sum(ops.multiply(stage, stage), axis, True)
            floor = ops.constant(np.float32(1e-12))
            length = ops.power(ops.maximum(squared, floor), ops.constant(np.float32(-levels.norm_power / 2)))
            stage = ops.multiply(stage, length)
        maps.append(stage)
    if not levels.joined or len(maps) == 1:
        return maps
    finest = ops.slice(ops.shape_of(maps[0]), *(ops.constant(np.array([n])) for n in (1, 3, 1)))
    # Channels first: the only layout OpenVINO's CPU kernels enlarge.
    to_first, to_last = (ops.constant(np.array(order)) for order in ([0, 3, 1, 2], [0, 2, 3, 1]))
    enlarged = [
        ops.transpose(
            ops.interpolate(
                ops.transpose(stage, to_first),
                finest,
                "linear_onnx",
                "sizes",
                coordinate_transformation_mode="half_pixel",
                axes=ops.constant(np.array([2, 3])),
            ),
            to_last,
        )
        for stage in maps[1:]
    ]
    return [ops.concat([maps[0], *enlarged], 3)]


def no_gpu(reason: str) -> None:
    """Say that the CPU stands in for a GPU that is not there; the scores are the same."""
    logger.warning("device='cuda': %s. Going on with the CPU: the same scores, slower.", reason)


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU (extra `onnx`) or an NVIDIA GPU (onnxruntime-gpu in its place).

    Arguments as for `OpenVINOEngine`; float32 only.
    """

    makes_levels = False

    def __init__(
        self, path: Path, outputs: Sequence[str], precision: Precision, threads: int | None, device: Device = "cpu"
    ) -> None:
        try:
            import onnxruntime as ort
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
                no_gpu("ONNX Runtime has no CUDA here: pip install onnxruntime-gpu in place of onnxruntime")
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        if len(providers) > 1 and "CUDAExecutionProvider" not in self._session.get_providers():
            no_gpu("ONNX Runtime's CUDA build finds no GPU it can use")
        self._input = self._session.get_inputs()[0].name
        self._outputs = list(outputs)

    def run(self, image: Uint8Array) -> list[Float32Array]:
        """See `Engine.run`."""
        return [stage[0] for stage in self._session.run(self._outputs, {self._input: image[None]})]


class TorchEngine:
    """torch on the CPU or a GPU (extra `torch`).

    Args:
        pyramid: The network, with the stages to compute.
        precision: `f32` or `bf16`.
        threads: Number of CPU threads, for the whole process (torch has no other way); None leaves it alone.
        device: `cpu` or `cuda`.
    """

    makes_levels = False

    def __init__(self, pyramid: Pyramid, precision: Precision, threads: int | None, device: Device = "cpu") -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._torch = torch
        if device == "cuda" and not torch.cuda.is_available():
            no_gpu("torch sees no CUDA device")
            device = "cpu"
        self._device = device
        self._pyramid = pyramid.to(self._device)
        self._bf16 = precision == "bf16"

    def run(self, image: Uint8Array) -> list[Float32Array]:
        """See `Engine.run`."""
        torch = self._torch
        # TF32 would make a GPU's float32 scores differ from everybody else's.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with exact, torch.inference_mode(), torch.autocast(self._device, torch.bfloat16, enabled=self._bf16):
            stages = self._pyramid(torch.from_numpy(np.ascontiguousarray(image)[None]).to(self._device))
            return [stage[0].float().cpu().numpy() for stage in stages]
