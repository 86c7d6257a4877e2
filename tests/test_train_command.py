"""`alignbeam train` as a user calls it: what is refused in words, and a whole training."""

import json
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli.main import main

from alignbeam_local.models.hashes import file_sha256
from alignbeam_local.training import extra
from alignbeam_local.training.adapter.adapter_gguf import BaseModel
from alignbeam_local.training.adapter.peft_folder import PeftAdapter, peft_files
from alignbeam_local.training.adapter.trained_on import TRAINED_ON, trained_on
from tests.llama_models import WIDTH, write_tiny
from tests.test_adapter_gguf import adapter_of, folder_of

ROWS = [("one", "ab ab"), ("two", "ba"), ("three", "ab")]


def data_file(path: Path) -> str:
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in ROWS
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "torch" else object())


def needed(tmp_path: Path, *others: str, method: str = "sft", base: str = "none.gguf") -> list[str]:
    data = data_file(tmp_path / "rows.jsonl")
    out = str(tmp_path / "run")
    return ["train", "--method", method, "--base", base, "--data", data, "--out", out, *others]


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], without_extra: None
) -> None:
    assert main(needed(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "training needs torch" in said
    assert "pip install 'alignbeam-local[train]'" in said
    assert not (tmp_path / "run").exists()


def test_what_it_needs_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert main(["train", "--method", "sft"]) == 2
    said = capsys.readouterr().err
    assert "needed: --method and --base and --data and --out\n" in said
    assert "needed: --base and --data and --out\n" in said


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--variant", "code"], "--variant is not for --method sft"),
        (["--weight", "1"], "--weight is not for --method sft"),
        (["--str-first", "5"], "--str-first is not for --method sft"),
        (["--targets", "q,w"], "no such target: 'w'"),
        (["--rank", "0"], "--rank"),
        (["--context", "127"], "128"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--method", "dpo"], "dpo"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    tmp_path: Path, flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(needed(tmp_path, *flags)) == 2
    assert complaint in capsys.readouterr().err


def test_one_source_of_safety_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(needed(tmp_path, "--tokens", "a", "--rejections", "b", method="str")) == 2
    assert "--tokens and --rejections" in capsys.readouterr().err


def test_flags_of_a_training_do_not_stand_before_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = exporting(tmp_path, adapter_of("self_attn.v_proj"))
    assert main(["train", "--base", "x", *command[1:]]) == 2
    assert "stand before a sub-command" in capsys.readouterr().err


def test_a_training_of_a_mamba_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    base = str(write_tiny(tmp_path / "mamba.gguf", "mamba"))
    assert main(needed(tmp_path, base=base)) == 3
    assert "llama, qwen2, qwen3, gemma3" in capsys.readouterr().err


def test_a_whole_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    base = str(write_tiny(tmp_path / "tiny.gguf", "llama"))
    flags = ["--layers", "1", "--batch", "2", "--threads", "1", "--context", "200"]
    command = needed(tmp_path, *flags, "--str-on", "log-probs", method="str", base=base)
    assert main(command) == 0
    said = capsys.readouterr()
    adapter = tmp_path / "run" / "adapter.gguf"
    assert said.out.splitlines()[-1] == str(adapter)
    assert f"alignbeam chat --draft {base} --lora {adapter}" in said.err
    assert "of memory" in said.err
    assert "KL 0.0" in said.err
    assert "\nstep 6 of 6: task loss" in said.err, "whole lines where it is no terminal"
    assert "\r" not in said.err
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["adapter"], result["steps"]) == (str(adapter), 6)
    about = json.loads((tmp_path / "run" / "adapter" / TRAINED_ON).read_text())["base"]
    assert about == {"name": "tiny", "sha256": file_sha256(Path(base)), "architecture": "llama"}


def test_a_training_that_diverged_is_not_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    base = str(write_tiny(tmp_path / "tiny.gguf", "llama"))
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "XYZ%&(!"}]
    (tmp_path / "held_out.jsonl").write_text(json.dumps({"messages": messages}))
    held_out = str(tmp_path / "held_out.jsonl")
    flags = ["--layers", "0", "--targets", "q,k,v,o,gate,up,down", "--learning-rate", "1", "--alpha", "900"]
    command = needed(tmp_path, *flags, "--threads", "1", "--held-out", held_out, base=base)
    for _ in range(2):  # the second one finds it done
        assert main(command) == 0
        said = capsys.readouterr().err
        assert "warning: the held-out loss is worse than before the training" in said
        assert "lower --learning-rate" in said
        assert "Use it" not in said


def test_prompts_that_are_asked_on_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    base = str(write_tiny(tmp_path / "tiny.gguf", "llama"))
    prompts = tmp_path / "prompts.jsonl"
    earlier = [{"role": "user", "content": "zero"}, {"role": "assistant", "content": "none"}]
    rows = [
        {"earlier": earlier, "prompt": "one", "label": "harmful"},
        {"prompt": "two", "label": "benign"},
    ]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    flags = ["--layers", "1", "--threads", "1", "--context", "200", "--evaluate", f"{prompts}:harmful"]
    assert main(needed(tmp_path, *flags, base=base)) == 0
    said = capsys.readouterr()
    assert "the base: harmful refused 0%" in said.err
    assert "harmful refused 0%" in said.out
    assert "benign" not in said.out


