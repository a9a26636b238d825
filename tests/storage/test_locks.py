from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fewshot_ad.storage import lock, locks, write_atomically

COUNTS = (
    "import sys\nfrom pathlib import Path\nfrom fewshot_ad.storage import lock, write_atomically\n"
    "path = Path(sys.argv[1])\n"
    "for _ in range(50):\n"
    "    with lock(path):\n"
    "        write_atomically(path, str(int(path.read_text()) + 1).encode())\n"
)


def test_no_change_of_two_processes_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNTS, str(path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert path.read_text() == "150"
    assert [p.name for p in tmp_path.iterdir()] == ["count"]


def test_one_thread_may_lock_a_file_again_and_another_process_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    tries = (
        "import sys\nfrom fewshot_ad.storage import lock\n"
        "try:\n    with lock(sys.argv[1], wait=False):\n        pass\n"
        "except BlockingIOError:\n    sys.exit(3)\n"
    )
    command = [sys.executable, "-c", tries, str(path)]
    with lock(path), lock(path):
        assert subprocess.run(command, check=False).returncode == 3
    assert subprocess.run(command, check=False).returncode == 0


def test_what_is_not_there_needs_no_lock(tmp_path: Path) -> None:
    with lock(tmp_path / "file"):
        write_atomically(tmp_path / "file", b"1")
    with lock(tmp_path / "file", wait=False):
        pass
    with lock(tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_lock_ends_with_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(KeyError), lock(path):
        raise KeyError
    with lock(path, wait=False):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO FORK: a system without fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_no_lock_outlives_its_writer_in_a_forked_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("")
    children = []

    def fork() -> None:
        child = os.fork()
        if not child:
            # As a worker that lives on; the end of the test closes the pipe.
            os.close(end)
            os.read(begin, 1)
            os._exit(0)
        children.append(child)

    begin, end = os.pipe()
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (fork(), replace(*names)))
    with lock(path):
        fork()
        write_atomically(path, b"1")
    with lock(path, wait=False):
        pass
    os.close(end)
    for child in children:
        os.waitpid(child, 0)
    os.close(begin)
    assert len(children) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO FORK: a system without fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_under_a_lock_neither_has_it_nor_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with lock(path):
        child = os.fork()
        if not child:
            code = 1
            try:
                with lock(path, wait=False):
                    pass
            except BlockingIOError:
                code = 0
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


def test_who_waits_says_so_and_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_text("")
    monkeypatch.setattr(locks, "TOLD_AFTER_S", 0.0)
    monkeypatch.setattr(locks, "WAIT_S", 0.2)
    failures: list[OSError] = []

    def wait() -> None:
        try:
            with lock(path):
                pass
        except OSError as error:
            failures.append(error)

    with caplog.at_level(logging.WARNING, "fewshot_ad.storage"), lock(path):
        other = threading.Thread(target=wait)
        other.start()
        other.join(30)
    assert [type(error) for error in failures] == [TimeoutError]
    assert caplog.messages == [f"waiting for another process that writes {path}"]
