"""Which cgroup files are written. Version 1 runs for real in the attacks; version 2 only here, on a fake tree."""

from pathlib import Path
from uuid import UUID

import pytest

from node_agent.sandbox.limits import Cgroups, NoLimits, delegate, find_cgroups, places_of, v1_files, v2_files
from node_agent.sandbox.spec import Limits
from node_agent.sandbox.uids import Uids

ID = UUID("01890000-0000-7000-8000-000000000001")
LIMITS = Limits(memory_mb=64, cpus=1.5, pids=20)
V1_MOUNTS = """\
25 21 0:22 / /sys/fs/cgroup rw - tmpfs none rw
26 25 0:23 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory
27 25 0:24 /outer /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 25 0:25 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
"""
V1_OWN = "4:memory:/a/b\n3:cpu,cpuacct:/outer/c\n2:pids:/\n0::/\n"
V2_MOUNTS = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_places_of_version_1_and_2() -> None:
    places = places_of(V1_MOUNTS, V1_OWN)
    assert {name: str(places[name]) for name in ("memory", "cpu", "pids")} == {
        "memory": "/sys/fs/cgroup/memory/a/b",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/c",
        "pids": "/sys/fs/cgroup/pids",
    }
    assert places_of(V2_MOUNTS, "0::/system.slice/node.service\n") == {
        "": Path("/sys/fs/cgroup/system.slice/node.service")
    }


def test_files_of_version_1() -> None:
    assert v1_files(LIMITS) == [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "67108864"),
        ("pids", "pids.max", "20"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "150000"),
    ]
    assert v1_files(Limits(cpus=0.0001))[-1][2] == "1000"


def test_files_of_version_2() -> None:
    assert v2_files(LIMITS) == [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("pids.max", "20"),
        ("cpu.max", "150000 100000"),
    ]
    assert v2_files(Limits()) == []


def test_version_2_on_a_fake_tree(tmp_path: Path) -> None:
    home = tmp_path / "node.service"
    home.mkdir()
    (home / "cgroup.type").write_text("domain\n")
    (home / "cgroup.procs").write_text("41\n42\n")
    base = home / "cynode-s"
    delegate(home, base)
    assert (home / "agent" / "cgroup.procs").read_text() == "42"  # a real one takes both; a file keeps the last
    assert (home / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (base / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    cgroups = Cgroups(2, dict.fromkeys(("memory", "pids", "cpu"), base))
    group = cgroups.make(ID, LIMITS)
    written = {path.name: path.read_text() for path in (base / str(ID)).iterdir()}
    assert written == {"memory.max": "67108864", "pids.max": "20", "cpu.max": "150000 100000"}
    group.add(77)
    assert group.pids() == [77]
    assert cgroups.left() == {ID: group}


def test_without_cgroups_it_says_so(tmp_path: Path) -> None:
    for name, text in (("mounts", "21 1 0:2 / / rw - ext4 /dev/sda rw\n"), ("own", "0::/\n"), ("swaps", "Filename\n")):
        (tmp_path / name).write_text(text)
    with pytest.raises(NoLimits, match="no cgroup file system"):
        find_cgroups("s", tmp_path / "mounts", tmp_path / "own", tmp_path / "swaps")


def test_users_of_jobs_are_nobodys_and_differ_between_agents() -> None:
    whole = "0 0 4294967295\n"
    one, other = Uids("state-a", set(), whole), Uids("state-b", set(), whole)
    assert not set(one.range) & set(other.range)
    assert 1_879_048_192 < one.range[0] < 2_147_483_647 - 10_000
    few = Uids("state-a", set(), "0 100000 65536\n")
    assert few.range[0] < 65_536


def test_a_user_is_lent_to_one_job_at_a_time() -> None:
    uids = Uids("state-a", set(), "0 0 4294967295\n")
    with uids.lend() as first, uids.lend() as second:
        assert first != second or not uids.change
        assert first is None or not uids.idle(first)
    assert first is None or uids.idle(first)
