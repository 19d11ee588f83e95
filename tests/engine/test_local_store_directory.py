"""Directories that are not fit to hold a store, or only just. Some need root: they are skipped without it."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading

import pytest
from children import exit_code_of_child

from flask_ailimit.engine import ConfigurationError, StoreError
from flask_ailimit.engine.stores import directory
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import ManualClock, charge, remaining, reserve

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, mount and unshare")


@pytest.fixture
def place(tmp_path):
    return tmp_path / "limits"


def use(path):
    store = LocalStore(path, clock=ManualClock(), lock_timeout=60)
    try:
        return reserve(store, charge()).allowed
    finally:
        store.close()


def test_missing_directory_is_made_with_its_parents(tmp_path):
    assert use(tmp_path / "a/b/c/limits")


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_file_in_place_of_the_directory_is_refused(place, below):
    place.touch()
    with pytest.raises(ConfigurationError, match=r"limits is not a directory\. Use a local directory such as"):
        use(place / below)


def test_directory_that_can_not_be_made_is_a_lasting_store_error():
    with pytest.raises(StoreError, match=r"can't make /proc/limits: No such file") as refused:
        use(directory.Path("/proc/limits"))
    assert not refused.value.transient


@pytest.mark.parametrize("target", ["real", "nothing"])
def test_link_in_place_of_the_directory_is_refused(place, tmp_path, target):
    (tmp_path / "real").mkdir()
    place.symlink_to(tmp_path / target)
    with pytest.raises(ConfigurationError, match=r"limits is (a link\. Name the directory itself|not a directory)"):
        use(place)


def test_directory_that_others_can_write_to_is_warned_of(place):
    place.mkdir()
    place.chmod(0o777)
    with pytest.warns(RuntimeWarning, match=r"others can write to .*limits\. Run: chmod 700 .*limits"):
        use(place)


@needs_root
def test_directory_of_somebody_else_is_refused(place):
    place.mkdir(mode=0o700)
    os.chown(place, NOBODY, NOBODY)
    with pytest.raises(ConfigurationError, match=r"limits belongs to uid 65534, not to uid 0 of this process"):
        use(place)


@needs_root
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_directory_that_can_not_be_written_to_is_a_store_error(place, mode):
    place.mkdir(mode=0o700)
    os.chown(place, NOBODY, NOBODY)
    place.chmod(mode)
    for parent in place.parents:
        if parent.owner() == "root" and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)

    def as_nobody():
        os.setuid(NOBODY)
        for ask in (lambda: use(place), LocalStore(place).secret):
            with pytest.raises(StoreError, match=r"limits.* can't be used: .*Permission denied"):
                ask()

    assert exit_code_of_child(as_nobody) == 0


@pytest.mark.parametrize(
    ("kind", "is_refused"),
    [("nfs4", True), ("cifs", True), ("9p", True), ("fuse.sshfs", True), ("ext4", False), ("fuse.ext4", False)],
)
def test_network_file_system_is_refused(place, monkeypatch, kind, is_refused):
    place.mkdir(mode=0o700)
    table = f"proc /proc proc rw 0 0\noverlay / overlay rw 0 0\nserver:/x {place.resolve()} {kind} rw 0 0\n"
    read_text = directory.Path.read_text
    monkeypatch.setattr(
        directory.Path,
        "read_text",
        lambda path, **options: table if str(path) == "/proc/self/mounts" else read_text(path, **options),
    )
    if is_refused:
        with pytest.raises(ConfigurationError, match=rf"is on {kind.removeprefix('fuse.')}, where locks don't reach"):
            use(place)
    else:
        assert use(place)


def test_mount_point_with_a_space_is_found(tmp_path):
    mounted = "/proc/self/mounts"
    assert directory.file_system(directory.Path(mounted)) == "proc"
    assert directory.file_system(tmp_path) != "proc"


# Full file systems


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or not mount:
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr!r}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill_up(disk):
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass


def test_full_file_system_is_an_error_before_it_is_a_signal(small_disk):
    fill_up(small_disk)

    def open_on_it():
        with pytest.raises(StoreError, match=r"the file system of .*limits is full\. Make room") as refused:
            use(small_disk / "limits")
        return not refused.value.transient

    assert exit_code_of_child(open_on_it) == 0


def test_file_system_that_fills_up_is_a_store_error_and_then_heals(small_disk):
    def use_until_full():
        store = LocalStore(small_disk / "limits", clock=ManualClock())
        reserve(store, charge())
        fill_up(small_disk)
        subjects = (number.to_bytes(16, "little") for number in range(20_000))
        with pytest.raises(StoreError, match="No space left on device"):
            list(reserve(store, charge(subject=subject)) for subject in subjects)  # noqa: C400  until it raises
        (small_disk / "filler").unlink()
        assert reserve(store, charge(5)).allowed
        return remaining(store, charge()) != [4]

    assert exit_code_of_child(use_until_full) == 0


# Containers

IN_A_CONTAINER = """
import os, sys
from pathlib import Path
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import charge, reserve
assert os.getpid() == 1
store = LocalStore(Path(sys.argv[1]), lock_timeout=60)
one = charge(1, limit=10_000, algorithm="moving-window")
print(sum(reserve(store, one).allowed for _ in range(2000)))
"""


def test_two_containers_count_together(place):
    """In each it is process 1, by which LMDB's own lock would tell them apart."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "--pid", "--fork", "true"], check=False, capture_output=True).returncode:
        pytest.skip("a namespace of process numbers is not permitted here")
    containers = [
        subprocess.Popen(
            [unshare, "--pid", "--fork", "--kill-child", sys.executable, "-c", IN_A_CONTAINER, place],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for _ in range(2)
    ]
    assert [container.communicate()[0] for container in containers] == [b"2000\n", b"2000\n"]
    store = LocalStore(place)
    assert remaining(store, charge(1, limit=10_000, algorithm="moving-window")) == [6_000]
    store.close()


def test_who_opens_the_directory_waits_for_who_is_inside(place):
    place.mkdir(mode=0o700)
    inside, opened = directory.lock(place, lambda: 1), []
    other = threading.Thread(target=lambda: opened.append(use(place)))
    other.start()
    other.join(0.2)
    assert not opened
    inside.close()
    other.join(60)
    assert opened == [True]


def test_lock_that_was_deleted_while_one_waited_for_it_is_not_taken_for_the_lock(place):
    place.mkdir(mode=0o700)
    inside, taken = directory.lock(place, lambda: 1), []
    other = threading.Thread(target=lambda: taken.append(directory.lock(place, lambda: 60)))
    other.start()
    other.join(0.2)
    (place / "lock").unlink()
    inside.close()
    other.join(60)
    assert os.fstat(taken[0].fileno()).st_ino == (place / "lock").stat().st_ino
    taken[0].close()


def test_warning_that_is_an_error_leaves_nobody_waiting(place):
    place.mkdir(mode=0o700)
    (place / "data.mdb").write_bytes(b"garbage")
    with pytest.raises(RuntimeWarning, match="moved to"):
        use(place)
    assert exit_code_of_child(lambda: not use(place)) == 0
