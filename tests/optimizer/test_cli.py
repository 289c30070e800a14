"""The command line as its users have it: one workspace, from the search to the bundle."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from in_process import Ran, trifront
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from real_spaces import write_data, write_model, write_pages, write_reader
from search_fakes import SPACE

from optimizer.cli import app, main
from optimizer.export.checksums import SUMS, sha256_of, sums_of
from optimizer.workspace import load_blocks, save_blocks
from search_spaces.catalog import SHIPPED, space_path

TRIALS = "15"
COMMANDS = (
    *("search", "build", "front", "show", "dashboard", "studies", "sync"),
    *("export", "verify", "register", "reproduce", "recompute"),
    *("compare", "effect", "certify", "saturate", "precision-report"),
    *("record", "replay", "explain"),
    *("doctor", "report", "ui"),
    *("init", "check", "schema"),
    *("store list", "store verify", "store prune"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place") / "trifront"


@pytest.fixture(scope="module")
def searched(place: Path) -> Ran:
    """Search the shipped fake space in a process of its own, for machines."""
    command = ["search", "fake", "--trials", TRIALS, "--sampler", "random", "--json"]
    ran = subprocess.run(
        [sys.executable, "-c", "from optimizer.cli import main; main()", *command],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={"PATH": "/usr/bin:/bin", "TRIFRONT_WORKSPACE": str(place), "HOME": str(place.parent)},
    )
    return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)


Command = Callable[..., Ran]


@pytest.fixture
def here(place: Path, searched: Ran, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in the workspace that was searched."""
    assert searched.code == 0, searched.err
    monkeypatch.setenv("TRIFRONT_WORKSPACE", str(place))
    return trifront


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return trifront


def one_line(ran: Ran) -> str:
    """Return the error of a command that failed as expected: a line, a hint at most, no more."""
    assert ran.code == 1, ran
    assert ran.out == ""
    first, *hints = ran.err.splitlines()
    assert first.startswith("trifront: ")
    assert len(hints) <= 1
    assert all(hint.startswith("  ") for hint in hints)
    return ran.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command: str) -> None:
    ran = trifront(*command.split(), "--help")

    assert ran.code == 0
    assert re.search(rf"^\W*trifront {command}\b", ran.out, re.MULTILINE), ran.out


