"""Is an export the ablated model? Both are run on the same prompts, and their difference held against the effect."""

import gc
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from refusal import engine
from refusal.architectures import EXACT, Architecture
from refusal.direction import Direction
from refusal.errors import BadInput, Unavailable
from refusal.extraction import Prompts, encode
from refusal.generation import greedy_tokens
from refusal.interventions import ablate, add
from refusal.model import ChatModel, load_model
from refusal.weights.memory import copied
from refusal.weights.safetensors_files import FLOATS, read_files
from refusal.weights.unfinished import MARKER

ADAPTER = "adapter_config.json"
# Measured on tiny models of several families: rounding makes 1e-6 (float32), 0.003 (float16), 0.02 (bfloat16) of the
# effect, and one matrix left out 0.03 to 0.6.
ROUNDINGS, LEAST = 8, 1e-3


@dataclass(frozen=True)
class Proof:
    """How far an export is from the ablated source, and how far that is from the source itself.

    Logits are those behind every prompt and behind its ablated answer; tokens those of greedy answers, of which
    `agreement` is the share that is the same at the same place.
    """

    source: str
    export: str
    prompts: int
    difference: float  # the largest of a logit between export and ablated source
    effect: float  # the largest of a logit between source and ablated source
    agreement: float  # of the export's tokens with the ablated source's
    plain_agreement: float  # of the source's tokens with the ablated source's
    tokens: int  # in the ablated source's answers
    reach: str  # what the family's weight edit reaches, in the words of the table of families
    limit: float

    @property
    def share(self) -> float:
        """The difference as a share of the effect."""
        return self.difference / self.effect

    @property
    def holds(self) -> bool:
        """Tell whether the difference is within `limit` of the effect."""
        return self.share <= self.limit

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "share": self.share, "holds": self.holds, "exact": self.reach == EXACT}


def verify_export(
    model: ChatModel | str | Path,
    export: str | Path,
    direction: Direction,
    prompts: Prompts,
    *,
    intervention: Literal["ablation", "addition"] = "ablation",
    coefficient: float = 1.0,
    layer: int | None = None,
    max_new_tokens: int = 32,
    limit: float | None = None,
    dtype: str = "auto",
    device: str = "auto",
    architecture: Architecture | None = None,
) -> Proof:
    """Run a model under hooks and its export (checkpoint or LoRA folder) on the same prompts, and compare.

    The hooks are those of ablation, or of addition with `coefficient` and `layer`. A proof holds when no logit differs
    by more than `limit` of the largest change that they make; by default that is what rounding to the export's dtype
    may do (1/16 for bfloat16, 1/128 for float16, 1/1000 for float32). `dtype`, `device` and `architecture` are those of
    `load_model`, for a model that is not loaded yet. Raises BadInput for prompts on which the hooks change nothing, an
    export whose tokens are others, and the errors of loading either.
    """
    given = isinstance(model, ChatModel)
    loading: dict[str, Any] = {"dtype": dtype, "device": device, "architecture": architecture}
    source: Any = model if isinstance(model, ChatModel) else load_model(model, **loading)
    name, asked = source.name, encode(source, prompts)
    reach = source.architecture.edit if intervention == "ablation" else EXACT
    steered = partial(add, coefficient=coefficient, layer=layer)
    with (ablate if intervention == "ablation" else steered)(source, direction):
        ablated = greedy_tokens(source, prompts, max_new_tokens=max_new_tokens)
        sequences = [*asked, *(list(prompt) + answer for prompt, answer in zip(asked, ablated, strict=True))]
        wanted = engine.last_logits(source, sequences)
    effect = _largest(engine.last_logits(source, sequences), wanted)
    if not effect > 0:
        raise BadInput(f"The {intervention} changes no logit on these prompts, so they prove nothing. Give others.")
    plain = greedy_tokens(source, prompts, max_new_tokens=max_new_tokens)
    if not given and not is_adapter(export):  # two models at once may be more than memory holds
        source = None
        gc.collect()
    edited = load_export(export, source, copy=given, **loading)
    if encode(edited, prompts) != asked:
        raise BadInput(
            f"{export} makes other tokens of the same prompts than {name}: its tokenizer or template differs."
        )
    return Proof(
        source=name,
        export=str(export),
        prompts=len(prompts),
        difference=_largest(engine.last_logits(edited, sequences), wanted),
        effect=effect,
        agreement=_agreement(greedy_tokens(edited, prompts, max_new_tokens=max_new_tokens), ablated),
        plain_agreement=_agreement(plain, ablated),
        tokens=sum(len(answer) for answer in ablated),
        reach=reach,
        limit=_rounding(edited, Path(export)) if limit is None else limit,
    )


def load_export(
    export: str | Path,
    base: ChatModel | None = None,
    *,
    copy: bool = True,
    dtype: str = "auto",
    device: str = "auto",
    architecture: Architecture | None = None,
) -> ChatModel:
    """Load an exported checkpoint, or a LoRA folder beside its base model (the given one, or the one that it names).

    A given base is copied, unless told not to. A checkpoint is loaded like the base: in its dtype, on its device, with
    its system prompt and row. Raises BadInput for an unfinished export, Unavailable for an adapter without peft.
    """
    folder = Path(export)
    if folder.is_file():
        raise BadInput(f"{folder} is a file. Give the folder of an exported checkpoint or LoRA adapter.")
    if (folder / MARKER).exists():
        raise BadInput(f"{folder} is an export that was stopped. Run the same export again to finish it.")
    loading: dict[str, Any] = {"dtype": dtype, "device": device, "architecture": architecture}
    if not is_adapter(folder):
        if base is not None:
            loading = {
                "dtype": str(base.network.dtype).removeprefix("torch."),
                "device": str(base.device),
                "system": base.system,
                "template_arguments": base.template_arguments,
                "architecture": base.architecture,
            }
        return load_model(folder, **loading)
    try:
        from peft import PeftConfig, PeftModel
    except ImportError as error:
        raise Unavailable('LoRA adapters need the package peft: pip install "refusal[adapters]"') from error
    if base is None:
        named = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
        base, copy = load_model(str(named), **loading), False
    network: Any = copied(base.network) if copy else base.network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties, which matter for merging only
        tuned: Any = PeftModel.from_pretrained(network, str(folder))
    # The adapter is put into the modules of the network, which goes on as it is.
    return replace(base, network=tuned.base_model.model, name=str(folder))


def is_adapter(folder: str | Path) -> bool:
    """Tell whether a folder holds a LoRA adapter."""
    return (Path(folder) / ADAPTER).is_file()


def _rounding(model: ChatModel, folder: Path) -> float:
    """Return the share of the effect that rounding explains, of weights on disk and of the arithmetic."""
    stored = (
        []
        if is_adapter(folder)
        else [FLOATS[t.dtype] for t in read_files(folder).tensors.values() if t.dtype in FLOATS]
    )
    return max(LEAST, *(ROUNDINGS * torch.finfo(dtype).eps for dtype in {model.network.dtype, *stored}))


def _largest(a: Float[Tensor, "n v"], b: Float[Tensor, "n v"]) -> float:
    return float((a - b).abs().max())


def _agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """Return the share of places at which both answers have the same token; where one has ended, they differ."""
    same = sum(a == b for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=False))
    return same / sum(max(len(x), len(y)) for x, y in zip(ours, theirs, strict=True))
