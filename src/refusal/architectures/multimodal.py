"""Models that see: a language model inside, and a vision tower whose last matrices write token embeddings."""

from dataclasses import replace

from refusal.architectures.parts import linear, tensor
from refusal.architectures.postnorm import GEMMA2
from refusal.architectures.prenorm import LLAMA
from refusal.architectures.row import Architecture, Writer


def _wrapped(row: Architecture, model_type: str, images: tuple[Writer, ...], vision: tuple[str, ...]) -> Architecture:
    """Return the row of a language model that lies in `model.language_model`.

    Image tokens join the stream as embeddings in front of the first block, or, as Qwen's deepstack, between blocks:
    the next block's input covers them.
    """

    def inner(name: str) -> str:
        return f"model.language_model.{name.removeprefix('model.')}" if name.startswith("model.") else name

    writers = (
        replace(
            writer, name=inner(writer.name), norm=writer.norm and replace(writer.norm, name=inner(writer.norm.name))
        )
        for writer in row.writers
    )
    return replace(
        row,
        model_types=(model_type,),
        blocks=inner(row.blocks),
        writers=(*writers, *images),
        others=(*(inner(pattern) for pattern in row.others), *vision),
    )


GEMMA3 = _wrapped(
    GEMMA2,
    "gemma3",
    tensor("model.multi_modal_projector.mm_input_projection_weight", -1),
    ("model.vision_tower.**", "model.multi_modal_projector.mm_soft_emb_norm.*"),
)

MISTRAL3 = _wrapped(
    LLAMA,
    "mistral3",
    linear("model.multi_modal_projector.linear_2"),
    (
        "model.vision_tower.**",
        "model.multi_modal_projector.norm.*",
        "model.multi_modal_projector.linear_1.*",
        "model.multi_modal_projector.patch_merger.**",
    ),
)

QWEN3_VL = _wrapped(
    LLAMA,
    "qwen3_vl",
    (*linear("model.visual.merger.linear_fc2"), *linear("model.visual.deepstack_merger_list.*.linear_fc2")),
    (
        "model.visual.patch_embed.**",
        "model.visual.pos_embed.*",
        "model.visual.blocks.**",
        "model.visual.merger.norm.*",
        "model.visual.merger.linear_fc1.*",
        "model.visual.deepstack_merger_list.*.norm.*",
        "model.visual.deepstack_merger_list.*.linear_fc1.*",
    ),
)

ROWS = (GEMMA3, MISTRAL3, QWEN3_VL)