def test_help_breaks_lines_only_where_the_terminal_ends() -> None:
    ran = trifront("verify", "--help")

    paragraph = next(
        one for one in re.split(r"\n\s*\n", ran.out) if one.strip().startswith("Works on any")
    )
    *full, _last = (len(line.rstrip()) for line in paragraph.splitlines())
    assert full
    assert min(full) > 60  # of 80 columns; the source's own breaks would leave some with 20


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "proposed"),
    [("ex", "export"), ("search fake --sa", "--sampler"), ("search fake --sampler t", "tpe")],
)
def test_bash_completes_commands_options_and_choices(
    tmp_path: Path, typed: str, proposed: str
) -> None:
    words = f"trifront {typed}"
    typing = (
        "trifront --install-completion bash >&2; source ~/.bash_completions/trifront.sh; "
        f"COMP_WORDS=({words}); COMP_CWORD={words.count(' ')}; _trifront_completion trifront; "
        'echo "${COMPREPLY[@]}"'
    )

    ran = subprocess.run(
        ["/bin/bash", "-c", typing],
        env={"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert proposed in ran.stdout.split()


def test_every_command_is_tested_here() -> None:
    registered = {
        command.name or (command.callback.__name__ if command.callback else "")
        for command in app.registered_commands
    }

    assert registered == {command for command in COMMANDS if " " not in command}


def test_version_is_printed() -> None:
    ran = trifront("--version")

    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", ran.out)


@pytest.mark.parametrize(
    "arguments",
    [
        ["surch"],
        ["search"],
        ["search", "fake", "--trials", "0"],
        ["search", "fake", "--time", "soon"],
        ["search", "fake", "--sampler", "magic"],
        ["show"],
        ["export", "knee"],
        ["export", "knee", "--to", "d", "--format", "zip"],
        ["export", "knee", "--to", "d", "--references", "-1"],
        ["verify"],
        ["verify", ".", "--against", "nothing"],
        ["verify", ".", "--against", "100%"],
        ["verify", ".", "--data", "absent.npz"],
        ["reproduce", "knee", "--sessions", "0"],
        ["compare", "knee"],
        ["compare", "0", "1", "--within", "0"],
        ["compare", "0", "1", "--time", "soon"],
    ],
)
def test_wrong_usage_is_code_two_and_writes_nothing(
    nowhere: Command, tmp_path: Path, arguments: list[str]
) -> None:
    ran = nowhere(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert "Usage" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_document_and_progress_goes_to_stderr(searched: Ran) -> None:
    found = searched.document

    assert found["ended"] == f"all {TRIALS} trials are done"
    assert found["study"] == "fake"
    assert found["front"]
    lines = [line for line in searched.err.splitlines() if re.match(r" *\d+ \w+ ", line)]
    assert len(lines) >= int(TRIALS)
    assert "Traceback" not in searched.err


def test_front_prints_the_front_that_the_search_ended_with(here: Command, searched: Ran) -> None:
    found = here("front", "--json").document

    shown = ("objectives", "front", "knee", "hypervolume", "counts")
    assert {key: found[key] for key in shown} == {key: searched.document[key] for key in shown}
    assert all("report" in member for member in found["front"])


def test_front_is_the_same_each_time(here: Command) -> None:
    first, second = here("front"), here("front")

    assert first == second
    assert first.err == ""


def test_searching_again_does_nothing_and_ends_with_the_same_front(
    here: Command, searched: Ran
) -> None:
    again = here("search", "fake", "--trials", TRIALS, "--sampler", "random", "--json")

    assert again.code == 0
    assert again.document == searched.document | {"trials": 0}


def test_front_fits_a_pipe(here: Command) -> None:
    table = here("front").out.split(" on the front")[0]

    assert max(map(len, table.splitlines())) <= 160
    assert "…" not in table


def test_front_is_drawn_and_written_as_csv(here: Command, searched: Ran, tmp_path: Path) -> None:
    ran = here("front", "--plot", str(tmp_path / "f.png"), "--csv", str(tmp_path / "t.csv"))

    assert ran.code == 0
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    rows = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + sum(searched.document["counts"].values())


def test_front_of_other_objectives_under_other_bounds(here: Command) -> None:
    asked = ("--objectives", "latency_p50_ms,engine_size_mb", "--where", "batch_size <= 4")

    found = here("front", "--json", *asked, "--where", "accuracy >= 0.75").document

    assert found["objectives"] == {"latency_p50_ms": "minimize", "engine_size_mb": "minimize"}
    assert "accuracy >= 0.75" in found["constraints"]
    assert found["front"]
    for member in (*found["front"], *found["ties"]):
        assert member["deployment"]["batch_size"] <= 4
        assert 0 <= member["probability_on_front"] <= 1


def test_front_is_ranked_by_weights_or_by_preference(here: Command) -> None:
    found = here("front", "--json", "--prefer", "throughput_sps").document
    best = max(found["front"], key=lambda one: float(one["metrics"]["throughput_sps"]["value"]))

    assert found["ranking"][0] == best["trial"]
    assert sorted(found["ranking"]) == sorted(one["trial"] for one in found["front"])
    assert "rank in two ways" in one_line(
        here("front", "--prefer", "accuracy", "--weights", "accuracy=1")
    )


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("latency_p99_ms <= 0.000001", "all that was measured misses a bound: loosen a --where"),
        ("batch_size > 1000", "no trial meets the conditions on axes: loosen a --where"),
    ],
)
def test_front_that_nothing_is_on_is_code_three_and_says_why(
    here: Command, where: str, said: str
) -> None:
    ran = here("front", "--where", where)

    assert ran.code == 3
    assert said in ran.err


def test_report_is_written_whole_and_named(here: Command, tmp_path: Path) -> None:
    ran = here("report", "fake", "--to", str(tmp_path / "r.html"), "--where", "batch_size <= 8")

    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'r.html'}\n")
    assert page.endswith(("</html>", "</html>\n"))
    assert "Only deployments with batch_size" in page
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_show_says_everything_about_the_knee(here: Command, searched: Ran) -> None:
    text, data = here("show", "knee"), here("show", "knee", "--json").document

    assert data["trial"] == searched.document["knee"]
    assert f"trial {data['trial']} of study fake: completed" in text.out
    for word in ("p99 latency [ms]", "on the report split", "cpu_model", "engine_digest"):
        assert word in text.out
    assert text.err == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("999", "no ended trial 999"),
        ("best:sped", "'sped' is no objective"),
        ("nonsense", "names no trial"),
    ],
)
def test_unknown_trial_is_one_line(here: Command, tmp_path: Path, name: str, message: str) -> None:
    assert message in one_line(here("show", name))
    assert message in one_line(here("export", name, "--to", str(tmp_path / "d")))
    assert list(tmp_path.iterdir()) == []


