"""The server as its clients see it: OpenAI's own client, and requests by hand."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from alignbeam_local.config import Config
from alignbeam_local.engine.prompters import with_system
from alignbeam_local.events import AnswerText, Done, RequestRead, Withdrawn
from alignbeam_local.prompt.message import Message
from alignbeam_local.result import Steering
from alignbeam_local.server.protocol.open_events import told_events
from alignbeam_local.server.protocol.record import Record
from alignbeam_local.warm import wire
from alignbeam_local.warm.wire import heard
from tests.fake_engine import fake_result
from tests.server_world import LONG, ServerWorld, asked, frames

REFUSED = "I'm sorry, but I can't help with that."


@pytest.fixture(scope="module")
def world() -> Iterator[ServerWorld]:
    with pytest.MonkeyPatch.context() as patch, ServerWorld(patch).running() as running:
        yield running


@pytest.fixture(scope="module")
def allowing() -> Iterator[ServerWorld]:
    with pytest.MonkeyPatch.context() as patch, ServerWorld(patch, allows_knobs=True).running() as running:
        yield running


def chat(world: ServerWorld, question: str, **fields: Any) -> Any:
    return world.openai().chat.completions.create(**asked(question, **fields))


def test_an_answer_whole(world: ServerWorld) -> None:
    answer = chat(world, "How?")
    (choice,) = answer.choices
    assert (choice.message.content, choice.message.refusal, choice.finish_reason) == (
        "Take a pan.",
        None,
        "stop",
    )
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.alignbeam["outcome"] == "answered"
    assert [beam["verdict"] for beam in answer.alignbeam["beams"]] == ["safe"] * 3
    assert answer.alignbeam["steered"]["steps"] == 3


def test_an_answer_streamed_is_the_same(world: ServerWorld) -> None:
    chunks = list(chat(world, "How?", stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Take a pan."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {(chunk.id, chunk.created) for chunk in chunks} == {(chunks[0].id, chunks[0].created)}
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.prompt_tokens > 0
    assert not chunks[-1].choices


def test_the_usage_chunk_comes_only_if_asked_for(world: ServerWorld) -> None:
    assert all(chunk.choices for chunk in chat(world, "How?", stream=True))


def test_every_response_is_what_openai_publishes(world: ServerWorld) -> None:
    for question in ("How?", "Harm?", "Refuse?"):
        ChatCompletion.model_validate(world.post(question).json(), strict=True)
        text = world.post(asked(question, stream=True)).text
        *chunks, done = frames(text)
        assert done == "[DONE]"
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk, strict=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocked_answer_carries_text_and_says_why(world: ServerWorld, stream: bool) -> None:
    reply = world.post(asked("Harm?", stream=stream))
    if stream:
        *chunks, last, _ = frames(reply.text)
        choice = last["choices"][0]
        content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        refusal, own = choice["delta"]["refusal"], last["alignbeam"]
    else:
        body = reply.json()
        choice = body["choices"][0]
        content, refusal, own = choice["message"]["content"], choice["message"]["refusal"], body["alignbeam"]
    assert (content, choice["finish_reason"]) == (REFUSED, "content_filter")
    assert "judge" in refusal
    assert choice["content_filter_results"] == {"harm": {"filtered": True, "severity": "high", "score": 4.5}}
    assert (own["outcome"], own["by"]) == ("blocked", "judge")
    assert "knife" not in reply.text


def test_a_refusal_in_the_models_own_words_is_no_filter(world: ServerWorld) -> None:
    answer = chat(world, "Refuse?")
    assert (answer.choices[0].finish_reason, answer.choices[0].message.refusal) == ("stop", None)
    assert (answer.alignbeam["outcome"], answer.alignbeam["by"]) == ("refused", "draft")


def test_in_window_mode_only_what_a_verdict_passed_is_sent(world: ServerWorld) -> None:
    own = {"stream": "window"}
    *chunks, last, _ = frames(world.post(asked("Late?", stream=True, alignbeam=own)).text)
    content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert content
    assert f"{LONG}Then a knife".startswith(content)
    assert "knife" not in content
    assert last["choices"][0]["finish_reason"] == "content_filter"
    assert last["alignbeam"]["outcome"] == "withdrawn"
    whole = world.post(asked("Late?", alignbeam=own)).json()["choices"][0]
    assert (whole["message"]["content"], whole["finish_reason"]) == (REFUSED, "content_filter")
    for ended in (last["choices"][0], whole):  # the beams that lost were found safe
        assert ended["content_filter_results"] == {
            "harm": {"filtered": True, "severity": "high", "score": 4.5}
        }


def test_in_hold_mode_nothing_is_sent_before_the_last_verdict(world: ServerWorld) -> None:
    *chunks, last, _ = frames(world.post(asked("Late?", stream=True)).text)
    content = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert (content, last["alignbeam"]["outcome"]) == (REFUSED, "blocked")


def test_the_anchor_alone_is_a_model_of_its_own(world: ServerWorld) -> None:
    answer = chat(world, "Refuse?", model="anchor:anchor")
    assert answer.choices[0].message.content == "I can't help with that."
    assert len(answer.alignbeam["beams"]) == 1
    blocked = chat(world, "Harm?", model="anchor:anchor")
    assert blocked.choices[0].finish_reason == "content_filter"


def test_models_are_listed_and_shown(world: ServerWorld) -> None:
    listed = world.openai().models.list().data
    assert [model.id for model in listed] == ["pair", "anchor:anchor"]
    assert world.openai().models.retrieve("anchor:anchor").id == "anchor:anchor"
    assert world.get("/models").json() == world.get("/v1/models").json()


def test_an_unknown_model_is_never_another_one(world: ServerWorld) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(world, "How?", model="gpt-4o")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert world.get("/v1/models/gpt-4o").status_code == 404


def test_parts_are_joined_and_a_developer_is_the_system(world: ServerWorld) -> None:
    parts = [{"type": "text", "text": "Ho"}, {"type": "text", "text": "w?"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert chat(world, "", messages=messages).choices[0].message.content == "Take a pan."


BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
    ({"n": 2}, "n", "unsupported_parameter"),
    ({"logprobs": True}, "logprobs", "unsupported_parameter"),
    ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
    ({"temperature": "0.7"}, "temperature", "invalid_value"),
    ({"temperature": -1}, "temperature", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"stop": ["a"] * 5}, "stop", "invalid_value"),
    ({"stop": ""}, None, ""),
    ({"seed": 2**40}, "seed", "invalid_value"),
    ({"stream": "yes"}, "stream", "invalid_value"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": "hi"}, "messages", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_value"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0].type",
        "invalid_value",
    ),
    (
        {"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "Sure,"}]},
        "messages[1].role",
        "invalid_value",
    ),
    ({"alignbeam": {"alpha": 0}}, "alignbeam.alpha", "knob_locked"),
    ({"alignbeam": {"depth": 0}}, "alignbeam.depth", "knob_locked"),
    ({"alignbeam": {"threshold": 5}}, "alignbeam.threshold", "knob_locked"),
    ({"alignbeam": {"on_unsafe": "lowest"}}, "alignbeam.on_unsafe", "knob_locked"),
    ({"alignbeam": {"choice": "likeliest"}}, "alignbeam.choice", "knob_locked"),
    ({"alignbeam": {"grammar": 'root ::= "Sure"'}}, "alignbeam.grammar", "knob_locked"),
    ({"alignbeam": {"stream": "open"}}, "alignbeam.stream", "knob_locked"),
    ({"alignbeam": {"judge": False}}, "alignbeam.judge", "knob_locked"),
    ({"alignbeam": {"draft": "other"}}, "alignbeam.draft", "invalid_value"),
    ({"alignbeam": {"aplha": 1}}, "alignbeam.aplha", "unknown_parameter"),
    ({"alignbeam": {"alpha": 2}}, "alignbeam.alpha", "invalid_value"),
    ({"alignbeam": {"stream": "fast"}}, "alignbeam.stream", "invalid_value"),
    ({"alignbeam": {"include": ["all"]}}, "alignbeam.include[0]", "invalid_value"),
    ({"alignbeam": []}, "alignbeam", "invalid_value"),
    ({"model": None}, "model", "invalid_value"),
]


@pytest.mark.parametrize(("fields", "param", "code"), BAD, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_obeyed_is_named(
    world: ServerWorld, fields: dict[str, Any], param: str | None, code: str, stream: bool
) -> None:
    reply = world.post(asked("How?", **{"stream": stream, **fields}))
    if not code:
        assert reply.status_code == 200
        return
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert isinstance(error["message"], str)
    assert world.post("How?").status_code == 200


def test_knobs_that_make_it_safer_may_be_turned(world: ServerWorld) -> None:
    own = {"alpha": 1, "N": 3, "threshold": 1.5, "on_unsafe": "refuse"}
    assert world.post(asked("How?", alignbeam=own)).json()["alignbeam"]["steered"]["anchor_won"] == 0
    error = world.post(asked("How?", alignbeam={"N": 4})).json()["error"]
    assert (error["param"], error["code"]) == (None, "invalid_value")
    assert "larger contexts" in error["message"]


def test_harmless_values_and_unknown_names_are_taken(world: ServerWorld) -> None:
    fields = {
        "n": 1,
        "tools": [],
        "logprobs": False,
        "response_format": {"type": "text"},
        "user": "u",
        "foo": 1,
    }
    assert world.post(asked("How?", presence_penalty=0, **fields)).status_code == 200


def test_a_prompt_that_is_too_long_is_never_cut(world: ServerWorld) -> None:
    for stream in (False, True):
        reply = world.post(asked("x" * 700, stream=stream))
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (400, "context_length_exceeded")
        assert "its context holds 600" in error["message"]


def test_more_tokens_than_the_server_gives_are_told(world: ServerWorld) -> None:
    for more in ({"max_tokens": 4000}, {"alignbeam": {"max_tokens": 4000.0}}):
        answer = world.post(asked("Story?", **more)).json()
        assert "lowered to 250" in answer["alignbeam"]["notices"][0]


def test_stop_and_max_tokens_reach_the_engine(world: ServerWorld) -> None:
    assert chat(world, "How?", stop=" pan").choices[0].message.content == "Take a"
    cut = chat(world, "How?", max_tokens=4)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 4)


def test_no_request_names_a_file_of_the_servers_disk(allowing: ServerWorld) -> None:
    error = allowing.post(asked("How?", alignbeam={"safety_file": "/etc/passwd"})).json()["error"]
    assert (error["param"], "names a file" in error["message"]) == ("alignbeam.safety_file", True)


def test_an_anchor_alone_has_no_safety_tokens(allowing: ServerWorld) -> None:
    own = {"safety_tokens": "boost"}
    error = allowing.post(asked("How?", model="anchor:anchor", alignbeam=own)).json()["error"]
    assert (error["param"], "the draft's tokens" in error["message"]) == ("alignbeam.safety_tokens", True)


@pytest.mark.parametrize("is_locked", [True, False])
def test_an_anchor_alone_has_nothing_to_be_mixed_into(
    is_locked: bool, world: ServerWorld, allowing: ServerWorld
) -> None:
    served = world if is_locked else allowing
    for own in ({"depth": 1}, {"alpha": 0.9}):
        answer = served.post(asked("How?", model="anchor:anchor", alignbeam=own))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, f"alignbeam.{next(iter(own))}")
    answer = served.post(asked("How?", model="anchor:anchor", alignbeam={"beams": 2}))
    assert answer.status_code == 200
    assert len(served.loader.opened["anchor"]) == 1


def test_a_knob_that_gives_way_to_the_guard_is_told(allowing: ServerWorld) -> None:
    own = {"stream": "window", "judge_every": 16}
    told = allowing.post(asked("How?", alignbeam=own)).json()["alignbeam"]["notices"]
    assert "judge_every = 16 was changed to 64, by how the answer is shown (stream, judge)" in told


def test_with_knobs_allowed_the_making_is_told(allowing: ServerWorld) -> None:
    own = {"stream": "open", "include": ["beams.text", "steps"]}
    *chunks, last, _ = frames(allowing.post(asked("Harm?", stream=True, alignbeam=own)).text)
    events = [event for chunk in chunks for event in chunk.get("alignbeam", {}).get("events", [])]
    assert {"phase", "step", "beam_text", "judged"} <= {event["event"] for event in events}
    assert "knife" in last["alignbeam"]["beams"][0]["text"]
    alone = {"judge": False, "depth": 0, "stream": "open"}
    answer = allowing.post(asked("Harm?", alignbeam=alone)).json()
    assert answer["choices"][0]["message"]["content"] == "Take a knife."
    assert "content_filter_results" not in answer["choices"][0]


def test_an_unsafe_answer_that_is_shown_is_not_called_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    with ServerWorld(monkeypatch, on_unsafe="lowest").running() as world:
        choice = world.post("Harm?").json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Take a knife.", "stop")
    assert choice["content_filter_results"] == {"harm": {"filtered": False, "severity": "high", "score": 4.5}}


def test_texts_of_beams_are_told_as_far_as_verdicts_passed_them(world: ServerWorld) -> None:
    answer = world.post(asked("Harm?", alignbeam={"include": ["beams.text", "steps"]}))
    assert "knife" not in answer.text
    answer = world.post(asked("How?", alignbeam={"include": ["beams.text", "steps"]}))
    assert [beam["text"] for beam in answer.json()["alignbeam"]["beams"]][1] == "Use a pot."
    assert len(answer.json()["alignbeam"]["steered"]["tokens"]) == 3


def test_metrics_count_without_a_word_of_anybodys(world: ServerWorld) -> None:
    world.post("Harm?")
    text = world.get("/metrics").text
    assert 'alignbeam_requests_total{model="pair",outcome="blocked"}' in text
    assert 'alignbeam_refusals_total{by="judge"}' in text
    assert "Harm?" not in text
    assert "knife" not in text


def test_a_second_turn_finds_its_slot_warm(world: ServerWorld) -> None:
    first = [{"role": "user", "content": "How?"}]
    answer = world.post(asked("", messages=first)).json()["choices"][0]["message"]
    world.post("Story?")
    turns = [
        *first,
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": "Story?"},
    ]
    usage = world.post(asked("", messages=turns)).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 40


def test_a_fresh_answer_finds_nothing_of_an_earlier_request(world: ServerWorld) -> None:
    world.post("Story?")
    cached = [
        world.post(asked("Story?", alignbeam={"fresh": fresh})).json()["usage"]["prompt_tokens_details"]
        for fresh in (False, True)
    ]
    assert cached[0]["cached_tokens"] > 0
    assert cached[1]["cached_tokens"] == 0
    assert world.judge.forgot == 1


def test_what_only_the_judge_can_not_read_is_a_bad_request(world: ServerWorld) -> None:
    """And no fault of a model's, which would have all of them opened anew."""
    world.judge.refuses = True
    reply = world.post("[How?]")
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")
    world.judge.refuses = False
    assert world.post("How?").status_code == 200
    assert len(world.loader.opened["draft"]) == 1


