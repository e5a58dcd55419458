"""The intervention as a PEFT adapter: a small folder that loads beside the base model.

Every edit of a matrix is a rank-one difference −along (readᵀW), so rank-one LoRA carries it without loss. PEFT itself
says which tensors the folder has to hold: the adapter is injected into an empty copy of the network, and filled in.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from refusal import engine, equations
from refusal.architectures import Writer
from refusal.direction import Direction
from refusal.errors import Unavailable, UnsupportedModel
from refusal.interventions import for_model
from refusal.model import PROBES, ChatModel
from refusal.records import write_bytes
from refusal.weights.bias import carrier
from refusal.weights.covering import Coverage, coverage
from refusal.weights.memory import is_tied, removals
from refusal.weights.papers import describe_direction, direction_hash, write_papers
from refusal.weights.provenance import check_model
from refusal.weights.removal import Removal
from refusal.weights.target import new_folder

PREFIX = "base_model.model."  # what PEFT puts before a module's name
Layer = tuple[str, Any]  # PEFT's name of one of its layers, and the layer
Pair = tuple[Tensor, Tensor]  # u, v of a difference u vᵀ, one a matrix of a stack: `[k] i`, `[k] o`
TIED = (
    "The base model's embedding and unembedding are one matrix. Beside the base model the adapter changes what the "
    "embedding gives and leaves the unembedding alone, which is the intervention. Merged into the shared matrix it "
    "would change both, which is not: untie the base model first (give `lm_head` a copy of the weight and set "
    "`tie_word_embeddings` to false), or use a checkpoint export. Leave PEFT's `ensure_weight_tying` off."
)
BIASES = (
    "LoRA matrices carry no bias, so the edited biases stand in the adapter whole (`bias: lora_only`). PEFT writes "
    "them over the base model's own on loading, and `disable_adapter()` does not bring those back."
)
NO_MERGE = "The base model has no bias there: the adapter works beside it, and PEFT raises an error when it is merged."


@dataclass(frozen=True)
class Adapter:
    """What an adapter folder does: the tensors of the base model that it changes, and what its user has to know."""

    folder: Path
    tensors: tuple[str, ...]
    notes: tuple[str, ...]
    coverage: Coverage | None = None  # of an ablation

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        reach = {} if self.coverage is None else {"coverage": self.coverage.record()}
        return {"tensors": list(self.tensors), "notes": list(self.notes), **reach}


@torch.no_grad()
def export_lora(
    model: ChatModel,
    direction: Direction,
    out: Path | str,
    *,
    incomplete_ok: bool = False,
    from_another_model: bool = False,
) -> Adapter:
    """Write directional ablation as a rank-one LoRA adapter (paper eq. 5): every writer, the embedding included.

    The folder loads with `peft.PeftModel.from_pretrained(base, out)`. Its matrices are float32, whatever the model's
    dtype. Raises BadInput for a direction of another width, or of other weights unless `from_another_model`, and for a
    folder that holds something, UnsupportedModel for a writer that an adapter cannot change and for an incomplete edit
    unless `incomplete_ok`, Unavailable without the package peft.
    """
    folder, reach = new_folder(out), coverage(model, direction)
    reach.require_complete(model.name, incomplete_ok=incomplete_ok)
    unit = for_model(direction.unit, model).cpu()
    origin = check_model(direction, model, from_another_model=from_another_model)
    edits = {writer.name: (writer, how) for writer, how in removals(model, unit)}
    parameter = model.network.get_parameter
    biases = [name for name in edits if parameter(name).ndim == 1]
    modules, parameters = _targets(model, [name for name in edits if name not in biases], biases)
    config, layers = _injected(model, modules, parameters, bias="lora_only" if biases else "none")
    _check_called(model, layers)
    tensors: dict[str, Tensor] = {}
    for name, (path, layer) in layers.items():
        tensors |= _filled(path, layer, *_difference(parameter(name), *edits[name]))
    for name in biases:
        writer, how = edits[name]
        path, _, last = name.rpartition(".")
        tensors[f"{PREFIX}{path}.base_layer.{last}"] = how.edit(parameter(name).float().cpu(), writer.axis)
    gaps = [f"Incomplete: something is still written along the direction. {gap}" for gap in reach.gaps]
    notes = [*origin, *gaps] + [TIED] * _is_tied(model, modules) + [BIASES] * bool(biases)
    what = (
        "Directional ablation: the tensors below write nothing to the residual stream along one direction"
        f"{', up to rounding what ablation hooks do' if reach.exact else ''}."
    )
    adapter = Adapter(folder, tuple(edits), tuple(notes), reach)
    return _write(model, direction, config, tensors, adapter, what, {"intervention": "ablation"})


@torch.no_grad()
def export_addition_lora(
    model: ChatModel,
    direction: Direction,
    out: Path | str,
    *,
    coefficient: float = 1.0,
    layer: int | None = None,
    from_another_model: bool = False,
) -> Adapter:
    """Write activation addition as a LoRA adapter (paper eq. 3): a bias behind one module, its matrices zero.

    At layer 0 a rank-one matrix adds c·r to every row of the embedding. Works where the base model has no bias, too.
    Raises UnsupportedModel where no bias can carry it, and the errors of `export_lora`.
    """
    folder = new_folder(out)
    origin = check_model(direction, model, from_another_model=from_another_model)
    found = carrier(model, direction, coefficient=coefficient, layer=layer)
    module = model.network.get_submodule(found.module)
    if not isinstance(module, nn.Linear | Conv1D | nn.Embedding):
        raise UnsupportedModel(
            f"Only the bias of '{found.module}' ({type(module).__name__}) could carry the addition, and LoRA has no "
            "form for it. Use bake_addition, which adds to that bias."
        )
    modules, parameters = _targets(model, [f"{found.module}.weight"], [])
    config, layers = _injected(model, modules, parameters, lora_bias=not found.is_table)
    ((path, layer_of_peft),) = layers.values()
    rows, columns = module.weight.shape
    pair = (torch.ones(rows), found.vector) if found.is_table else (torch.zeros(rows), torch.zeros(columns))
    tensors = _filled(path, layer_of_peft, *pair)
    if not found.is_table:
        tensors[f"{PREFIX}{found.module}.lora_B.bias"] = found.vector
    missing = not found.is_table and module.bias is None
    notes = [*origin] + [TIED] * _is_tied(model, [found.module]) + [NO_MERGE] * missing
    tensor = f"{found.module}.{'weight' if found.is_table else 'bias'}"
    where = direction.layer if layer is None else layer
    what = f"Activation addition: {coefficient:g} times one direction is added to the residual stream at layer {where}."
    asked = {"intervention": "addition", "coefficient": coefficient, "layer": where}
    return _write(model, direction, config, tensors, Adapter(folder, (tensor,), tuple(notes)), what, asked)


def _targets(model: ChatModel, names: Sequence[str], biases: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split matrices into modules that PEFT wraps and bare parameters; biases have to stand beside the former."""
    modules, parameters = [], []
    for name in names:
        path, _, last = name.rpartition(".")
        module = model.network.get_submodule(path)
        wrapped = last == "weight" and (isinstance(module, nn.Linear | Conv1D) or _is_table(module))
        modules.append(path) if wrapped else parameters.append(name)
    for name in (*parameters, *biases):
        tensor = model.network.get_parameter(name)
        if tensor.ndim not in (2, 3) and not (name in biases and name.rpartition(".")[0] in modules):
            raise UnsupportedModel(
                f"A LoRA adapter has no form for the edit of '{name}' (shape {tuple(tensor.shape)}), which writes to "
                "the residual stream. Export a checkpoint instead."
            )
    return modules, parameters


