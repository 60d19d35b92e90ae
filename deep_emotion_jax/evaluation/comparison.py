"""Markdown tables of the paper's results beside those of finished runs and evaluations."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deep_emotion_jax.constants import VIEWS
from deep_emotion_jax.errors import UserError
from deep_emotion_jax.evaluation.tables import markdown_table, mean_and_deviation
from deep_emotion_jax.files import read_json


class Claim(NamedTuple):
    """The paper's result for a dataset: accuracies in percent on its test images."""

    dataset: str
    title: str
    protocol: str
    accuracy: str
    compared: str


PAPER = (
    Claim(
        "fer2013",
        "FER-2013",
        "official",
        "70.02",
        "bag of words 67.4, Mollahosseini et al. 66.4, VGG+SVM 66.31, GoogleNet 65.2",
    ),
    Claim(
        "ferg",
        "FERG",
        "paper",
        "99.3",
        "adversarial NN 98.2, ensemble multi-feature 97, DeepExpr 89.02",
    ),
    Claim(
        "jaffe", "JAFFE", "paper", "92.8", "CNN+SVM 95.31, salient patches 91.8, Fisherface 89.2"
    ),
    Claim(
        "ck_plus",
        "CK+",
        "paper",
        "98.0",
        "PPDN 97.3, DTAGN 97.2, IACNN 95.37, IB-CNN 95.1, Inception 93.2, 3DCNN-DAP 92.4",
    ),
)
"""arXiv 1902.01019, as commonly quoted. The paper has no subject-independent results."""

OTHER_TITLES = {"synthetic_faces": "generated faces"}

PROTOCOL_NAMES = {
    "official": "official split",
    "paper": "the paper's random split",
    "subjects": "subject-independent",
}


def results_table(folder: Path, files: Sequence[Path] = (), *, with_missing: bool = False) -> str:
    """Format the result of every finished run and evaluation beside the paper's.

    Args:
      folder: holds workdirs, each with a summary.json, at any depth.
      files: files of `eval.py evaluate --json`.
      with_missing: add a row "not run" for each result of the paper without a run.

    Raises:
      UserError: if no run is found, or a file is damaged.
    """
    # `rglob` fails for a very long name.
    summaries = sorted(folder.rglob("summary.json")) if os.path.isdir(folder) else []
    runs = [_read(path) for path in [*summaries, *files]]
    if not runs and not with_missing:
        raise UserError(f"no finished run (summary.json) in {folder}; give another --runs FOLDER")
    rows = [_row(run, digits=2) for run in runs]
    if with_missing:
        found = {row[:2] for row in rows}
        rows += [_Row(*key, _NOT_RUN) for key in _PAPER_ROWS if key not in found]
    return _format(rows)


_SHORT_HEADER = (
    *("dataset", "protocol", "paper %", "others %", "ours %", "95 % interval"),
    *("without copies %", "runs", "network", "commit", "command"),
)
_FER_SPLITS = {"test": "PrivateTest", "validation": "PublicTest (validation)"}