def test_a_judge_that_may_not_block_elsewhere_blocks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with ServerWorld(monkeypatch, on_unsafe="auto").running() as world:
        for own in ({}, {"stream": "window"}):
            reply = world.post(asked("Harm?", alignbeam=own))
            assert reply.json()["choices"][0]["finish_reason"] == "content_filter"
            assert "knife" not in reply.text
        assert world.post("How?").json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_clients_system_prompt_leaves_the_operators_alone(world: ServerWorld, place: int) -> None:
    model = replace(world.models["pair"], config=world.models["pair"].config.with_values({"system": "Own."}))
    asked_for = [Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "How?")]
    assert model.conversation(asked_for) == tuple(asked_for)
    asked_for.insert(place, Message("system", "Obey."))
    read = with_system(model.conversation(asked_for), model.config.system)
    assert read[0] == Message("system", "Own.")
    assert [turn.role for turn in read[1:]] == ["user", "assistant", "user"]
    assert read[3 if place else 1].content.startswith("Obey.\n\n")
    assert world.models["pair"].conversation(asked_for) == tuple(asked_for)


# --- what is made again


def test_an_answer_that_takes_a_withdrawn_ones_place_begins_a_paragraph() -> None:
    record = Record(cast(Any, None))
    assert record.take([AnswerText("Take a"), AnswerText(" pan")]) == "Take a pan"
    assert record.take([Withdrawn("")]) == ""
    assert record.take([AnswerText("Use"), AnswerText(" a pot.")]) == "\n\nUse a pot."
    again = Record(cast(Any, None))
    assert again.take([Withdrawn(""), AnswerText("Use a pot.")]) == "Use a pot."
    assert Record(cast(Any, None)).take([Withdrawn("No.")]) == "No."


def test_what_the_request_was_read_as_is_told_where_all_is() -> None:
    steering = Steering(0.5, 0.5, "doubtful", "head", 0.2, 0.8, 0.25)
    (told,) = told_events([RequestRead(steering)])
    assert (told["event"], told["steering"]["decision"]) == ("request_read", "doubtful")
    assert heard(wire.told(RequestRead(steering))) == RequestRead(steering)
    done = heard(wire.told(Done(replace(fake_result("x", Config()), steering=steering))))
    assert isinstance(done, Done)
    assert done.result.steering == steering


def test_a_gate_that_no_twin_is_open_for_is_an_error_that_names_the_knob(allowing: ServerWorld) -> None:
    for stream in (False, True):
        reply = allowing.post(asked("How?", stream=stream, alignbeam={"anchor_row": "gated"}))
        assert reply.status_code == 400
        assert "no other anchor_row than the server's own" in reply.json()["error"]["message"]
    assert allowing.post(asked("How?")).status_code == 200
