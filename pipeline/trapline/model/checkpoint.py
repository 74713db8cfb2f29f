"""Checkpoints: a file of weights becomes a network, its classes and its preprocessing.

birder writes two formats, and both are read here: `.pt`, a dictionary saved by torch in a zip archive (`state`,
`class_to_idx`, `signature`, `rgb_stats`, perhaps `config` and `task`), and `.safetensors`, with the same as JSON
strings in its header. The first bytes decide which one a file is. Code in a file is never run.
"""

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from safetensors import safe_open
from torch import Tensor

from trapline.errors import CheckpointError, UsageError
from trapline.model.architecture import STAGES, VARIANTS, Architecture
from trapline.model.download import fetch
from trapline.model.hiera import Hiera

# As published in birder's model registry, by file name.
PUBLISHED_SHA256 = {
    "hiera_abswin_base_mim.pt": "7133b4f857cca69d320173808d5c9921c1f05c129a76d58310a22bfafcd6deb1",
    "hiera_abswin_base_mim.safetensors": "48adf5f778081ea2e5aa98e10149d3bf8f1d4ad15e7998cb5611cd450557dfc1",
    "hiera_abswin_base_mim-intermediate-eu-common.pt": (
        "ce44e29c36b083c9e1d0eed9693a3f9c5bc39c03cf03efce3d453bfa328c7b9c"
    ),
}

# Other keys of a birder `config`: settings of training, and settings of which only one value is supported.
_WITHOUT_EFFECT = {"drop_path_rate", "drop_path_uniform"}
_ONLY = {"attn_pool_type": "MultiHeadAttentionPool", "attn_pool_act_layer_type": "gelu"}


@dataclass(frozen=True)
class Model:
    """A network that is ready to use, with its classes and preprocessing.

    Attributes:
        network: in eval mode, float32, on the CPU, without gradients.
        variant: one of `VARIANTS`, or `custom` if the file's config makes it another.
        architecture: of the network.
        classes: names in the order of the logits; none if the network was trained without labels.
        size: height and width in pixels that the network takes.
        rgb_mean: of the pixels it was trained on, as parts of 1.
        rgb_std: of the same pixels.
        weights_sha256: hex digest of the file.
        source: as the user named it.
    """

    network: Hiera
    variant: str
    architecture: Architecture
    classes: tuple[str, ...]
    size: tuple[int, int]
    rgb_mean: tuple[float, float, float]
    rgb_std: tuple[float, float, float]
    weights_sha256: str
    source: str


@dataclass(frozen=True)
class _Input:
    data_shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class _Signature:
    inputs: tuple[_Input]


_Spread = Annotated[FiniteFloat, Field(gt=0)]


@dataclass(frozen=True)
class _RgbStats:
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[_Spread, _Spread, _Spread]


_ARCHITECTURE = TypeAdapter(Architecture)


@dataclass(frozen=True)
class _Metadata:
    """The contents of a birder checkpoint beside its tensors."""

    class_to_idx: dict[str, int]
    signature: _Signature
    rgb_stats: _RgbStats
    config: dict[str, Any] = field(default_factory=dict)
    task: str = "image_classification"


def load(
    source: str, *, size: tuple[int, int] | None = None, architecture: str | None = None, sha256: str | None = None
) -> Model:
    """Fetch a checkpoint if necessary, check it and build its network.

    Args:
        source: as `fetch` takes it.
        size: height and width of the images, multiples of 32, if they differ from the training's.
        architecture: one of `VARIANTS`; needed only if tensors and config do not determine it.
        sha256: the digest that the file must have, instead of the published one.

    Raises:
        CheckpointError: the file cannot be found or used.
        UsageError: there is no such architecture, or the size is no multiple of 32.
    """
    if architecture is not None and architecture not in VARIANTS:
        raise UsageError(f"no architecture is called {architecture}: choose from {', '.join(VARIANTS)}")
    path = fetch(source)
    digest = _checked_digest(path, sha256)
    state, metadata = _read(path)
    classes = _classes(path, metadata.class_to_idx)
    chosen = _architecture(path, state, metadata.config, architecture)
    network = _network(path, chosen, state, metadata, len(classes))
    if size is not None:
        try:
            network.adjust_size(size)
        except ValueError as error:
            raise UsageError(str(error)) from None

    return Model(
        network=network,
        variant=_variant(chosen),
        architecture=chosen,
        classes=classes,
        size=network.size,
        rgb_mean=metadata.rgb_stats.mean,
        rgb_std=metadata.rgb_stats.std,
        weights_sha256=digest,
        source=source,
    )


def save(model: Model, path: Path) -> None:
    """Write a checkpoint that `load` and birder itself read; the config is stored only for custom variants."""
    height, width = model.size
    contents = {
        "state": model.network.state_dict(),
        "birder_version": "0.8.4",
        "task": "image_classification",
        "signature": {
            "inputs": [{"data_shape": [0, 3, height, width]}],
            "outputs": [{"data_shape": [0, len(model.classes)]}],
        },
        "class_to_idx": {name: index for index, name in enumerate(model.classes)},
        "rgb_stats": {"mean": list(model.rgb_mean), "std": list(model.rgb_std)},
    }
    if model.variant not in VARIANTS:
        contents["config"] = asdict(model.architecture) | {"depths": list(model.architecture.depths)}
    torch.save(contents, path)


def _checked_digest(path: Path, expected: str | None) -> str:
    expected = expected or PUBLISHED_SHA256.get(path.name)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if expected is not None and digest != expected.lower():
        raise CheckpointError(f"{path}: has SHA-256 {digest}, not {expected}: fetch it again, or name the one you mean")
    return digest


