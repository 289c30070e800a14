import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from trials.machine.cgroup import container_id
from trials.machine.checkout import checkout_facts
from trials.machine.environment import cpu_model, environment

COMMIT = "0123456789abcdef" * 2 + "01234567"
CONTAINER = "deadbeef" * 8


def facts() -> dict[str, str]:
    return dict(environment().facts)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def checkout(root: Path) -> dict[str, str]:
    return dict(checkout_facts(root))


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_facts_are_sorted_and_never_empty() -> None:
    found = environment().facts

    assert list(found) == sorted(found)
    assert all(name and value for name, value in found)


def test_what_a_number_depends_on_is_recorded() -> None:
    found = facts()

    assert found["python"] == platform.python_version()
    assert found["onnxruntime"] == version("onnxruntime")
    assert int(found["cpu_logical"]) >= 1
    assert int(found["memory_mb"]) > 100
    assert re.fullmatch(r"[0-9a-f]{12}", found["host"])
    assert float(found["load_1m"]) >= 0


def test_no_user_host_or_path_is_recorded() -> None:
    text = "\n".join(value for _, value in environment().facts)

    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert str(Path(__file__).parents[2]) not in text


def test_facts_of_the_caller_win_and_keep_the_order() -> None:
    found = environment(extra=(("zlib", "1.3"), ("numpy", "patched"))).facts

    assert dict(found)["numpy"] == "patched"
    assert list(found) == sorted(found)


def test_recording_loads_no_library_that_it_names() -> None:
    program = (
        "import sys; from trials.machine.environment import environment; environment(); "
        "print({'onnx', 'onnxruntime', 'optuna', 'torch'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert done.stdout.strip() == b"set()"


def test_thread_settings_are_those_of_the_process() -> None:
    program = (
        "from trials.machine.environment import environment; "
        "print(dict(environment().facts)['OMP_NUM_THREADS'])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "3"},
    )

    assert done.stdout.strip() == b"3"


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        ("processor\t: 0\nmodel\t: 6\nmodel name\t: Xeon 8\n", "Xeon 8"),
        ("CPU implementer : 0x41\nCPU part : 0xd40\n", "implementer 0x41 part 0xd40"),
        ("processor : 0\ncpu : POWER9\n", "POWER9"),
    ],
)
def test_cpu_model_is_read_on_each_architecture(cpuinfo: str, model: str) -> None:
    assert cpu_model(cpuinfo) == model


def test_cpu_that_does_not_say_its_name_has_its_architecture() -> None:
    assert cpu_model("")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cgroup", f"0::/system.slice/docker-{CONTAINER}.scope\n"),
        ("mountinfo", f"1 2 8:1 /docker/containers/{CONTAINER}/hostname /etc/hostname rw\n"),
    ],
)
def test_container_is_named_by_either_source(tmp_path: Path, file: str, text: str) -> None:
    write(tmp_path / file, text)

    assert container_id(proc=tmp_path, root=tmp_path) == CONTAINER[:12]


def test_host_that_mounts_the_layers_of_containers_is_not_one(tmp_path: Path) -> None:
    write(tmp_path / "mountinfo", f"1 2 0:1 / /docker/overlay2/{CONTAINER}/merged rw\n")

    assert container_id(proc=tmp_path, root=tmp_path) == "none"


def test_container_without_an_id_is_still_a_container(tmp_path: Path) -> None:
    write(tmp_path / ".dockerenv", "")

    assert container_id(proc=tmp_path, root=tmp_path) == "unnamed"


def test_folder_inside_somebody_elses_checkout_has_no_commit(tmp_path: Path) -> None:
    write(tmp_path / ".git" / "HEAD", COMMIT)

    assert checkout(tmp_path / "site-packages") == {"git_commit": "none", "git_dirty": "none"}


@pytest.mark.parametrize(
    ("head", "file", "text"),
    [
        (COMMIT, "unused", ""),
        ("ref: refs/heads/main", "refs/heads/main", COMMIT),
        ("ref: refs/heads/main", "packed-refs", f"# pack-refs\n{COMMIT} refs/heads/main\n"),
    ],
)
def test_commit_is_read_from_git_files(tmp_path: Path, head: str, file: str, text: str) -> None:
    write(tmp_path / ".git" / "HEAD", f"{head}\n")
    write(tmp_path / ".git" / file, text)

    assert checkout(tmp_path)["git_commit"] == COMMIT


def test_damaged_checkout_is_none_or_unknown(tmp_path: Path) -> None:
    write(tmp_path / ".git" / "HEAD", "ref: refs/heads/absent\n")

    assert checkout(tmp_path)["git_commit"] == "none"


def test_changed_file_makes_a_real_checkout_dirty(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    write(tmp_path / "a.txt", "one")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    clean = checkout(tmp_path)

    write(tmp_path / "a.txt", "two!")

    assert clean == {"git_commit": git(tmp_path, "rev-parse", "HEAD"), "git_dirty": "no"}
    assert checkout(tmp_path)["git_dirty"] == "yes"


def test_worktree_finds_the_commit_of_its_parent(tmp_path: Path) -> None:
    main, other = tmp_path / "main", tmp_path / "other"
    main.mkdir()
    git(main, "init", "--quiet")
    git(main, "commit", "--quiet", "--allow-empty", "-m", "a")

    git(main, "worktree", "add", "--quiet", "-b", "b", str(other))

    assert checkout(other)["git_commit"] == git(main, "rev-parse", "HEAD")