def test_prompts_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(needed(tmp_path, "--evaluate", "none.jsonl")) == 2
    assert "no suite and no file 'none.jsonl'" in capsys.readouterr().err


# --- export


def exporting(tmp_path: Path, adapter: PeftAdapter, out: str = "mine.gguf", **config: Any) -> list[str]:
    base = str(write_tiny(tmp_path / "tiny.gguf", "llama"))
    folder = str(folder_of(tmp_path / "peft", adapter, **config))
    return ["train", "export", folder, "--base", base, "--out", str(tmp_path / out)]


def test_export_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(exporting(tmp_path, adapter_of("self_attn.q_proj", "self_attn.v_proj"))) == 0
    assert "2 matrices of rank 2, alpha 4" in capsys.readouterr().err
    assert (tmp_path / "mine.gguf").read_bytes().startswith(b"GGUF")


def test_export_needs_no_extra(tmp_path: Path, without_extra: None) -> None:
    assert main(exporting(tmp_path, adapter_of("self_attn.v_proj"))) == 0


def test_export_refuses_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = exporting(tmp_path, adapter_of("self_attn.v_proj"), use_dora=True)
    assert main(command) == 3
    assert "DoRA" in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "mine.bin")]) == 2
    assert "does not end in .gguf" in capsys.readouterr().err
    assert not list(tmp_path.glob("mine*"))


def test_no_model_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither an adapter nor tokens; another adapter is."""
    command = exporting(tmp_path, adapter_of("self_attn.v_proj"))
    assert main(command) == main(command) == 0
    model = write_tiny(tmp_path / "model.gguf", "llama")
    before = model.read_bytes()
    assert main([*command[:-1], str(model)]) == 2
    assert main(["tokens", "salient", str(model), "--from", "templates", "--out", str(model)]) == 2
    assert capsys.readouterr().err.count("is a model") == 2
    assert model.read_bytes() == before


def test_export_needs_a_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "export", str(tmp_path)]) == 2
    assert "needed: --base and --out" in capsys.readouterr().err


def test_peft_can_read_what_is_written() -> None:
    """Names and shapes as PEFT has them."""
    content = peft_files(adapter_of("self_attn.q_proj"), "tiny")
    config = json.loads(content["adapter_config.json"])
    assert config["target_modules"] == ["q_proj"]
    assert (
        b"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        in content["adapter_model.safetensors"]
    )
    assert f"[2, {WIDTH}]".encode() in content["adapter_model.safetensors"]


# --- which base it was trained on


def test_a_folder_trained_here_is_for_its_base_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = exporting(tmp_path, adapter_of("self_attn.v_proj"))
    base, other = tmp_path / "tiny.gguf", write_tiny(tmp_path / "other.gguf", "llama", seed=7)
    about = trained_on(BaseModel(base, file_sha256(base)), "tiny")
    (tmp_path / "peft" / TRAINED_ON).write_bytes(about)
    assert main(command) == 0
    assert "note" not in capsys.readouterr().err
    (tmp_path / "mine.gguf").unlink()
    command[command.index("--base") + 1] = str(other)
    assert main(command) == 3
    said = capsys.readouterr().err
    for file, name in ((base, "tiny (llama"), (other, "other.gguf (llama")):
        assert f"{name}, sha256 {file_sha256(file)[:12]}…)" in " ".join(said.split())
    (tmp_path / "peft" / TRAINED_ON).write_text('{"base": {}}')
    assert main(command) == 3
    assert "does not say what the adapter was trained on" in capsys.readouterr().err
    assert not (tmp_path / "mine.gguf").exists()


@pytest.mark.parametrize(
    ("says", "code", "told"),
    [
        ("Owner/My-Model-7B-Instruct-bnb-4bit", 0, ""),
        ("my_model-7b-instruct", 0, ""),
        ("tiny", 0, ""),
        ("owner/My-Model-7B", 3, "was trained on 'owner/My-Model-7B', and"),
        ("qwen2.5-coder-0.5b-instruct", 3, "was trained on 'qwen2.5-coder-0.5b-instruct', and"),
        ("./checkpoint-500", 0, "it is not known whether"),
        ("/data/models/my-model-7b", 0, "it is not known whether"),
        (None, 0, "does not say which base it was trained on"),
    ],
)
def test_what_a_foreign_folder_calls_its_base(
    tmp_path: Path, says: str | None, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = exporting(tmp_path, adapter_of("self_attn.v_proj"), base_model_name_or_path=says)
    write_tiny(tmp_path / "tiny.gguf", "llama", name="My Model 7B Instruct")
    assert main(command) == code
    said = capsys.readouterr().err
    assert told in said
    assert bool(told) == ("note: " in said or "error" in said)
    assert (tmp_path / "mine.gguf").exists() == (code == 0)


def test_a_base_that_has_no_name_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(exporting(tmp_path, adapter_of("self_attn.v_proj"), base_model_name_or_path="o/m")) == 0
    assert "it is not known whether" in capsys.readouterr().err
