"""The command ``tdn``: what it lists, what it reports, what a shell completes with it."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

from tdn.system import overview
from tdn.system.overview import commands, completion_script, info, main


def test_every_command_is_listed(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = {point.name for point in commands()} - {"tdn"}
    assert {"tdn-train", "tdn-export", "tdn-eval", "tdn-data", "tdn-lammps"} <= names
    for name in names:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.split()) > 4 and len(line) <= 90


def test_the_list_does_not_wait_for_pytorch():
    code = (
        "import sys, tdn.system.overview as o; o.main([]); assert 'torch' not in sys.modules; "
        "assert 'tdn-train' in o.parser().format_help()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("point", commands(), ids=lambda point: point.name)
def test_every_command_says_its_version(point, capsys):
    with pytest.raises(SystemExit) as end:
        import_module(point.module).parser().parse_args(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"tdn {version('tdn-potential')}\n"


def test_info_names_what_is_there(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for expected in (f"tdn {version('tdn-potential')}", f"torch {version('torch')}"):
        assert expected in text
    for part in ("library:", "plugin:", "cores:", "devices:", "missing:"):
        assert any(line.startswith(part) for line in text.splitlines()), part
    assert len(text.splitlines()) <= 24  # one screen


def test_info_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(overview, "OPTIONAL", {"no-such-package": ("a purpose", "pip install it")})
    monkeypatch.setattr(overview, "PROGRAMS", {"no-such-program": "does a thing"})
    lines = info()[-2:]
    assert lines == [
        "missing:  no-such-package (a purpose); pip install it",
        "missing:  no-such-program (does a thing) is not on PATH",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tdn-train", "--rest"], {"--restart"}),
        (["tdn-lammps", "bu"], {"build"}),
        (["tdn-lammps", "build", "--bi"], {"--bigbig"}),
        (["tdn", "comp"], {"completion"}),
        (["tdn-eval", "err"], {"errors"}),
    ],
)
def test_bash_completes(words, expected, tmp_path):
    script = tmp_path / "completion"
    script.write_text(completion_script("bash"))
    function = f"_shtab_{words[0].replace('-', '_')}"
    command = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"{function} {words[0]} {words[-1]} {words[-2]}; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected


def test_completion_without_its_package(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err


def test_misspelled(capsys):
    with pytest.raises(SystemExit) as error:
        main(["inof"])
    assert error.value.code == 2
    assert "invalid choice: 'inof'" in capsys.readouterr().err