def _is_table(module: nn.Module) -> bool:
    """Tell whether PEFT follows what an embedding does: a plain look-up, or one with a scale."""
    plain = type(module).forward is nn.Embedding.forward
    return isinstance(module, nn.Embedding) and (plain or isinstance(getattr(module, "embed_scale", None), Tensor))


def _is_tied(model: ChatModel, modules: Sequence[str]) -> bool:
    embedding = model.network.get_input_embeddings()
    return is_tied(model.network) and any(model.network.get_submodule(path) is embedding for path in modules)


def _difference(tensor: Tensor, writer: Writer, how: Removal) -> Pair:
    """Return u and v of the edit W' − W = u vᵀ of a matrix, or of each matrix in a stack."""
    wide = tensor.float().cpu()
    seen = equations.project(wide if writer.axis == -1 else wide.mT, how.read)
    along = how.along.expand(*seen.shape[:-1], -1)
    return (-seen, along) if writer.axis == -1 else (-along, seen)


def _injected(
    model: ChatModel, modules: Sequence[str], parameters: Sequence[str], *, bias: Any = "none", lora_bias: bool = False
) -> tuple[Any, dict[str, Layer]]:
    """Inject an empty adapter into an empty network: PEFT's settings, and its name and layer for every tensor."""
    try:
        from peft import LoraConfig, get_peft_model
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise Unavailable('LoRA adapters need the package peft: pip install "refusal[adapters]"') from error
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=1,
        lora_alpha=1,
        target_modules=list(modules),
        target_parameters=list(parameters) or None,
        fan_in_fan_out=any(isinstance(model.network.get_submodule(path), Conv1D) for path in modules),
        bias=bias,
        lora_bias=lora_bias,
        inference_mode=True,
    )
    network: Any = model.network
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties and missing biases: our notes and errors say what follows from them
        try:
            tuned = get_peft_model(type(network)(network.config), config)
        except ValueError as error:  # such as modules that their model's kernels go around
            raise UnsupportedModel(f"PEFT has no adapter for {model.name}: {error}. Export a checkpoint.") from error
    config.base_model_name_or_path = model.name  # PEFT has put the empty network's
    layers: dict[str, Layer] = {}
    for name, layer in tuned.named_modules():
        if isinstance(layer, LoraLayer):
            path = name.removeprefix(PREFIX).replace(".base_layer", "")
            layers[f"{path}.{getattr(layer, 'parameter_name', 'weight')}"] = name, layer
    lost = [path for path in modules if f"{path}.weight" not in layers]
    if lost and not lora_bias:
        # In mixture models PEFT takes a module that is called as the experts' matrices once were for those.
        kept = [path for path in modules if path not in lost]
        return _injected(model, kept, [*parameters, *(f"{path}.weight" for path in lost)], bias=bias)
    wrong = layers.keys() ^ {*(f"{path}.weight" for path in modules), *parameters}
    if wrong:
        raise UnsupportedModel(
            f"PEFT makes another adapter of {model.name} than it was asked for: it differs in {min(wrong)}. "
            "Export a checkpoint instead."
        )
    return config, layers


