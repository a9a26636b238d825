"""What a product may replace."""

from __future__ import annotations

import copy
import errno
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fewshot_ad import Inspector
from fewshot_ad.artifact import write_artifact
from fewshot_ad.encoder import Encoder
from fewshot_ad.errors import ArtifactError
from fewshot_ad.storage import locks


def test_folders_are_made_for_a_product(inspector: Inspector, tmp_path: Path) -> None:
    inspector.save(tmp_path / "new" / "folder" / "p.fsad")
    assert Inspector.load(tmp_path / "new" / "folder" / "p.fsad").threshold == inspector.threshold


def test_only_a_product_is_replaced_and_only_under_its_suffix(saved: Path, inspector: Inspector) -> None:
    folder = saved.parent
    with pytest.raises(ArtifactError, match=r"ends in \.fsad, got .*p\.png\. Name it .*p\.fsad"):
        inspector.save(folder / "p.png")
    (folder / "notes.fsad").write_text("of the user")
    (folder / "image.fsad").symlink_to(folder / "notes.fsad")
    safetensors.numpy.save_file({"a": np.zeros(3)}, folder / "foreign.fsad")
    for name in ("notes.fsad", "image.fsad", "foreign.fsad"):
        with pytest.raises(ArtifactError, match="expected an older product"):
            inspector.save(folder / name, force=True)
    assert (folder / "notes.fsad").read_text() == "of the user"
    (folder / "empty.fsad").touch()
    inspector.save(folder / "empty.fsad")
    inspector.save(saved)
    assert Inspector.load(folder / "empty.fsad").product == Inspector.load(saved).product == "washer"


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs are those of POSIX")
def test_a_fifo_stays_a_fifo(inspector: Inspector, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.fsad")
    with pytest.raises(ArtifactError, match="got a FIFO"):
        inspector.save(tmp_path / "p.fsad", force=True)
    with pytest.raises(ArtifactError, match="it is a FIFO"):
        write_artifact(tmp_path / "p.fsad", {"a": np.zeros(1)}, {})
    assert stat.S_ISFIFO((tmp_path / "p.fsad").stat().st_mode)


def test_what_others_have_written_meanwhile_is_not_lost(saved: Path, encoder: Encoder) -> None:
    one, other = (Inspector.load(saved, encoder=encoder) for _ in range(2))
    one.threshold *= 2
    one.save(saved)
    one.threshold *= 2
    one.save(saved)
    with pytest.raises(ArtifactError, match="others have changed meanwhile"):
        other.save(saved)
    assert Inspector.load(saved, encoder=encoder).threshold == one.threshold
    other.save(saved.with_name("elsewhere.fsad"))
    other.save(saved, force=True)
    assert Inspector.load(saved, encoder=encoder).threshold == other.threshold
    saved.unlink()
    one.save(saved)


def test_what_a_script_that_is_run_again_brings_back_is_replaced_and_no_later_work(
    saved: Path, inspector: Inspector, parts: list[np.ndarray], encoder: Encoder
) -> None:
    def enrolled_again(name: str = "washer") -> Inspector:
        return Inspector.from_support(parts[:3], product=name, encoder=encoder, views="none", image_size=64)

    enrolled_again().save(saved)
    with pytest.raises(
        ArtifactError, match=r"expected an older product 'bolt'.* got the product 'washer'.*another one"
    ):
        enrolled_again("bolt").save(saved)
    grown = Inspector.load(saved, encoder=encoder)
    grown.add(parts[3])
    grown.save(saved)
    grown.add(parts[4])
    grown.save(saved)
    with pytest.raises(ArtifactError, match=r"grown by 2 image.* since, whose images added since would be lost"):
        enrolled_again().save(saved)
    copy.deepcopy(grown).save(saved)
    by_hand = enrolled_again()
    by_hand.threshold *= 2
    by_hand.save(saved, force=True)
    with pytest.raises(ArtifactError, match="whose threshold, set by hand, would be lost"):
        enrolled_again().save(saved)
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="cannot be read"):
        enrolled_again().save(saved)
    enrolled_again().save(saved, force=True)
    assert len(Inspector.load(saved, encoder=encoder).enrollment.support) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="modes are those of POSIX")
def test_a_file_that_its_owner_has_made_read_only_stays(saved: Path, inspector: Inspector) -> None:
    before = saved.read_bytes()
    saved.chmod(0o444)
    with pytest.raises(ArtifactError, match=r"read-only.*chmod u\+w"):
        inspector.save(saved)
    assert saved.read_bytes() == before
    inspector.save(saved, force=True)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o444


def test_names_that_no_product_should_have(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, advice in ((".fsad", r"Name it product\.fsad"), ("~/p.fsad", "expanduser"), ("a\0.fsad", "expected")):
        with pytest.raises(ArtifactError, match=advice):
            inspector.save(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO FORK: a system without fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_save_does_not_stop_the_next_one(
    saved: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    children, replace = [], os.replace
    begin, end = os.pipe()

    def fork_and_replace(*names: Path) -> None:
        child = os.fork()
        if not child:
            os.close(end)
            os.read(begin, 1)
            os._exit(0)
        children.append(child)
        replace(*names)

    monkeypatch.setattr(locks, "WAIT_S", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fork_and_replace)
        inspector.save(saved)
    inspector.save(saved)
    os.close(end)
    assert [os.waitpid(child, 0)[1] for child in children] == [0]
    os.close(begin)


def test_the_true_reason_is_given_why_a_product_cannot_be_written(
    saved: Path, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    for number, advice in ((errno.EBUSY, "mounted by itself"), (errno.EROFS, "read-only"), (errno.ENOSPC, "Free some")):

        def refused(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refused)
            with pytest.raises(ArtifactError, match=advice) as caught:
                inspector.save(saved)
        assert os.strerror(number) in str(caught.value)
        assert ("Free some space" in str(caught.value)) == (number == errno.ENOSPC)
    assert saved.read_bytes() == before
