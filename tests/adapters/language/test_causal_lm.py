"""The language-model adapter against transformers and peft themselves, on tiny models of the real classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from mmalign.adapters import adapters, load_adapter
from mmalign.adapters.language.causal_lm import CausalLM
from mmalign.adapters.tokens.network import Network
from mmalign.adapters.weights.lora import LoRA
from mmalign.core.errors import CapabilityError, CheckpointError, ConfigError, DataError
from mmalign.core.protocols import Decoding, TokenAdapter
from mmalign.core.types import Prompt
from tests.adapters.language.tiny_lm import MODELS

Lm = Callable[..., Any]
PROMPTS = [Prompt(text) for text in ["a red cube", "two dogs asleep a b c d e", "say"]]
ROWS = torch.tensor([0, 1, 1, 2])
OUTPUTS = ["good bad", "", "a b c d", "red cube say"]


def features(adapter: Any) -> Tensor:
    tokens, mask = adapter.tokenize(OUTPUTS)
    return adapter.features(adapter.encode(PROMPTS), ROWS, tokens, mask)


def logits(adapter: Any) -> Tensor:
    """Of all live steps, one after the other."""
    return adapter.logits(features(adapter)[adapter.tokenize(OUTPUTS)[1]])


def plain(model: Any, adapter: Any) -> Tensor:
    """The same by `model` itself, row by row."""
    tokens, mask = adapter.tokenize(OUTPUTS)
    made = []
    for row, live, which in zip(tokens, mask, ROWS.tolist(), strict=True):
        start = adapter.encode(PROMPTS)[which]["input_ids"]
        with torch.no_grad():
            made.append(model(torch.cat([start, row[live]])[None]).logits[0, len(start) - 1 : -1])
    return torch.cat(made)


@torch.enable_grad()
def train(adapter: Any, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW(adapter.trainable().values(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        logits(adapter).float().log_softmax(-1)[:, 5].sum().neg().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", MODELS)
def test_every_family_gives_transformers_logits_with_its_head_apart(kind: str, lm: Lm, lm_folder: Lm) -> None:
    from transformers import AutoModelForCausalLM

    adapter = lm(kind)
    assert adapter.network.split
    assert adapter.vocabulary == len(adapter.texts.tokenizer)
    model = AutoModelForCausalLM.from_pretrained(lm_folder(kind), dtype=torch.float32).eval()
    wanted = plain(model, adapter)
    with torch.no_grad():
        for share in (True, False):
            adapter.share_prompts = share
            assert (logits(adapter) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
        assert isinstance(adapter, TokenAdapter)
        decoding = adapter.begin(adapter.encode(PROMPTS), ROWS, 5)
        assert isinstance(decoding, Decoding)
        tokens, _ = adapter.tokenize(OUTPUTS)
        whole = features(adapter)
        kept = torch.tensor([0, 2, 3])
        for t in range(tokens.shape[1] - 1):
            rows = ROWS.new_tensor([0, 1, 2, 3]) if t < 2 else kept
            gap = (decoding.features - whole[rows, t])[adapter.tokenize(OUTPUTS)[1][rows, t]]
            assert not gap.numel() or gap.abs().max() <= 1e-5 * whole.abs().max()
            if t == 1:
                decoding.keep(kept)
                rows = kept
            decoding.advance(tokens[rows, t])


def test_a_family_whose_last_layer_does_more_is_asked_for_its_logits(lm: Lm, lm_folder: Lm) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(lm_folder(), dtype=torch.float32).eval()
    model.config.logits_scaling = 2.0  # says so, and does not do it: what it would give differs from the model's own
    network = Network(model)
    assert not network.split
    adapter = lm()
    adapter.module = adapter.network = network
    assert features(adapter).shape[-1] == adapter.vocabulary
    assert (logits(adapter) - plain(model, adapter)).abs().max() <= 1e-5


def test_prompts_go_into_the_template_as_it_came(lm: Lm) -> None:
    adapter = lm("llama", chat="auto")
    tokenizer = adapter.texts.tokenizer
    turn = [{"role": "user", "content": "a red cube"}]

    def ids(adapter: Any) -> list[int]:
        return adapter.encode([Prompt("a red cube")])[0]["input_ids"].tolist()

    def template(messages: Any, **more: Any) -> list[int]:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **more)

    assert ids(adapter) == template(turn) and len(ids(adapter)) == 6
    told = lm("llama", chat=True, system="say good", chat_options={"loud": True})
    assert ids(told) == template([{"role": "system", "content": "say good"}, *turn], loud=True)
    bare = replace(adapter, chat=False).load()
    assert ids(bare) == tokenizer("a red cube")["input_ids"]
    assert lm("llama").texts.chat is False  # "auto" without a template
    with pytest.raises(ConfigError, match=r"chat: true, but the tokenizer has no chat template; set chat: false"):
        CausalLM(lm("llama").model, device="cpu", chat=True).load()
    with pytest.raises(ConfigError, match=r"system: is set, but without a chat template"):
        lm("llama", system="say")


def test_the_tokens_that_end_a_text_come_from_everywhere(lm: Lm) -> None:
    assert lm("llama").stop_ids == (1, 3)  # tokenizer and model: <eos>; generation config: <eos>, <end>
    more = lm("llama", stop=["bad"])
    assert more.stop_ids == (1, 3, 17)
    tokens, mask = more.tokenize(["good", "a b"])
    assert tokens.tolist() == [[16, 1, 0], [5, 6, 1]] and mask.tolist() == [[True, True, False], [True] * 3]
    assert more.decode(torch.tensor([[16, 3, 0], [5, 17, 0], [5, 6, 7]]), torch.tensor([[True, True, False]] * 2 + [[True] * 3])) == ["good", "a", "a b c"]  # noqa: E501  # fmt: skip
    marked = lm("llama", keep_special_tokens=True)
    assert marked.decode(torch.tensor([[2, 16, 3]]), torch.ones(1, 3, dtype=torch.bool)) == ["<bos> good"]
    with pytest.raises(ConfigError, match=r"stop: 'a b' is 2 tokens of this tokenizer; .*special tokens: <bos>, <end>"):
        lm("llama", stop=["a b"])


def test_prompts_that_cannot_be_continued_are_refused(lm: Lm) -> None:
    adapter = lm("gpt2")
    inputs = adapter.encode([Prompt("a " * 60)])
    with pytest.raises(DataError, match=r"a prompt of 60 tokens and a completion of 5 are longer .* context of 64"):
        adapter.begin(inputs, torch.tensor([0]), 5)
    tokens, mask = adapter.tokenize(["a b c d e"])
    with pytest.raises(DataError, match=r"lower the policy's max_new_tokens"):
        adapter.features(inputs, torch.tensor([0]), tokens, mask)
    adapter.begin(inputs, torch.tensor([0]), 4)
    with pytest.raises(CapabilityError, match=r"row 0: the prompt carries media \(image\) and 'causal_lm' reads text"):
        adapter.encode([Prompt("a", media={"image": torch.zeros(3, 8, 8)})])
    adapter.texts.tokenizer.bos_token = None
    with pytest.raises(DataError, match=r"a prompt is an empty text, and this tokenizer has no start token"):
        adapter.encode([Prompt("")])


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
def test_plain_peft_loads_the_lora(kind: str, lm: Lm, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    adapter = lm(kind)
    train(adapter)
    adapter.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()
    assert (logits(adapter) - plain(model, adapter)).abs().max() <= 1e-5 * logits(adapter).abs().max()
    assert (logits(adapter) - logits(lm(kind))).abs().max() > 0.1
    fresh = lm(kind)
    fresh.restore(tmp_path)
    assert torch.equal(logits(fresh), logits(adapter))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in fresh.trainable().values())


def test_a_full_fine_tune_is_a_folder_that_transformers_reads(lm: Lm, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = lm("llama", train="full", chat="auto")  # tied embeddings
    train(adapter)
    adapter.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert (logits(adapter) - plain(model, adapter)).abs().max() <= 1e-5 * logits(adapter).abs().max()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template == adapter.texts.tokenizer.chat_template
    fresh = lm("llama", train="full", chat="auto")
    fresh.restore(tmp_path)
    assert torch.equal(logits(fresh), logits(adapter))
    assert torch.equal(logits(load_adapter("causal_lm", model=str(tmp_path), device="cpu")), logits(adapter))
    with fresh.reference(), adapter.reference():
        assert torch.equal(logits(fresh), logits(adapter))  # the reference stays the base model


@pytest.mark.parametrize("how", ["lora", "full", "start_lora"])
@torch.no_grad()
def test_the_reference_is_the_start_whatever_was_trained(how: str, lm: Lm, tmp_path: Path) -> None:
    options: dict[str, Any] = {"train": "full"} if how == "full" else {}
    base = logits(lm())
    if how == "start_lora":
        first = lm()
        train(first, 3)
        first.save(tmp_path)
        options = {"start_lora": str(tmp_path)}
    adapter = lm(**options)
    start = logits(adapter)
    assert torch.equal(start, base) != (how == "start_lora")
    with adapter.reference():
        assert torch.equal(logits(adapter), start)
    train(adapter)
    moved = logits(adapter)
    assert (moved - start).abs().max() > 0.01
    with adapter.reference():
        assert torch.equal(logits(adapter), start)
        with adapter.reference():
            assert torch.equal(logits(adapter), start)
        assert torch.equal(logits(adapter), start)
    assert torch.equal(logits(adapter), moved)
    train(adapter, 1)


def test_a_lora_to_start_from_may_be_any_of_pefts(lm: Lm, lm_folder: Lm, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(lm_folder(), dtype=torch.float32)
    config = LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "up_proj"], use_dora=True)
    foreign = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, p in foreign.named_parameters():
            if "lora_B" in name:
                p.normal_()
    foreign.save_pretrained(tmp_path / "foreign")
    adapter = lm(start_lora=str(tmp_path / "foreign"))
    assert (logits(adapter) - plain(foreign, adapter)).abs().max() <= 1e-5 * logits(adapter).abs().max()
    train(adapter)
    adapter.save(tmp_path / "ours")
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert (logits(adapter) - plain(again, adapter)).abs().max() <= 1e-5 * logits(adapter).abs().max()


def test_adapters_that_do_not_fit_are_refused_naming_a_key(lm: Lm, tmp_path: Path) -> None:
    adapter = lm()
    adapter.save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    key = min(state)
    save_file({k: v for k, v in state.items() if k != key}, file)
    with pytest.raises(CheckpointError, match=r"1 LoRA keys that it lacks, the first is 'model\.layers\.0"):
        adapter.restore(tmp_path)
    with pytest.raises(CheckpointError, match=r"1 of the matrices that belong in pairs are missing: base_model\.model"):
        lm(start_lora=str(tmp_path))
    save_file(state, file)
    with pytest.raises(CheckpointError, match=r"Set lora\.rank to what it was trained with \(4\?\)"):
        lm(lora=LoRA(rank=3)).restore(tmp_path)
    with pytest.raises(CheckpointError, match=r"14 of its 14 layers are not in this GPT2LMHeadModel: model\.layers"):
        lm("gpt2", start_lora=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"elsewhere: no such folder; give an existing adapter folder or"):
        lm(start_lora=str(tmp_path / "elsewhere"))
    file.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: no such file; a folder saved by peft"):
        adapter.restore(tmp_path)
    with pytest.raises(CheckpointError, match=r"config.json: missing; it is a LoRA: set start_lora to .*, and"):
        CausalLM(str(tmp_path)).load()
    with pytest.raises(ConfigError, match=r"freeze_start: names nothing to freeze: there is no start_lora"):
        CausalLM("x", freeze_start=True)
    with pytest.raises(ConfigError, match=r"freeze_start: is of train: lora; leave it out"):
        CausalLM("x", train="full", start_lora="y", freeze_start=True)
    with pytest.raises(ConfigError, match=r"to_qq names no module of LlamaForCausalLM.*self_attn\.q_proj"):
        lm(lora=LoRA(target_modules=["to_qq"]))


def test_a_lora_goes_everywhere_but_the_head_unless_told(lm: Lm) -> None:
    names = {name.split(".lora_")[0].rpartition(".")[2] for name in lm("llama").trainable()}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    only = lm("llama", lora=LoRA(rank=2, target_modules=["q_proj", "lm_head"]))
    assert any("lm_head.lora_A" in name for name in only.trainable())
    train(only)
    assert only.trainable()["lm_head.lora_B.default.weight"].abs().sum() > 0


def test_a_broken_or_foreign_folder_is_named(lm_folder: Lm, tmp_path: Path) -> None:
    folder = shutil.copytree(lm_folder(), tmp_path / "model")

    def load() -> Any:
        return CausalLM(str(folder), device="cpu").load()

    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-50])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated or damaged"):
        load()
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has only pickled weights \(pytorch_model\.bin\), which are never"):
        load()
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nonsense"}))
    with pytest.raises(CheckpointError, match=r"model: no causal language model could be built from it"):
        load()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"model: no tokenizer could be built from it"):
        load()
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: missing; a model folder has it"):
        load()
    with pytest.raises(CheckpointError, match=r"nowhere: no such folder; give an existing model folder or a Hub id"):
        CausalLM(str(tmp_path / "nowhere")).load()
    with pytest.raises(CheckpointError, match=r"is a file; a model folder \(with config.json\) or a Hub id is needed"):
        CausalLM(str(weights)).load()
    with pytest.raises(CheckpointError, match=r"nobody/nothing: not a local folder, and the Hub did not give it"):
        CausalLM("nobody/nothing").load()


def test_a_hub_id_is_loaded_by_the_same_code(lm_folder: Lm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(lm_folder())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    adapter = CausalLM("someone/model", device="cpu", revision="main").load()
    adapter.save(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/model"
    assert asked[0][0] == "someone/model" and asked[0][1]["revision"] == "main"
    assert not any(pattern.endswith((".bin", ".py")) for pattern in asked[0][1]["allow_patterns"])


def gradient(adapter: Any) -> Tensor:
    adapter.module.zero_grad()
    logits(adapter).log_softmax(-1)[:, 5].sum().backward()
    return torch.cat([p.grad.flatten() for p in adapter.trainable().values()])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])  # OPT's layers draw a dropout of their own in training mode
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_checkpointed_layers_give_the_same_gradient(kind: str, mode: str, lm: Lm) -> None:
    adapter, lean = lm(kind, train=mode), lm(kind, train=mode, gradient_checkpointing=True)
    calls = []
    layer = next(m for m in lean.network.modules() if isinstance(m, GradientCheckpointingLayer))
    next(layer.children()).register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        assert torch.equal(logits(lean), logits(adapter))
    calls.clear()
    wanted, found = gradient(adapter), gradient(lean)
    assert len(calls) == 2  # forward, and again in backward
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()
    assert not any(m.training for m in lean.network.modules())


def test_networks_run_without_dropout(lm: Lm) -> None:
    adapter = lm("llama")  # its config says attention_dropout 0.5
    assert adapter.network.model.config.attention_dropout == 0.5
    assert torch.equal(logits(adapter), logits(adapter))
    with pytest.raises(ConfigError, match=r"dropout: 0.1, but what a policy says of one output must be"):
        CausalLM("x", lora=LoRA(dropout=0.1))


def test_frozen_weights_may_rest_in_bf16(lm: Lm) -> None:
    adapter = lm(dtype="bf16")
    frozen = {p.dtype for p in adapter.network.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16} and {p.dtype for p in adapter.trainable().values()} == {torch.float32}
    assert logits(adapter).dtype == torch.bfloat16
    assert (logits(adapter).float() - logits(lm())).abs().max() < 0.3
    full = lm(dtype="bf16", train="full")
    assert {p.dtype for p in full.network.parameters()} == {torch.float32} and logits(full).dtype == torch.bfloat16


def test_nothing_is_read_before_load() -> None:
    adapter = adapters.build({"name": "causal_lm", "model": "nowhere/nothing", "chat": True, "stop": ["x"]}, "adapter")
    assert adapter.modality == "text" and adapter.event_shape == ()
    with pytest.raises(AttributeError, match=r"CausalLM.module is not there yet: call load\(\) first"):
        _ = adapter.module
    with pytest.raises(ConfigError, match=r"cached_prompts: 0 is not a positive number"):
        CausalLM("x", cached_prompts=0)
    with pytest.raises(ConfigError, match=r"adapter.chat.*"):
        adapters.build({"name": "causal_lm", "model": "x", "chat": "always"}, "adapter")


def test_no_deprecated_name_is_passed(lm_folder: Callable[..., Path], recwarn: pytest.WarningsRecorder) -> None:
    from mmalign.adapters.tokens.network import call_with_past

    model = load_adapter("causal_lm", model=str(lm_folder("qwen2")))
    model.load()
    base = model.network.model.base_model
    ids = torch.tensor([[1, 2, 3]])
    out, past = call_with_past(base, {"input_ids": ids, "use_cache": True})
    more, _ = call_with_past(base, {"input_ids": ids[:, :1], "past_key_values": past, "use_cache": True})
    whole, none = call_with_past(base, {"input_ids": torch.tensor([[1, 2, 3, 1]]), "use_cache": False})
    torch.testing.assert_close(more.last_hidden_state[:, 0], whole.last_hidden_state[:, 3], atol=1e-5, rtol=1e-5)
    assert none is None and out.last_hidden_state.shape[1] == 3
    assert not [w for w in recwarn if "past_key_values" in str(w.message)]
