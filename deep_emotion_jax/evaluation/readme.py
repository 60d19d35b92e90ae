"""The table of results in README.md, generated from docs/results.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.comparison import read_record, records_table
from deep_emotion_jax.files import read_json, write_json, write_text

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
RESULTS = Path("docs/results.json")
_SAME = ("dataset", "dataset_config", "protocol", "name", "mirrored", "tta")


def render(root: Path) -> str:
    """Return README.md with the table of docs/results.json.

    Raises:
      UserError: if a file cannot be read, or README.md lacks the markers.
    """
    try:
        text = (root / "README.md").read_text(encoding="utf-8")
        records = read_json(root / RESULTS)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the results in {root}: {error}") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{root / 'README.md'} needs the lines {BEGIN} and {END}, once each")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{records_table(records)}{END}{after}"


def update(root: Path, files: Sequence[Path] = ()) -> None:
    """Add results to docs/results.json, and rewrite the table in README.md.

    Args:
      root: the folder of the repository.
      files: summary.json of runs, or files of `eval.py evaluate --json`. Each replaces the result
        of the same dataset, protocol, network and split, if any.

    Raises:
      UserError: as `render`, or if a file is damaged.
    """
    if files:
        records = read_json(root / RESULTS)
        for file in files:
            new = read_record(file)
            same = [i for i, old in enumerate(records) if _identity(old) == _identity(new)]
            if same:
                records[same[0]] = new
            else:  # after the others of its dataset
                places = [
                    i + 1 for i, old in enumerate(records) if old["dataset"] == new["dataset"]
                ]
                records.insert(max(places, default=len(records)), new)
        write_json(root / RESULTS, records)
    write_text(root / "README.md", render(root))


def _identity(record: dict[str, Any]) -> tuple[Any, ...]:
    return (*(record.get(key) or "" for key in _SAME), *record.get("over_runs", ()))
