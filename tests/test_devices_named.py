"""A device a role, and servers beside the GPUs of this machine: on made-up devices, there is no GPU here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from alignbeam_local.cli.main import main

from alignbeam_local.cancellation import Cancellation
from alignbeam_local.config import Config
from alignbeam_local.engine import loader
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.lm.devices import Gpu, Offload
from alignbeam_local.machine.placement import MARGIN_BYTES, Placement, place
from alignbeam_local.machine.servers import FoundServer
from alignbeam_local.models.gguf_header import GgufHeader, read_header
from alignbeam_local.models.registry import Registry
from alignbeam_local.placing import Server
from tests.llama_models import write_tiny
from tests.test_placement import MB, ROOM, gpus, layers, model

A, B = "10.0.0.1:50052", "b.example:50053"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> GgufHeader:
    return read_header(write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama"))


def behind(address: str, *free_mb: int) -> list[Gpu]:
    """A server's devices with so much free above the margin."""
    return [
        Gpu(number, f"{address} {number}", MARGIN_BYTES + mb * MB, 1 << 40, False, address)
        for number, mb in enumerate(free_mb)
    ]


def placed(tiny: GgufHeader, there: Sequence[Gpu], roles: str = "dac", **knobs: Any) -> Placement:
    names = dict(zip(("draft", "anchor", "judge"), roles, strict=True))
    wanted = {role: (model(tiny, name), ROOM) for role, name in names.items()}
    return place(wanted, there, Config.of(knobs), {})


def devices(placement: Placement) -> dict[str, tuple[int | str, ...]]:
    return {path.stem: offload.devices for path, offload in placement.offloads.items()}


def test_each_role_has_its_own_gpu(tiny: GgufHeader) -> None:
    found = placed(tiny, gpus(1000, 1000, 1000), draft_gpu="2", anchor_gpu="0", judge_gpu="1")
    assert devices(found) == {"d": (3,), "a": (1,), "c": (2,)}, "device 0 is the processor"
    assert {device: list(files) for device, files in found.taken.items()} == {
        1: [Path("/models/a.gguf")],
        2: [Path("/models/c.gguf")],
        3: [Path("/models/d.gguf")],
    }


def test_a_role_that_names_none_has_the_usual_ones(tiny: GgufHeader) -> None:
    found = placed(tiny, gpus(1000, 1000), judge_gpu="1", main_gpu=0)
    assert devices(found) == {"d": (1,), "a": (1,), "c": (2,)}


def test_a_role_may_stay_with_the_processor(tiny: GgufHeader) -> None:
    found = placed(tiny, gpus(1000), judge_gpu="cpu")
    assert layers(found) == {"d": 11, "a": 11, "c": 0}
    assert found.host_bytes > placed(tiny, gpus(1000)).host_bytes


def test_one_file_lies_in_one_place(tiny: GgufHeader) -> None:
    with pytest.raises(UsageError, match="anchor and judge are one file, which is loaded once") as error:
        placed(tiny, gpus(1000, 1000), roles="daa", anchor_gpu="0", judge_gpu="1")
    assert "--anchor-gpu" in error.value.hint
    same = placed(tiny, gpus(1000, 1000), roles="daa", anchor_gpu="1", judge_gpu="1")
    assert devices(same)["a"] == (2,)


def test_a_gpu_that_is_not_there(tiny: GgufHeader) -> None:
    with pytest.raises(UsageError, match="judge_gpu names a GPU that does not exist") as error:
        placed(tiny, gpus(1000), judge_gpu="1")
    assert error.value.hint == "There are: 0 = GPU1."
    with pytest.raises(UsageError) as nothing:
        placed(tiny, behind(A, 1000), draft_gpu="0", rpc=[A])
    assert nothing.value.hint == "There are: none."


@pytest.mark.parametrize("mode", ["row", "tensor"])
def test_a_part_of_every_layer_each(tiny: GgufHeader, mode: str) -> None:
    found = placed(tiny, gpus(4000, 4000), roles="daa", tensor_split="3,1", split_mode=mode)
    offload = found.offloads[Path("/models/d.gguf")]
    assert offload.split == mode
    on_first, on_second = (found.taken[number][Path("/models/d.gguf")] for number in (1, 2))
    assert 2.5 < on_first / on_second < 3
    whole_layers = placed(tiny, gpus(4000, 4000), roles="daa", tensor_split="3,1")
    assert on_first + on_second == pytest.approx(
        sum(whole_layers.taken[number][Path("/models/d.gguf")] for number in (1, 2)), rel=1e-6
    )