def records_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Format records of `read_record` as README's table, without padding of the cells.

    The paper's result is shown for test images only, with other methods' results, once per dataset
    and protocol.
    """
    claims = {(claim.dataset, claim.protocol): claim for claim in PAPER}
    titles = OTHER_TITLES | {claim.dataset: claim.title for claim in PAPER}
    lines: list[Sequence[str]] = [_SHORT_HEADER, ["---"] * len(_SHORT_HEADER)]
    for record in records:
        part, row = _part(record), _row(record, digits=1)
        ours, interval, runs, parameters, name, without, commit, command = row.cells
        claim = claims.pop((row.dataset, row.protocol), None) if row.on_test else None
        protocol = PROTOCOL_NAMES.get(row.protocol, row.protocol)
        if row.dataset == "fer2013":
            protocol = _FER_SPLITS.get(part, part)
        network = f"{name} ({parameters})" if parameters else name
        lines.append(
            (
                titles.get(row.dataset, row.dataset),
                protocol,
                claim.accuracy if claim else "",
                claim.compared if claim else "",
                ours.replace(f"{part}, ", "").replace(f" ({part})", ""),
                *(interval, without, runs, network, commit, command),
            )
        )
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def read_record(path: Path) -> dict[str, Any]:
    """Read the fields for a table from a summary.json or a file of `eval.py evaluate --json`.

    Raises:
      UserError: if the file is neither.
    """
    record = _read(path)
    part = _part(record)
    kept = ("name", "dataset", "dataset_config", "protocol", "mirrored", "tta", "parameters")
    return {
        **{key: record[key] for key in (*kept, "finished", "commit", "device") if key in record},
        "over_runs": {part: _over_runs(record, part)},
        "without_copies": {part: (record.get("without_copies") or {}).get(part)},
        "lowest": _lowest(record, part),
        "command": _command(record),
    }


class _Row(NamedTuple):
    """One result; `cells` fill the columns "ours %" to "command"."""

    dataset: str
    protocol: str
    cells: tuple[str, ...]
    on_test: bool = True  # as the paper's results are


_HEADER = (
    *("dataset", "protocol", "paper %", "ours %", "95 % interval", "runs", "parameters"),
    *("network or folder", "without copies %", "commit", "command", "compared there"),
)
_NOT_RUN = ("not run", *[""] * 7)
_PAPER_ROWS = [("fer2013", "official")] + [
    (claim.dataset, protocol)
    for claim in PAPER
    if claim.protocol == "paper"
    for protocol in ("paper", "subjects")
]


def _format(rows: list[_Row]) -> str:
    # The paper's datasets come first, in its order.
    order = {claim.dataset: place for place, claim in enumerate(PAPER)}
    rows = sorted(
        rows, key=lambda row: (order.get(row.dataset, len(order)), row.protocol == "subjects")
    )
    claims = {claim.dataset: claim for claim in PAPER}
    lines, compared_to = [], set()
    for row in rows:
        claim = claims.get(row.dataset)
        accuracy, compared = "not given", ""
        if claim and claim.protocol == row.protocol and row.on_test:
            accuracy = claim.accuracy
            compared = "" if claim in compared_to else claim.compared
            compared_to.add(claim)
        title = claim.title if claim else OTHER_TITLES.get(row.dataset, row.dataset)
        protocol = PROTOCOL_NAMES.get(row.protocol, row.protocol)
        lines.append((title, protocol, accuracy, *row.cells, compared))
    return markdown_table(_HEADER, lines)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
        record.setdefault("name", path.parent.name)
        if not all(isinstance(record[key], str) for key in ("name", "dataset", "protocol")):
            raise TypeError("name, dataset or protocol is not a text")
        _row(record, digits=2)
    except (OSError, AttributeError, LookupError, TypeError, ValueError, StopIteration) as error:
        raise UserError(
            f"{path} is not the summary of a run ({error!r}); run main.py with this --workdir again"
        ) from error
    return record


def _row(record: Mapping[str, Any], digits: int) -> _Row:
    """Return the row of one workdir, evaluation or compact record."""
    part = _part(record)
    ours = _over_runs(record, part)
    restarted = sum(run.get("restarts", 0) > 0 for run in record.get("runs", ()))
    lowest = _lowest(record, part)
    marks = ", ".join(
        ([] if part == "test" else [part])
        + (["mirrored"] if record.get("mirrored") else [])
        + ([VIEWS[record["tta"]]] if record.get("tta") else [])
        + ([] if lowest is None else [f"lowest {100 * lowest:.{digits}f}"])
    )
    without = (record.get("without_copies") or {}).get(part)
    cells = (
        mean_and_deviation(ours["mean"], ours["std"], digits) + (f" ({marks})" if marks else ""),
        _interval(ours["interval95"], digits),
        str(ours["count"]) + (f" ({restarted} restarted)" if restarted else ""),
        f"{record['parameters']:,}" if record.get("parameters") else "",
        record["name"],
        mean_and_deviation(without["mean"], without["std"], digits) if without else "",
        (record.get("commit") or "")[:7],
        f"`{_command(record)}`" if record.get("command") else "",
    )
    return _Row(record["dataset"], record["protocol"], cells, part == "test")


def _part(record: Mapping[str, Any]) -> str:
    return "test" if "test" in record["over_runs"] else next(iter(record["over_runs"]))


def _over_runs(record: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the scores over the runs; for one run, the interval is that over images."""
    ours = dict(record["over_runs"][part])
    if ours["interval95"] is None and record.get("runs"):
        ours["interval95"] = record["runs"][0][part]["interval95"]
    return ours


def _lowest(record: Mapping[str, Any], part: str) -> float | None:
    scores = [run.get(part, {}) for run in record.get("runs", ())]
    runs = [score["accuracy"] for score in scores if "accuracy" in score]
    return min(runs) if len(runs) > 1 else record.get("lowest")


def _interval(interval: Sequence[float] | None, digits: int) -> str:
    if interval is None:
        return ""
    low, high = (100 * end for end in interval)
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _command(record: Mapping[str, Any]) -> str:
    """Return the command without paths; "" if it is unknown."""
    command = record.get("command") or ""
    command = re.sub(r" --(workdir|config\.data_dir|data-dir|json|predictions)[= ]\S+", "", command)
    command = re.sub(r"(manual[_-]dir)[= ]\S+", r"\1=PATH", command)
    return re.sub(r"^(python )?(\S*/)?(main|eval)\.py", r"python \3.py", command)
