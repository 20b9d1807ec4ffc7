"""Another Python imports what this one does."""

import subprocess

from marc.interpreter import python_running


def test_it_imports_from_where_this_one_does_and_not_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "json.py").write_text("raise SystemExit('a file of somebody else')")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "only_there.py").write_text("WORD = 'found'")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "there")
    command = python_running("import json, only_there; print(only_there.WORD, *sys.argv[1:])", "a b")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "found a b\n"