def test_servers_come_before_the_gpus_of_this_machine(tiny: GgufHeader) -> None:
    there = [*behind(A, 60), *behind(B, 60, 60), *gpus(60)]
    found = placed(tiny, there, rpc=[f"draft={A}", f"draft={B}"], anchor_gpu="cpu", judge_gpu="cpu")
    draft = found.offloads[Path("/models/d.gguf")]
    assert draft.devices == (f"{A}#0", f"{B}#0", f"{B}#1", 1)
    assert draft.servers == (A, B)
    assert draft.shares == (60 * MB,) * 4, "what was counted is what llama.cpp is told"


def test_what_fits_here_goes_to_no_server(tiny: GgufHeader) -> None:
    found = placed(tiny, [*behind(A, 1000), *gpus(4000)], rpc=[A])
    assert {offload.servers for offload in found.offloads.values()} == {()}
    assert layers(found) == {"a": 11, "d": 11, "c": 11}


def test_a_server_of_one_role(tiny: GgufHeader) -> None:
    found = placed(tiny, behind(A, 1000), rpc=[f"draft={A}"])
    assert devices(found) == {"d": (f"{A}#0",), "a": (), "c": ()}
    assert layers(found) == {"d": 11, "a": 0, "c": 0}
    with pytest.raises(UsageError, match="anchor and draft are one file"):
        placed(tiny, behind(A, 1000), roles="aac", rpc=[f"draft={A}"])