def test_export_writes_what_was_measured_and_lists_it(here: Command, tmp_path: Path) -> None:
    ran = here("export", "knee", "--to", str(tmp_path / "d"))

    files = sorted(str(path) for path in (tmp_path / "d").iterdir())
    assert ran.code == 0
    assert ran.out.splitlines() == files
    assert {Path(file).name for file in files} >= {"manifest.json", "engine.json", "README.md"}


def test_every_number_of_a_trial_is_computed_again(here: Command) -> None:
    ran = here("recompute", "knee")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("all 13 statistics are the same to the last digit\n")


def test_changed_blocks_fail_the_recomputing(here: Command, place: Path) -> None:
    uid = here("show", "knee", "--json").document["uid"]
    path = place / "blocks" / f"{uid}.parquet"
    blocks = load_blocks(path)
    whole = path.read_bytes()
    save_blocks(blocks[1:], path)

    ran = here("recompute", "knee", "--json")

    path.write_bytes(whole)
    assert ran.code == 3
    assert {"blocks", "requests", "throughput_sps"} <= set(ran.document["differing"])


def test_damaged_blocks_are_an_error_of_one_line(here: Command, place: Path) -> None:
    uid = here("show", "knee", "--json").document["uid"]
    path = place / "blocks" / f"{uid}.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])

    ran = here("recompute", "knee")

    path.write_bytes(whole)
    assert "holds no raw blocks, or is damaged" in one_line(ran)


@pytest.mark.parametrize("again", ["verify", "reproduce"])
def test_what_was_measured_is_measured_again_alike(
    here: Command, tmp_path: Path, again: str
) -> None:
    here("export", "knee", "--to", str(tmp_path / "d"))
    target = {"verify": str(tmp_path / "d"), "reproduce": "knee"}[again]

    text, data = here(again, target), here(again, target, "--json", "--sessions", "1").document

    assert (text.code, text.out.splitlines()[-1]) == (0, "passed")
    assert "now / then" in text.out
    assert (data["passed"], data["failures"]) == (True, [])


def test_changed_byte_is_one_line(here: Command, tmp_path: Path) -> None:
    here("export", "knee", "--to", str(tmp_path / "d"))
    (tmp_path / "d" / "README.md").write_text("mine", encoding="utf-8")

    ran = here("verify", str(tmp_path / "d"))

    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.splitlines()[1].startswith("trifront: ")
    assert "README.md is not what SHA256SUMS says" in ran.err


def test_gate_that_fails_is_code_three(here: Command, tmp_path: Path) -> None:
    """Raw blocks of a machine that was twice as fast."""
    here("export", "knee", "--to", str(tmp_path / "d"))
    blocks = load_blocks(tmp_path / "d" / "blocks.parquet")
    faster = tuple(
        replace(one, window_s=one.window_s / 2, latencies_s=one.latencies_s / 2) for one in blocks
    )
    save_blocks(faster, tmp_path / "d" / "blocks.parquet")
    reseal(tmp_path / "d", "blocks.parquet")

    ran = here("verify", str(tmp_path / "d"), "--sessions", "1")

    assert ran.code == 3
    assert ran.out.splitlines()[-1].startswith("failed: latency_p99_ms is worse")