def _read(path: Path) -> tuple[dict[str, Tensor], _Metadata]:
    with path.open("rb") as file:
        head = file.read(9)
    try:
        if head.startswith(b"PK"):
            contents = torch.load(path, map_location="cpu", weights_only=True)
        elif head[8:] == b"{":  # safetensors: eight bytes of length, then a JSON header
            contents = _read_safetensors(path)
        else:  # including a bare pickle, which torch would accept
            raise CheckpointError(f"{path}: is no birder checkpoint: neither a .pt archive nor a .safetensors file")
    except CheckpointError:
        raise
    except Exception as error:  # torch, safetensors and JSON raise many kinds of errors on damaged files
        if objects := _foreign_objects(path):
            raise CheckpointError(f"{path}: refused: asks to run {objects}, where tensors should be") from None
        raise CheckpointError(f"{path}: damaged or cut short ({_brief(error)}): fetch it again") from error

    state = contents.pop("state", None) if isinstance(contents, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{path}: is no birder checkpoint: it has no tensors under 'state'")
    try:
        metadata = TypeAdapter(_Metadata).validate_python(contents)
    except ValidationError as error:
        raise CheckpointError(f"{path}: is no birder checkpoint: {_first(error)}") from None
    if metadata.task != "image_classification":
        raise CheckpointError(f"{path}: is for {metadata.task}: give a classifier, or the encoder alone")
    return state, metadata


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        contents: dict[str, Any] = dict(file.metadata() or {})
        for key in contents.keys() & {"class_to_idx", "signature", "rgb_stats", "config"}:
            contents[key] = json.loads(contents[key] or "{}")
        contents["state"] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    return contents


def _foreign_objects(path: Path) -> str:
    """Return the functions and classes that a .pt archive would call, beyond those that make tensors."""
    try:
        return ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
    except Exception:  # noqa: BLE001 (a damaged archive can fail in many ways)
        return ""


def _architecture(path: Path, state: dict[str, Tensor], config: dict[str, Any], name: str | None) -> Architecture:
    """Return the named variant, or the one that fits the tensors, with the overrides of the file's config."""
    config = {key: value for key, value in config.items() if key not in _WITHOUT_EFFECT and value != _ONLY.get(key)}
    if unsupported := config.keys() - {field.name for field in fields(Architecture)}:
        raise CheckpointError(f"{path}: its config asks for {', '.join(sorted(unsupported))}, which is not supported")
    variants = VARIANTS.values() if name is None else [VARIANTS[name]]
    try:
        candidates = {_ARCHITECTURE.validate_python(asdict(variant) | config) for variant in variants}
    except ValidationError as error:
        raise CheckpointError(f"{path}: its config is wrong: {_first(error)}") from None
    if name is not None:
        return candidates.pop()

    blocks = Counter(re.findall(r"body\.(stage\d)\.\d+\.norm1\.weight", " ".join(state)))
    depths = tuple(blocks[stage] for stage in STAGES)
    width = len(state.get("stem.proj.weight", ()))
    shown = (depths, width, "pos_embed_win" in state, "features.0.latent" in state)
    fitting = [a for a in candidates if (a.depths, a.embed_dim, a.abs_win_pos_embed, a.attn_pool_head) == shown]
    if len(fitting) != 1:
        raise CheckpointError(
            f"{path}: {depths} blocks, the first of {width} channels, are no known variant: name the architecture, one "
            f"of {', '.join(VARIANTS)}, or store birder's config in the file"
        )
    return fitting[0]


def _variant(architecture: Architecture) -> str:
    return next((name for name, variant in VARIANTS.items() if variant == architecture), "custom")


def _classes(path: Path, class_to_idx: dict[str, int]) -> tuple[str, ...]:
    classes = sorted(class_to_idx, key=class_to_idx.__getitem__)
    if [class_to_idx[name] for name in classes] != list(range(len(classes))):
        raise CheckpointError(f"{path}: the indices in its class_to_idx are not 0 to {len(classes) - 1}, each once")
    return tuple(classes)


def _network(
    path: Path, architecture: Architecture, state: dict[str, Tensor], metadata: _Metadata, classes: int
) -> Hiera:
    head = state.get("classifier.3.weight" if architecture.mlp_head else "classifier.weight")
    logits = 0 if head is None else len(head)
    if logits != classes:
        raise CheckpointError(f"{path}: names {classes} classes in its class_to_idx, but its classifier has {logits}")
    _, channels, height, width = metadata.signature.inputs[0].data_shape
    if channels != 3:
        raise CheckpointError(f"{path}: takes {channels} channels, and images have 3")
    try:
        with torch.device("meta"):  # the weights are replaced below, and need neither memory nor random numbers
            network = Hiera(architecture, classes, (height, width))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None

    expected = network.state_dict()
    for name in [*expected, *state]:
        ours, theirs = (tuple(tensors[name].shape) if name in tensors else "none" for tensors in (expected, state))
        if ours != theirs:
            variant = _variant(architecture)
            raise CheckpointError(f"{path}: is no {variant} for {height} x {width}: {name} is {theirs}, not {ours}")
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity: fetch it again, or use an earlier checkpoint")
    network.load_state_dict(state, assign=True)
    return network.float().eval().requires_grad_(False)


def _first(error: ValidationError) -> str:
    details = error.errors()[0]
    return f"{'.'.join(map(str, details['loc']))}: {details['msg']}"


def _brief(error: Exception) -> str:
    """Return the first sentence of an error, for messages of one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]