def test_servers_take_as_much_as_fits(tiny: GgufHeader) -> None:
    found = placed(tiny, [*behind(A, 50), *behind(B, 50)], rpc=[f"draft={A}", f"draft={B}"])
    draft = found.offloads[Path("/models/d.gguf")]
    assert 0 < draft.layers < 11
    assert set(found.taken) == {f"{A}#0", f"{B}#0"}
    assert all(size <= 50 * MB for files in found.taken.values() for size in files.values())


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"rpc": "nowhere"}, "'nowhere' is not host:port"),
        ({"rpc": "[::1]:50052"}, "is not host:port"),
        ({"rpc": "host:0"}, "no port from 1 to 65535"),
        ({"rpc": "host:99999"}, "no port from 1 to 65535"),
        ({"rpc": "user@host:1"}, "is not host:port"),
        ({"rpc": "guard=host:1"}, "'guard' is no role"),
        ({"rpc": ["host:1", "host:1"]}, "host:1 is there twice"),
        ({"rpc": ["host:1", "draft=host:01"]}, "host:1 is there twice"),
        ({"rpc": [f"host:{port}" for port in range(1, 18)]}, "room for 16 servers"),
        ({"rpc": "host:1", "gpu_layers": 0}, "leaves nothing for a server"),
        ({"rpc": "host:1", "split_mode": "row"}, "servers take whole layers"),
        ({"rpc": "host:1", "kv": "state"}, "saves no states over rpc"),
        ({"draft_gpu": "first"}, "not the number of a gpu"),
        ({"draft_gpu": "-1"}, "not the number of a gpu"),
        ({"anchor_gpu": "0,0"}, "a gpu is there twice"),
        ({"judge_gpu": "999"}, "no machine has so many"),
        ({"judge_gpu": "0", "gpu_layers": 0}, "leaves nothing for a gpu"),
        ({"split_mode": "tensor", "flash_attn": "off"}, "needs flash_attn"),
        ({"split_mode": "columns"}, "split_mode"),
    ],
)
def test_what_can_not_be(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config.of(knobs)


def test_what_can_be() -> None:
    config = Config.of({"rpc": ["h:1", "draft=g-2.lan:2", "anchor=g-2.lan:2"], "judge_gpu": "1,0"})
    assert config.servers == (
        Server("h:1", None),
        Server("g-2.lan:2", "draft"),
        Server("g-2.lan:2", "anchor"),
    )
    assert config.gpus_of("judge") == (1, 0)
    assert Config.of({"judge_gpu": "cpu", "gpu_layers": 0}).gpus_of("judge") == ()
    assert Config.of({"rpc": "none", "judge_gpu": "none"}) == Config()


@pytest.mark.parametrize(
    "knobs", [{"draft_gpu": "0"}, {"split_mode": "row"}, {"main_gpu": 0}, {"gpu_layers": "all"}]
)
def test_who_asks_for_a_gpu_without_one_is_told(
    monkeypatch: pytest.MonkeyPatch, knobs: dict[str, Any]
) -> None:
    monkeypatch.setattr("alignbeam_local.llama.gpus.gpus", lambda: [])
    with pytest.raises(ModelError, match="asks for a GPU"):
        loader.usable_gpus(Config.of(knobs))
    assert loader.usable_gpus(Config.of({"judge_gpu": "cpu"})) == []


def test_devices_of_servers_come_from_a_child_or_if_connected_from_llama_cpp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []

    def look_at(addresses: list[str]) -> list[FoundServer]:
        asked.append(addresses)
        return [FoundServer(address, (7, 0, 0), tuple(behind(address, 1))) for address in addresses]

    monkeypatch.setattr("alignbeam_local.llama.gpus.gpus", lambda: gpus(5))
    monkeypatch.setattr("alignbeam_local.machine.servers.look_at", look_at)
    monkeypatch.setattr("alignbeam_local.llama.rpc.server_devices", lambda address: behind(address, 2))
    config = Config.of({"rpc": [A, f"draft={B}"], "gpu_layers": "all"})
    assert loader.usable_gpus(config, {A}) == [*behind(A, 2), *behind(B, 1), *gpus(5)]
    assert asked == [[B]]
    assert Offload(0, (f"{A}#0",)).servers == ()


@pytest.fixture
def servers_there(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Servers with much room, whoever is named, and what is tried out in child processes."""
    tried: list[str] = []

    def look_at(addresses: list[str]) -> list[FoundServer]:
        return [FoundServer(address, (7, 0, 0), tuple(behind(address, 9000))) for address in addresses]

    def whole(*_: object, **__: object) -> bool:
        tried.append("whole")
        return True

    monkeypatch.setattr("alignbeam_local.llama.gpus.gpus", lambda: [])
    monkeypatch.setattr("alignbeam_local.machine.servers.look_at", look_at)
    probe = "alignbeam_local.machine.probe"
    monkeypatch.setattr(f"{probe}.require_vocabulary", lambda _: tried.append("vocabulary"))
    monkeypatch.setattr(f"{probe}.weights_may_be_repacked", whole)
    return tried


def prepared(path: Path, **knobs: Any) -> list[str]:
    """What is said before this file is loaded as the draft."""
    config = Config.of({"draft": str(path), **knobs})
    opened = loader.Loader(config, Registry({}, {}, ""), Cancellation())
    file = opened.find("draft")
    opened.place({"draft": (file.path, ROOM)})
    return [notice.message for notice in opened.prepare(file.path)]


def test_what_lies_on_servers_is_told_once_and_tried_by_its_vocabulary(
    tiny: GgufHeader, servers_there: list[str]
) -> None:
    assert prepared(tiny.path, rpc=[A, B]) == [loader.OVER_RPC]
    assert servers_there == ["vocabulary"]


def test_servers_that_nothing_lies_on_are_told_too(tiny: GgufHeader, servers_there: list[str]) -> None:
    [said] = prepared(tiny.path, rpc=[f"judge={A}"])
    assert said.startswith("no RPC server is used")
    assert servers_there == ["whole"]


@pytest.mark.usefixtures("servers_there", "llama_cpp_asked_once")
def test_doctor_shows_servers_and_what_would_lie_there(
    tiny: GgufHeader, capsys: pytest.CaptureFixture[str]
) -> None:
    roles = [word for role in ("draft", "anchor", "judge") for word in (f"--{role}", str(tiny.path))]
    code = main(["doctor", *roles, "--rpc", A, "--json"])
    found = {each["topic"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert code in (0, 1)
    assert f"{A} answers, speaks this build's protocol, for every role: 9.8 GiB" in found["rpc"]["message"]
    assert found["rpc"]["details"]["devices"][0]["free"] == MARGIN_BYTES + 9000 * MB
    assert f"2 layers on {A}" in found["memory"]["message"]
    assert list(found["memory"]["details"]["devices"]) == [f"{A}#0"]
