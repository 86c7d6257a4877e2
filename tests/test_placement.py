"""Which layers go where, on made-up GPUs and headers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbeam_local.config import Config
from alignbeam_local.engine.loader import usable_gpus
from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.lm.devices import Gpu, Offload
from alignbeam_local.machine.context_size import ContextSize
from alignbeam_local.machine.memory import cell_bytes
from alignbeam_local.machine.placement import MARGIN_BYTES, Placement, place
from alignbeam_local.models.gguf_header import GgufHeader, read_header
from tests.llama_models import write_tiny

MB = 1 << 20
ROOM = ContextSize(num_sequences=4, shared_cells=1024, copied_cells=4096)
BLOCKS = 10


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> GgufHeader:
    return read_header(write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "llama"))


def model(tiny: GgufHeader, name: str, mb: int = 100) -> GgufHeader:
    """A file of ten blocks and as much again as two of them outside; 2 MB of cache a block in `ROOM`."""
    return replace(
        tiny,
        path=Path(f"/models/{name}.gguf"),
        bytes=mb * MB,
        block_count=BLOCKS,
        block_bytes=Counter(dict.fromkeys(range(BLOCKS), mb * MB // 12)),
        keys_per_token=BLOCKS * 512,
        values_per_token=BLOCKS * 512,
        embedding_length=16,
    )


def gpus(*free_mb: int, is_host_memory: bool = False) -> list[Gpu]:
    """GPUs with so much free above the margin; device 0 is the processor."""
    return [
        Gpu(number, f"GPU{number}", MARGIN_BYTES + mb * MB, 1 << 40, is_host_memory)
        for number, mb in enumerate(free_mb, 1)
    ]


def placed(tiny: GgufHeader, there: Sequence[Gpu], roles: str = "dac", **knobs: Any) -> Placement:
    """Draft, anchor and judge, each on the file of its letter."""
    names = dict(zip(("draft", "anchor", "judge"), roles, strict=True))
    wanted = {role: (model(tiny, name), ROOM) for role, name in names.items()}
    return place(wanted, there, Config.of(knobs), {})


def layers(placement: Placement) -> dict[str, int]:
    return {path.stem: offload.layers for path, offload in placement.offloads.items()}


def test_all_go_where_all_fit(tiny: GgufHeader) -> None:
    everything = placed(tiny, gpus(1000))
    assert layers(everything) == {"a": 11, "d": 11, "c": 11}
    assert {offload.devices for offload in everything.offloads.values()} == {(1,)}


def test_the_anchor_comes_first_then_the_draft_then_the_judge(tiny: GgufHeader) -> None:
    for free, expected in ((125, "a"), (250, "ad")):
        found = layers(placed(tiny, gpus(free)))
        assert "".join(name for name in "adc" if found[name] == 11) == expected
    partly = layers(placed(tiny, gpus(190)))
    assert (partly["a"], partly["c"]) == (11, 0)
    assert 1 < partly["d"] < 11


def test_all_anchors_come_first_and_a_twin_lies_with_its_own(tiny: GgufHeader) -> None:
    roles = {"draft": "d", "anchor": "a", "anchor2": "b", "anchor_twin": "a", "anchor2_twin": "b"}
    for free, expected in ((150, "a"), (300, "ab"), (1000, "abd")):
        wanted = {role: (model(tiny, name), ROOM) for role, name in roles.items()}
        found = layers(place(wanted, gpus(free), Config.of({}), {}))
        assert "".join(name for name in "abd" if found[name] == 11) == expected


def test_a_file_of_two_roles_brings_the_caches_of_both(tiny: GgufHeader) -> None:
    alone, both = placed(tiny, gpus(125)), placed(tiny, gpus(125), roles="daa")
    assert layers(alone)["a"] == 11
    assert layers(both)["a"] < 11
    assert both.needs["judge"].weights == 0
    assert layers(placed(tiny, gpus(145), roles="daa"))["a"] == 11, "the weights count once"


def test_a_smaller_cache_leaves_room_for_layers(tiny: GgufHeader) -> None:
    small = placed(tiny, gpus(230), cache_type_k="q4_0", cache_type_v="q4_0")
    assert sum(layers(small).values()) > sum(layers(placed(tiny, gpus(230))).values())
    assert small.needs["judge"] == placed(tiny, gpus(230)).needs["judge"], "the judge's cache stays"
    assert small.needs["anchor"].cache < 0.3 * small.needs["judge"].cache
    header = model(tiny, "a")
    assert cell_bytes(header, ("q8_0", "f16")) == BLOCKS * 512 // 32 * 34 + BLOCKS * 512 * 2


def test_without_flash_attention_a_batch_needs_a_row_for_each_head(tiny: GgufHeader) -> None:
    without, with_it = (placed(tiny, [], flash_attn=word).needs["draft"].compute for word in ("off", "on"))
    assert without - with_it == 512 * 4 * tiny.head_count * ROOM.shared_cells


def test_the_processors_memory_holds_what_is_left(tiny: GgufHeader) -> None:
    nothing, everything = placed(tiny, []), placed(tiny, gpus(1000))
    assert nothing.host_bytes == sum(need.total for need in nothing.needs.values())
    assert set(layers(nothing).values()) == {0}
    blocks_and_caches = 3 * (BLOCKS * (100 * MB // 12) + 20 * MB)
    assert nothing.host_bytes - everything.host_bytes == blocks_and_caches
    integrated = placed(tiny, gpus(1000, is_host_memory=True))
    assert layers(integrated) == layers(everything)
    assert integrated.host_bytes == nothing.host_bytes


def test_a_number_of_layers_is_taken_at_its_word(tiny: GgufHeader) -> None:
    assert layers(placed(tiny, gpus(1), gpu_layers=4)) == {"a": 4, "d": 4, "c": 4}
    assert layers(placed(tiny, gpus(1), gpu_layers=99)) == layers(placed(tiny, gpus(1), gpu_layers="all"))
    none = placed(tiny, gpus(1000), gpu_layers=0)
    assert set(none.offloads.values()) == {Offload()}


def test_two_gpus_share_by_what_is_free_or_as_told(tiny: GgufHeader) -> None:
    free = placed(tiny, gpus(100, 40), roles="aaa").offloads
    [offload] = free.values()
    assert offload.devices == (1, 2)
    assert offload.shares == (100 * MB, 40 * MB)
    assert 0 < offload.layers < 11
    [told] = placed(tiny, gpus(300, 300), roles="aaa", tensor_split="3,1").offloads.values()
    assert told == Offload(11, (1, 2), (3.0, 1.0))
    [lopsided] = placed(tiny, gpus(300, 0), roles="aaa", tensor_split="0,1").offloads.values()
    assert lopsided.layers == 0, "nothing fits where it was told to go"


def test_one_gpu_alone(tiny: GgufHeader) -> None:
    [offload] = placed(tiny, gpus(0, 500), roles="aaa", main_gpu=1).offloads.values()
    assert (offload.layers, offload.devices) == (11, (2,))
    for knobs in ({"main_gpu": 2}, {"tensor_split": "1,1,1"}):
        with pytest.raises(UsageError, match="names a GPU that does not exist") as caught:
            placed(tiny, gpus(0, 500), **knobs)
        assert caught.value.hint == "There are: 0 = GPU1, 1 = GPU2."


def test_open_weights_stay_where_they_are(tiny: GgufHeader) -> None:
    header = model(tiny, "a")
    opened = {header.path.resolve(): Offload(5, (1,))}
    found = place(
        {"anchor": (header, ROOM), "draft": (model(tiny, "d"), ROOM)}, gpus(150), Config.of({}), opened
    )
    assert found.needs["anchor"].weights == 0
    assert layers(found) == {"a": 5, "d": 11}


@given(free=st.lists(st.integers(0, 500), min_size=1, max_size=4), less=st.integers(0, 200))
def test_more_memory_never_takes_fewer_layers_of_the_anchor(
    tiny: GgufHeader, free: list[int], less: int
) -> None:
    more = layers(placed(tiny, gpus(*(mb + less for mb in free)), tensor_split=",".join("1" * len(free))))
    assert layers(placed(tiny, gpus(*free), tensor_split=",".join("1" * len(free))))["a"] <= more["a"]


# --- what was asked for


@given(st.lists(st.just(0.0) | st.floats(1e-3, 1e6), min_size=1, max_size=16).filter(any))
def test_shares_are_read_as_they_are_written(shares: list[float]) -> None:
    text = " , ".join(map(repr, shares))
    assert Config.of({"tensor_split": text}).gpu_shares == tuple(shares)


@given(st.text(max_size=12))
def test_what_is_no_list_of_shares_is_an_error(text: str) -> None:
    try:
        shares = Config.of({"tensor_split": text}).gpu_shares
    except UsageError:
        return
    assert text == "none" or (any(shares) and all(0 <= share < float("inf") for share in shares))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"tensor_split": "1,-1"}, "not a list of shares"),
        ({"tensor_split": "0,0"}, "not a list of shares"),
        ({"tensor_split": "1,nan"}, "not a list of shares"),
        ({"tensor_split": "1,1", "main_gpu": 0}, "nothing to share"),
        ({"flash_attn": "of"}, "'auto', 'on' or 'off'"),
        ({"cache_type_k": "q8"}, "'q8_0'"),
        ({"cache_type_v": "q4_0", "flash_attn": "off"}, "needs flash_attn"),
        ({"gpu_layers": "most"}, "valid integer"),
        ({"gpu_layers": -2}, "greater than or equal to 0"),
    ],
)
def test_values_that_cannot_be_are_errors(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config.of(knobs)


def test_words_of_llama_cpp_are_understood() -> None:
    assert Config.of({"gpu_layers": "-1"}).gpu_layers == "auto"
    assert Config.of({"gpu_layers": "12"}).gpu_layers == 12
    assert Config.of({"main_gpu": "none", "tensor_split": "none"}).gpu_shares == ()
    assert Config.of({"cache_type_k": "q8_0", "flash_attn": "off"}).cache_types("draft") == ("q8_0", "f16")


def test_a_build_without_a_gpu_fails_only_if_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbeam_local.llama.gpus.gpus", list)
    assert usable_gpus(Config.of({})) == []
    assert usable_gpus(Config.of({"gpu_layers": 0, "main_gpu": 0})) == []
    for knobs in ({"gpu_layers": 10}, {"gpu_layers": "all"}, {"main_gpu": 0}, {"tensor_split": "1"}):
        with pytest.raises(ModelError, match="asks for a GPU") as caught:
            usable_gpus(Config.of(knobs))
        assert f"--{next(iter(knobs)).replace('_', '-')}" in caught.value.hint
