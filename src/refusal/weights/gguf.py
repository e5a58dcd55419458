"""Activation addition as a llama.cpp control vector: a GGUF file that `--control-vector` takes.

llama.cpp adds `direction.N` to what block N puts out (its graphs call `build_cvec` behind the block's last sum, and
`llama_adapter_cvec` keeps no vector for block 0). Blocks count from 0, so `direction.N` is resid_post of layer N, which
is resid_pre of layer N + 1: our addition at layer l is `direction.(l−1)`, and l has to be 2 or more.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from refusal.direction import Direction
from refusal.errors import BadInput, Unavailable, UnsupportedModel
from refusal.records import write_bytes
from refusal.weights.target import new_file

ARCHITECTURE = "controlvector"
FIRST_LAYER = 2
NO_ABLATION = (
    "Directional ablation has no form in GGUF: a control vector only adds. Export a checkpoint and convert that with "
    "llama.cpp's convert_hf_to_gguf.py, which takes it like any other."
)
INSTALL = 'GGUF files need the package gguf: pip install "refusal[gguf]"'


def export_control_vector(
    direction: Direction,
    out: Path | str,
    *,
    model_type: str,
    n_layers: int,
    coefficient: float = 1.0,
    layer: int | None = None,
    intervention: str = "addition",
) -> Path:
    """Write c·r as tensor `direction.(l−1)` of a control vector for a model of `n_layers` blocks (paper eq. 3).

    `layer` is the one at whose input the hook would add, by default the direction's own; `model_type` is a hint for
    readers. Raises BadInput for a file that is there, for layer 0 or 1, which the format cannot say, and for a layer
    that the model does not have; UnsupportedModel for ablation; Unavailable without the package gguf.
    """
    if intervention != "addition":
        raise UnsupportedModel(NO_ABLATION)
    chosen = direction.layer if layer is None else layer
    if chosen not in range(FIRST_LAYER, n_layers):
        has = f"this model has layers 0 to {n_layers - 1}, and " if chosen >= n_layers else ""
        raise BadInput(
            f"A control vector cannot add at layer {chosen}: {has}llama.cpp adds behind a block and never behind the "
            f"first, so the layer has to be {FIRST_LAYER} or more. Choose another, or bake the addition into a "
            "checkpoint and convert that."
        )
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise Unavailable(INSTALL) from error
    path = new_file(out)
    with TemporaryDirectory() as folder:  # the writer makes its file piece by piece
        made = Path(folder) / "made.gguf"
        writer = GGUFWriter(made, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model_type)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", n_layers - 1)  # of those that can be steered
        vector = (coefficient * direction.vector.double().cpu()).to(torch.float32)
        writer.add_tensor(f"direction.{chosen - 1}", vector.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        write_bytes(path, made.read_bytes())
    return path
