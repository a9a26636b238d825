from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_ad.storage import lock, write_atomically

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
