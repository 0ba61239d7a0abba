"""What a node is made of, as far as it can be told without one; tests/e2e starts it."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.binaries import NODE_PARTS, PARTS
from tests.support.image import Image
from tests.support.node import Programs, Unavailable, files, find_programs
from tests.support.node.pause import write_pause_image


def test_the_pause_image_is_one_that_oci_describes(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"what it does")
    write_pause_image(program, tmp_path / "pause.tar")
    image = Image(tmp_path / "pause.tar")
    assert image.config() == {"Entrypoint": ["/pause"], "User": "65535:65535"}
    [file] = image.own_files()
    assert (file.name, file.mode, file.size) == ("pause", 0o755, len("what it does"))


def test_each_program_of_a_node_is_one_that_is_built() -> None:
    built = {part.name for part in (*PARTS, *NODE_PARTS)}
    commands = files.commands(Programs({name: Path("/programs", name) for name in built}))
    assert set(commands) == built - {"containerd-shim-runc-v2", "ctr", "pause"}
    assert {command[0] for command in commands.values()} == {f"/programs/{name}" for name in commands}


def test_each_program_logs_in_by_an_account_of_its_own(tmp_path: Path) -> None:
    files.write_all(tmp_path, "cgroup")
    programs = Programs({part.name: Path("/programs", part.name) for part in (*PARTS, *NODE_PARTS)})
    told = " ".join(word for command in files.commands(programs).values() for word in command)
    told += "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    for account in files.ACCOUNTS.keys() - {"admin"}:
        assert f"{account}.kubeconfig" in told


def test_without_root_there_is_no_node_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match=r"^a node needs root$"):
        find_programs()


def test_what_is_to_be_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name in {"runc", "nft"} else f"/usr/bin/{name}")
    with pytest.raises(Unavailable, match=r"^a node needs Debian's nftables, runc.*: run `make extras`$"):
        find_programs()
