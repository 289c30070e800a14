import subprocess
import sys
from pathlib import Path

from real_spaces import write_data, write_model, write_space
from untraced import untraced

PROGRAM = str(Path(sys.executable).with_name("trifront"))
OURS = {"matplotlib", "fontconfig", "mesa_shader_cache"}  # caches of fonts, and nobody else's


def test_no_command_reports_to_the_makers_of_a_library_or_leaves_files_at_home(
    tmp_path: Path,
) -> None:
    """ONNX Runtime does both as soon as it is imported, unless it is told not to before."""
    home, temporary, work = (tmp_path / name for name in ("home", "temporary", "work"))
    for folder in (home, temporary, work):
        folder.mkdir()
    model, data = write_model(work / "net.onnx"), write_data(work / "data.npz")
    space = write_space(work, {"net": model}).source
    environment = untraced() | {"HOME": str(home), "TMPDIR": str(temporary)}
    for variable in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        environment.pop(variable, None)

    for command in (
        ("init", model.name, "--data", data.name),
        ("search", space, "--trials", "1", "--mlflow", "none"),
        ("export", "knee", "--to", "bundle"),
        ("verify", "bundle", "--sessions", "1"),
        ("reproduce", "knee", "--sessions", "1"),
    ):
        subprocess.run([PROGRAM, *command], cwd=work, env=environment, check=True)

    left = [path for path in (*home.rglob("*"), *temporary.rglob("*")) if path.is_file()]
    assert [path for path in left if not OURS & set(path.parts)] == []