def reseal(folder: Path, name: str) -> None:
    """Write a changed file into the manifest and the sums, as nobody should."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["files"][name]["sha256"] = sha256_of(folder / name)
    path.write_text(json.dumps(document), encoding="utf-8")
    (folder / SUMS).write_text(sums_of(folder), encoding="utf-8")


def test_export_without_references_says_so(here: Command, tmp_path: Path) -> None:
    ran = here("export", "knee", "--to", str(tmp_path / "d"), "--references", "0")

    assert ran.code == 0
    assert "no references" in ran.err
    assert not (tmp_path / "d" / "references.npz").exists()


def test_format_that_the_study_cannot_have_is_one_line(here: Command, tmp_path: Path) -> None:
    ran = here("export", "knee", "--to", str(tmp_path / "d"), "--format", "triton")

    assert "there is no model to make a Triton model of" in one_line(ran)
    assert not (tmp_path / "d").exists()


def test_export_into_a_folder_in_use_is_one_line(here: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    assert "is not empty" in one_line(here("export", "knee", "--to", str(tmp_path)))


def test_studies_are_listed_by_name(here: Command) -> None:
    assert here("studies").out == "fake\n"


def test_store_is_listed_and_verified(here: Command) -> None:
    listed, verified = here("store", "list"), here("store", "verify")

    assert re.search(r"^engine +\w{12}", listed.out, re.MULTILINE)
    assert re.search(r"^inspection +\w{12} .* engine=\w{12} *$", listed.out, re.MULTILINE)
    entries = re.search(r"^(\d+) entries, ", listed.out, re.MULTILINE)
    assert entries is not None
    assert verified.out == f"{entries[1]} entries are whole\n"


def test_corrupt_entry_is_found_and_pruning_ends_it(here: Command, place: Path) -> None:
    payload = next((place / "store" / "engine").glob("*/*/payload"))
    payload.chmod(0o600)
    payload.write_bytes(payload.read_bytes()[::-1])

    found = here("store", "verify")
    pruned = here("store", "prune", "--all")

    assert found.code == 1
    assert found.out.startswith("corrupt: engine ")
    assert pruned.out.startswith("dropped ")
    assert here("store", "verify").out == "0 entries are whole\n"


def test_pruned_engine_is_built_again_for_an_export(here: Command, tmp_path: Path) -> None:
    here("store", "prune", "--all")

    assert here("export", "knee", "--to", str(tmp_path / "d")).code == 0


@pytest.mark.parametrize("limits", [[], ["--all", "--keep-mb", "5"]])
def test_prune_asks_what_to_drop(here: Command, limits: list[str]) -> None:
    assert "say what to drop" in one_line(here("store", "prune", *limits))


@pytest.mark.parametrize(
    "arguments",
    [
        ["front"],
        ["show", "knee"],
        ["export", "knee", "--to", "d"],
        ["reproduce", "knee"],
        ["studies"],
    ],
)
def test_workspace_without_a_study_is_one_line_and_stays_away(
    nowhere: Command, tmp_path: Path, arguments: list[str]
) -> None:
    assert "there is no study" in one_line(nowhere(*arguments))
    assert list(tmp_path.iterdir()) == []


def test_nothing_feasible_is_code_three(nowhere: Command, tmp_path: Path) -> None:
    space = SPACE.replace("accuracy >= 0.7", "accuracy >= 0.999")
    (tmp_path / "s.yaml").write_text(space, encoding="utf-8")

    search = nowhere("search", "s.yaml", "--trials", "2", "--mlflow", "none")
    front = nowhere("front")

    assert (search.code, front.code) == (3, 3)
    assert "2 missing a bound" in search.out
    assert "2 missing a bound" in front.out
    assert "the front is empty" in one_line(nowhere("show", "knee"))


def test_picture_of_one_objective_is_one_line(nowhere: Command, tmp_path: Path) -> None:
    space = f"{SPACE}objectives: {{latency_p99_ms: minimize}}\n"
    (tmp_path / "s.yaml").write_text(space, encoding="utf-8")
    nowhere("search", "s.yaml", "--trials", "1", "--mlflow", "none")

    ran = nowhere("front", "--plot", "f.png")

    assert "two objectives" in one_line(ran)
    assert not (tmp_path / "f.png").exists()
    assert nowhere("front").code == 0


def test_space_file_that_cannot_be_meant_is_one_line_and_writes_nothing(
    nowhere: Command, tmp_path: Path
) -> None:
    (tmp_path / "s.yaml").write_text(SPACE.replace("axes:", "axis:"), encoding="utf-8")

    for command in ("search", "check"):
        assert "did you mean" in one_line(nowhere(command, "s.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


@pytest.mark.parametrize("name", ["fake", "fashion-mnist"])
def test_check_says_what_a_search_would_try(name: str) -> None:
    ran = trifront("check", name)

    assert ran.code == 0
    assert re.search(r"^deployments: [\d,]+$", ran.out, re.MULTILINE)
    assert "objectives: minimize latency_p99_ms" in ran.out


def test_init_drafts_a_space_that_check_accepts(nowhere: Command, tmp_path: Path) -> None:
    write_model(tmp_path / "net.onnx")
    write_data(tmp_path / "data.npz")

    ran = nowhere("init", "net.onnx", "--data", "data.npz")

    assert (ran.code, ran.out) == (0, "net.yaml\n")
    assert "trifront search net.yaml" in ran.err
    assert nowhere("check", "net.yaml").code == 0
    assert "net.yaml exists" in one_line(nowhere("init", "net.onnx", "--data", "data.npz"))


def test_schema_is_json_schema_that_accepts_the_shipped_files() -> None:
    ran = trifront("schema")

    schema = ran.document
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for name in SHIPPED:
        document = yaml.safe_load(space_path(name).read_text(encoding="utf-8"))
        validator.validate(document)
        assert not validator.is_valid(document | {"axis": {}})


def test_bug_is_not_dressed_up_as_an_error_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not expected escapes with its traceback, whatever its class."""

    class Surprise(BaseModel):
        number: int

    def surprise() -> None:
        Surprise.model_validate({})

    monkeypatch.setattr(sys, "argv", ["trifront", "surprise"])
    app.command("surprise")(surprise)
    try:
        with pytest.raises(ValueError, match="number"):
            main()
    finally:
        app.registered_commands.pop()


