"""A control vector says what llama.cpp reads; with llama-cpp-python installed, its logits are those of the hook."""

import ctypes
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

import tiny
from refusal import engine
from refusal.direction import Direction
from refusal.errors import BadInput, Unavailable
from refusal.interventions import add
from refusal.weights.gguf import export_control_vector


def test_the_file_reads_back_as_one_direction_behind_the_block_before(tmp_path):
    direction = tiny.direction(tiny.shared(), layer=2)
    path = export_control_vector(tiny.shared(), direction, tmp_path / "c.gguf", coefficient=-1.5)
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    assert reader.fields["controlvector.layer_count"].contents() == 2
    (tensor,) = reader.tensors
    assert tensor.name == "direction.1"  # behind block 1: what block 2 reads
    assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
    assert np.array_equal(tensor.data, (-1.5 * direction.vector).float().numpy())


def test_the_same_direction_is_the_same_bytes(tmp_path):
    direction = tiny.direction(tiny.shared(), layer=2)
    for name in ("a", "b"):
        export_control_vector(tiny.shared(), direction, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("layer", "message"), [(0, "2 or more"), (1, "2 or more"), (3, "layers 0 to 2")])
def test_a_layer_that_the_format_cannot_say_is_refused(layer, message, tmp_path):
    direction = tiny.direction(tiny.shared(), layer=2)
    with pytest.raises(BadInput, match=f"at layer {layer}.*{message}"):
        export_control_vector(tiny.shared(), direction, tmp_path / "c.gguf", layer=layer)
    assert list(tmp_path.iterdir()) == []


def test_without_gguf_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(Unavailable, match=r"refusal\[gguf\]"):
        export_control_vector(tiny.shared(), tiny.direction(tiny.shared(), layer=2), tmp_path / "c")


# --- in llama.cpp itself ----------------------------------------------------------------------------------------


def convert(model, path: Path):
    """Write a Llama network as float32 GGUF without a vocabulary: llama.cpp is given token ids."""
    config, n = model.network.config, model.n_layers
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, n)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(n)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    for name, tensor in model.network.named_parameters():
        data = tensor.detach().float().numpy()
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}.get(name.split("_proj")[0][-1])
        if heads and "self_attn" in name:  # llama.cpp rotates neighbours, transformers halves
            data = data.reshape(heads, 2, -1, data.shape[-1]).swapaxes(1, 2).reshape(data.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_logits(llama_cpp, path, prompts, n_layers, vector=None):
    """Return the last logits of every prompt, with a control vector loaded as llama.cpp's own loader lays it out."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 256
    settings.n_threads = settings.n_threads_batch = 1
    settings.type_k = settings.type_v = llama_cpp.GGML_TYPE_F32  # its cache is float16 otherwise
    settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, settings)
    width = llama_cpp.llama_model_n_embd(model)
    if vector is not None:
        data = np.zeros((n_layers - 1, width), np.float32)
        for tensor in gguf.GGUFReader(vector).tensors:
            data[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data  # common_control_vector_load_one
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        assert llama_cpp.llama_set_adapter_cvec(context, pointer, data.size, width, 1, n_layers) == 0
    rows = []
    for tokens in prompts:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)  # has to outlive the batch, which only points to it
        batch = llama_cpp.llama_batch_get_one(ids, len(tokens))
        assert llama_cpp.llama_decode(context, batch) == 0
        size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        rows.append(np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (size,)).copy())
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return torch.from_numpy(np.stack(rows))


def test_llama_cpp_finds_the_logits_of_the_hook(bundled, harmless, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (it builds from source)")
    convert(bundled, tmp_path / "model.gguf")
    prompts = [bundled.encode(prompt.instruction) for prompt in harmless.test[:4]]
    noise = torch.randn(bundled.network.config.hidden_size, generator=torch.Generator().manual_seed(0))
    base = engine.last_logits(bundled, prompts)
    off = (llama_logits(llama_cpp, tmp_path / "model.gguf", prompts, bundled.n_layers) - base).abs().max()
    for layer in (2, bundled.n_layers // 2, bundled.n_layers - 1):
        direction = Direction(noise / noise.norm() * 30, layer, -1)
        vector = export_control_vector(bundled, direction, tmp_path / f"{layer}.gguf")
        steered = llama_logits(llama_cpp, tmp_path / "model.gguf", prompts, bundled.n_layers, vector)
        with add(bundled, direction):
            hooked = engine.last_logits(bundled, prompts)
        with add(bundled, direction, layer=layer - 1):
            one_off = engine.last_logits(bundled, prompts)
        effect, difference = (hooked - base).abs().max(), (steered - hooked).abs().max()
        print(f"layer {layer}: effect {effect:.3g}, difference {difference:.2g}, without {off:.2g}")
        assert difference < 1e-4 * effect
        assert (steered - one_off).abs().max() > 5 * difference  # the neighbouring layer is told apart
