"""docs/deploy: its files name what there is; nginx, Caddy and systemd read them where they are installed."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from alignbeam_local.cli.commands import serve

from .test_readme import flags_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/deploy"
PORT = str(serve._PORT)


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def long_flags(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def checked(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def unit() -> ConfigParser:
    read = ConfigParser(strict=False, interpolation=None, delimiters="=")
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read_string(text_of("alignbeam.service"))
    return read


def test_the_unit_calls_what_there_is() -> None:
    service = unit()["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "alignbeam"
    assert words[0] == "serve"
    assert long_flags(words) <= flags_of(words)
    assert {"--api-key-file", "--on-unsafe"} <= long_flags(words)
    assert service["SocketBindAllow"] == f"tcp:{PORT}"
    assert int(service["TimeoutStopSec"]) > 30


@needs("systemd-analyze")
def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    program = shlex.split(unit()["Service"]["ExecStart"])[0]
    path = tmp_path / "alignbeam.service"
    path.write_text(text_of("alignbeam.service").replace(program, sys.executable))
    ran = checked(["systemd-analyze", "verify", f"./{path.name}"], tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = checked(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=15", f"./{path.name}"], tmp_path
    )
    assert ran.returncode == 0, ran.stdout


def test_the_container_starts_with_a_key_and_holds_what_is_there() -> None:
    text = text_of("Containerfile")
    entry = re.search(r"^ENTRYPOINT (.*)$", text, re.M)
    assert entry
    program, *words = json.loads(entry[1])
    assert (program, words[0]) == ("alignbeam", "serve")
    assert long_flags(words) <= flags_of(words)
    assert "--api-key-file" in words
    assert f"EXPOSE {PORT}\n" in text
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        assert all((ROOT / name).exists() for name in sources.split())
    assert re.search(r"^USER (?!root)", text, re.M)


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile"])
def test_a_proxy_leads_to_the_port(name: str) -> None:
    assert re.findall(r"127\.0\.0\.1:(\d+)", text_of(name)) == [PORT]


@needs("nginx")
@needs("openssl")
def test_nginx_takes_its_file(tmp_path: Path) -> None:
    words = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=a"
    assert checked(["openssl", *words.split()], tmp_path).returncode == 0
    site = text_of("nginx.conf").replace("443", "8443")
    for old, new in (("fullchain.pem", "cert.pem"), ("privkey.pem", "key.pem")):
        site = site.replace(f"/etc/ssl/alignbeam/{old}", str(tmp_path / new))
    whole = f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{site}}}\n"
    (tmp_path / "whole.conf").write_text(whole)
    ran = checked(["nginx", "-t", "-p", str(tmp_path), "-c", str(tmp_path / "whole.conf")], tmp_path)
    assert ran.returncode == 0, ran.stderr


@needs("caddy")
def test_caddy_takes_its_file(tmp_path: Path) -> None:
    ran = checked(["caddy", "adapt", "--config", str(FOLDER / "Caddyfile"), "--validate"], tmp_path)
    assert ran.returncode == 0, ran.stderr
