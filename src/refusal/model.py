"""A chat model: the network, its tokenizer and its chat template, and where the instruction ends in tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from refusal.architectures import ROWS, Architecture, blocks, find
from refusal.config import BUNDLED
from refusal.errors import BadInput, UnsupportedModel, did_you_mean
from refusal.loading import SPREAD, choose_device, choose_dtype, load_network, load_part

# Instructions that end in every kind of character, so that what all their renderings share at the end is template.
PROBES = (
    "Name a colour",
    "Why?",
    "count to 7",
    'He said "no"',
    "f(x)",
    "Grüße 你好",
    "stop.",
    "a, b;",
    "END\\",
    "x=*",
)


@dataclass(frozen=True, eq=False)
class ChatModel:
    """A Hugging Face causal language model with its tokenizer; both stay reachable and unchanged.

    `network` and `tokenizer` are the transformers objects. `post_instruction` are the token ids that the chat template
    puts behind every instruction. `choices` says which settings were chosen for the user, and why.
    """

    network: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    architecture: Architecture = field(repr=False)
    name: str
    system: str | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    post_instruction: tuple[int, ...] = ()
    _encoded: dict[str, list[int]] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_layers(self) -> int:
        """How many decoder blocks there are."""
        return len(blocks(self.network, self.architecture))

    @property
    def device(self) -> torch.device:
        """Where the embedding lies, or is brought to when it runs, and so where token ids have to be."""
        embedding = self.network.get_input_embeddings()
        own = next(embedding.parameters()).device
        if own.type == "meta" and (hook := getattr(embedding, "_hf_hook", None)) is not None:  # accelerate's offloading
            return torch.device(hook.execution_device)
        return own

    @property
    def pad_token(self) -> int:
        """The id that fills prompts up on the left, else that of the end of sequence; it is always masked."""
        own: Any = self.tokenizer.pad_token_id
        end: Any = self.tokenizer.eos_token_id
        return int(end if own is None else own)

    @property
    def post_instruction_tokens(self) -> tuple[str, ...]:
        """The text of each post-instruction token, first first."""
        return tuple(self.text(token) for token in self.post_instruction)

    def text(self, token: int) -> str:
        """Return one token as text."""
        return str(self.tokenizer.decode([token]))

    def encode(self, instruction: str) -> list[int]:
        """Render one instruction through the chat template, ready for the answer, as token ids.

        Raises UnsupportedModel when the rendering does not end in the post-instruction tokens.
        """
        if instruction in self._encoded:
            return list(self._encoded[instruction])
        tokens = _render(self, instruction)
        if tuple(tokens[-len(self.post_instruction) :]) != self.post_instruction:
            raise UnsupportedModel(
                f"The chat template of {self.name} merges the end of this instruction with its own tokens: "
                f"{instruction[-20:]!r} (last characters). Remove or change that prompt."
            )
        self._encoded[instruction] = tokens
        return list(tokens)

    def rendered(self, instruction: str, answer: str | None = None) -> str:
        """Render one instruction through the chat template, ready for the answer or with one behind it, as text."""
        return _apply_template(self, instruction, answer, tokenize=False)


def load_model(
    model: str | Path | PreTrainedModel = BUNDLED,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    dtype: str = "auto",
    device: str = "auto",
    system: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
    architecture: Architecture | None = None,
    network_from: Callable[[str, Any, torch.device], PreTrainedModel] | None = None,
) -> ChatModel:
    """Load a chat model by Hugging Face id or folder, take one already loaded, or (default) the bundled one.

    A loaded network is used as it is, on its device or devices and in its dtype, and put into evaluation mode. For any
    other, `dtype` is a torch dtype name or "auto" (float32 on a CPU, else the checkpoint's), and `device` is "cpu",
    "cuda", …, "auto", or "spread": over all GPUs, and main memory if need be, as accelerate places the blocks. `system`
    and `template_arguments` (such as `{"enable_thinking": False}`) go to the chat template. `architecture` is a row of
    your own for a family that is not covered; it is checked like ours. `network_from` makes the network in another way
    than transformers does, from folder or id, dtype (or "auto") and device.
    Raises BadInput for a name that cannot be loaded or a setting that does not exist, UnsupportedModel for an
    architecture, tokenizer or template that is not covered.
    """
    choices: dict[str, str] = {}
    if isinstance(model, PreTrainedModel):
        if tokenizer is None:
            raise BadInput("load_model was given a loaded network without its tokenizer. Pass both.")
        network, name = model, str(model.config.name_or_path or type(model).__name__)
    else:
        name, path = str(model), _path(str(model))
        target = choose_device(device, choices)
        make = network_from or partial(load_network, spread=device == SPREAD)
        network = make(path, choose_dtype(dtype, target, choices), target)
        tokenizer = load_part(AutoTokenizer, path, {}) if tokenizer is None else tokenizer
    assert tokenizer is not None
    network.eval()
    architecture = find(network, ROWS if architecture is None else (architecture,))
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise UnsupportedModel(
            f"The tokenizer of {name} names neither a padding nor an end-of-sequence token, so prompts cannot be "
            "batched and answers have no end. Set tokenizer.eos_token and pass the loaded model."
        )
    if tokenizer.pad_token_id is None:
        choices["pad token"] = f"{tokenizer.eos_token!r}, because the tokenizer names none (padding is masked)"
    bare = ChatModel(
        network=network,
        tokenizer=tokenizer,
        architecture=architecture,
        name=name,
        system=system,
        template_arguments=dict(template_arguments or {}),
        choices=choices,
    )
    return replace(bare, post_instruction=_post_instruction(bare))


def _path(name: str) -> str:
    if name != BUNDLED:
        if (near := did_you_mean(name, [BUNDLED], cutoff=0.8)) and not Path(name).exists():
            raise BadInput(f"There is no model '{name}' here. {near}That is the bundled one.")
        return name
    from refusal.organism import checkpoint  # the bundled weights live beside the code

    return str(checkpoint("chat"))


def _render(model: ChatModel, instruction: str) -> list[int]:
    return list(_apply_template(model, instruction, None, tokenize=True)["input_ids"])


def _apply_template(model: ChatModel, instruction: str, answer: str | None, *, tokenize: bool) -> Any:
    messages = [{"role": "system", "content": model.system}] if model.system is not None else []
    messages.append({"role": "user", "content": instruction})
    messages += [{"role": "assistant", "content": answer}] if answer is not None else []
    how = {"add_generation_prompt": answer is None, "tokenize": tokenize, "return_dict": tokenize}
    try:
        return model.tokenizer.apply_chat_template(messages, **how, **model.template_arguments)
    except (TypeError, ValueError, TemplateError) as error:  # such as a template that takes no system prompt
        raise UnsupportedModel(
            f"The chat template of {model.name} cannot render a prompt with system={model.system!r} and "
            f"template_arguments={dict(model.template_arguments)}: {error}. Leave out what it does not take."
        ) from error


def _post_instruction(model: ChatModel) -> tuple[int, ...]:
    """Find the template's tokens behind the instruction: the longest end that all rendered probes share.

    In token space, because the template's text tokenised alone can differ from the same text inside a prompt
    (the official Llama-2 run got a position that is an instruction token that way).
    """
    if not model.tokenizer.chat_template:
        raise UnsupportedModel(
            f"The tokenizer of {model.name} has no chat template, so where an instruction ends is unknown. "
            "Use a chat model, or set tokenizer.chat_template before passing the loaded model."
        )
    rendered = [_render(model, probe) for probe in PROBES]
    for probe, tokens in zip(PROBES, rendered, strict=True):
        if probe not in str(model.tokenizer.decode(tokens)):
            raise UnsupportedModel(
                f"The chat template of {model.name} hides the user's text: {probe!r} is not in the rendered prompt "
                f"{model.tokenizer.decode(tokens)!r}. Check the chat template and the tokenizer that was loaded."
            )
    shared = _common_end(rendered)
    if not shared:
        raise UnsupportedModel(
            f"The chat template of {model.name} puts no token behind the instruction, so there is no "
            "post-instruction position to read. Use a template with a generation prompt."
        )
    return shared


def _common_end(sequences: Sequence[Sequence[int]]) -> tuple[int, ...]:
    length = 0
    for tokens in zip(*(reversed(s) for s in sequences), strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return tuple(sequences[0][len(sequences[0]) - length :])