def test_model_of_two_inputs_of_two_types_goes_from_init_to_export(
    nowhere: Command, tmp_path: Path
) -> None:
    write_reader(tmp_path / "reader.onnx")
    write_pages(tmp_path / "pages.npz")
    assert nowhere("init", "reader.onnx", "--data", "pages.npz").code == 0
    draft = (tmp_path / "reader.yaml").read_text(encoding="utf-8")
    quick = draft.replace("max_s: 3 ", "block_s: 0.01\n  warmup_s: 0\n  max_s: 0.2 ")
    (tmp_path / "reader.yaml").write_text(quick, encoding="utf-8")

    for trials in ("2", "4"):  # the second goes on where the first ended
        ran = nowhere("search", "reader.yaml", "--trials", trials, "--mlflow", "none")
        assert ran.code == 0, ran.err
    exported = nowhere("export", "knee", "--to", "deploy")

    assert exported.code == 0, exported.err
    readme = (tmp_path / "deploy" / "README.md").read_text(encoding="utf-8")
    assert "input_ids as int64, pixels as float32, floats times 0.00392" in readme
    assert '"input_ids": stored["inputs.input_ids"]' in readme
    assert nowhere("verify", "deploy", "--sessions", "0").code == 0


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("--plot", "front.pdf"), "is no name of a PNG file; write front.png"),
        (("--plot", "misspelt/front.png"), "make the folder first"),
        (("--csv", "misspelt/trials.csv"), "make the folder first"),
    ],
)
def test_file_that_a_user_names_is_written_there_or_not_at_all(
    here: Command, tmp_path: Path, named: tuple[str, str], said: str
) -> None:
    option, name = named

    ran = here("front", option, str(tmp_path / name))

    assert ran.code != 0
    assert said.replace(" ", "") in "".join(ran.err.split()).replace("│", "")
    assert list(tmp_path.iterdir()) == []


def test_build_names_profile_options_and_target_for_people_and_programs(
    nowhere: Command, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="builds for GPUs that are not there")
    shipped = space_path("resnet-tensorrt")
    text = shipped.read_text(encoding="utf-8")
    text = text.replace("fashion_mnist/", f"{shipped.parent}/fashion_mnist/")
    text = text.replace("[fp32, fp16, int8]", "[fp16]").replace("[1, 2, 4, 8]", "[1]")
    axes = "variant: [resnet-w16]\n  batch_profile: [dynamic]\n  workspace_mib: [64]\n  precision"
    (tmp_path / "s.yaml").write_text(text.replace("precision:", f"{axes}:", 1), encoding="utf-8")

    for_people = nowhere("build", "s.yaml", "--targets", "sm89")
    for_programs = nowhere("build", "s.yaml", "--targets", "SM89", "--json")

    name = "resnet-w16 fp16 b1–256 batch_profile=dynamic workspace_mib=64 SM89"
    assert name in " ".join(for_people.out.split())
    (row,) = json.loads(for_programs.out)["engines"]
    assert row["standing"] == "was there"
    assert (row["batch_size"], row["largest_batch"]) == (None, 256)
    assert row["options"] == {"batch_profile": "dynamic", "workspace_mib": 64}


def test_check_of_a_space_for_other_machines_says_what_can_be_built_for_them() -> None:
    pytest.importorskip("tensorrt_rtx", reason="knows what its targets lack")

    ran = trifront("check", "resnet-tensorrt")

    assert ran.code == 0
    if "not to be searched here" in ran.err:  # no GPU
        assert "int8: can be built for SM80, SM86, SM89" in ran.err
