"""docs/options.md says what the commands and recipes say."""

from pathlib import Path

from marc.cli.reference import reference

FILE = Path(__file__).resolve().parents[2] / "docs" / "options.md"


def test_the_document_is_up_to_date():
    assert FILE.read_text(encoding="utf-8") == reference(), "python -m marc.cli.reference > docs/options.md"


def test_it_names_commands_recipes_and_who_takes_what():
    text = reference()
    for heading in ("## CompressionConfig", "### marc ask", "### marc world measure", "### CGRPOConfig", "| budget |"):
        assert heading in text, heading
    assert (
        "Taken by `marc ask`, `marc chat`, `marc serve`, `marc eval`, `marc bench`, `marc world measure`, recipes."
        in text
    )
    assert "| `tower_layer` | a whole number or a schedule such as 4:16,8:4 or none | none | Merges inside" in text
    assert "- `CompressionConfig`; what is not given is the model's; by default `duplicates` 0.1" in text