class _Wrapped(nn.Module):
    """Stand in a module's place as PEFT's wrapper of bare parameters does: it can be called, and no more."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def _check_called(model: ChatModel, layers: Mapping[str, Layer]) -> None:
    """Refuse bare parameters of a module that the network reads without calling it: there PEFT cannot change them."""
    paths = {name.rpartition(".")[0] for name, (_, layer) in layers.items() if hasattr(layer, "parameter_name")}
    inner = {path: model.network.get_submodule(path) for path in paths}
    try:
        for path, module in inner.items():
            model.network.set_submodule(path, _Wrapped(module))
        engine.forward(model, [model.encode(PROBES[0])])
    except AttributeError as error:
        raise UnsupportedModel(
            f"The network of {model.name} reads tensors of a module such as '{min(paths)}' without calling it, so PEFT "
            "cannot change them. Export a checkpoint instead."
        ) from error
    finally:
        for path, module in inner.items():
            model.network.set_submodule(path, module)


def _filled(name: str, layer: Any, u: Float[Tensor, "*k i"], v: Float[Tensor, "*k o"]) -> dict[str, Tensor]:
    """Return A and B of one layer, whose weight, as it lies in memory, gains u vᵀ (BA of an (out, in) matrix)."""
    base = layer.get_base_layer()
    table = isinstance(base, nn.Embedding) and not hasattr(layer, "parameter_name")
    stack = u.ndim > 1
    lies_in_out = table or isinstance(base, Conv1D) or (stack and getattr(base, "is_transposed", False))
    out, inner = (v, u) if lies_in_out else (u, v)
    a, b = inner.reshape(-1, inner.shape[-1]), out.reshape(-1, out.shape[-1]).mT
    kind = "lora_embedding_{}" if table else "lora_{}.weight"
    expected = [layer.lora_embedding_A, layer.lora_embedding_B] if table else [layer.lora_A, layer.lora_B]
    shapes = [tuple(e["default"].shape if table else e["default"].weight.shape) for e in expected]
    assert [tuple(a.shape), tuple(b.shape)] == shapes, f"{name}: {a.shape}, {b.shape} for PEFT's {shapes}"
    # Copies: several layers may share r̂ itself, which safetensors refuses.
    return {f"{name}.{kind.format('A')}": a.clone(), f"{name}.{kind.format('B')}": b.contiguous().clone()}


def _write(
    model: ChatModel,
    direction: Direction,
    config: Any,
    tensors: dict[str, Tensor],
    adapter: Adapter,
    what: str,
    asked: Mapping[str, Any],
) -> Adapter:
    folder = adapter.folder
    data = save(tensors, {"format": "pt"})
    write_bytes(folder / "adapter_model.safetensors", data)
    fields = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
    settings = (json.dumps(fields, indent=2, sort_keys=True, default=str) + "\n").encode()
    files = {"adapter_model.safetensors": data, "adapter_config.json": settings}
    about = {"form": "lora", "source": model.name, "direction": describe_direction(direction), **asked}
    hashes = {name: sha256(content).hexdigest() for name, content in files.items()}
    write_papers(folder, _card(model, direction, adapter, what), about | adapter.record(), hashes)
    # Last, because nothing takes the folder for an adapter without it.
    write_bytes(folder / "adapter_config.json", settings)
    return adapter


def _card(model: ChatModel, direction: Direction, adapter: Adapter, what: str) -> str:
    front = f"---\nbase_model: {json.dumps(model.name)}\nlibrary_name: peft\ntags: [lora, refusal-direction]\n---\n"
    lines = [
        f"# Adapter of {model.name}",
        f"{what} Made after *Refusal in Language Models Is Mediated by a Single Direction* (arXiv 2406.11717).",
        f"Direction: layer {direction.layer}, position {direction.position}, length {direction.norm:.6g}, SHA-256 of "
        f"its values as float64 `{direction_hash(direction)}`.",
        "```python\nimport peft\nmodel = peft.PeftModel.from_pretrained(base, folder)\n```",
        *adapter.notes,
        f"## Tensors changed ({len(adapter.tensors)})",
        "\n".join(f"- `{name}`" for name in adapter.tensors),
    ]
    return front + "\n" + "\n\n".join(lines) + "\n"
