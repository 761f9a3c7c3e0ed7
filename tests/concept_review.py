"""Writing cards with a review in a process of its own: `python -m tests.concept_review FOLDER URL`.

FOLDER is that of a `ConceptDesk`, URL that of its scripted LLM. Ends as the command line does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tagllm_cli.concepts import ConceptSettings, Model, write_concepts
from tagllm_cli.console import Console
from tagllm_cli.engines.endpoint import EndpointEngine
from tagllm_cli.errors import TagllmError
from tests.asking import settings
from tests.concept_desk import see
from tests.rules import RuleEngine


def main(folder: Path, url: str) -> None:
    """Run the command; what the person is asked goes to stderr, the summary to stdout."""
    console = Console()
    wanted = ConceptSettings(
        vocabulary=str(folder / "vocabulary.yaml"),
        out=folder / "cards.yaml",
        table=folder / "candidates.parquet",
        truth=folder / "truth.csv",
        pictures=24,
        review=True,
    )
    llm = Model("scribe", b"l" * 16, lambda: EndpointEngine(settings(url)))
    seer = Model("rules", b"s" * 16, lambda: RuleEngine(answer=see))
    try:
        summary = write_concepts(wanted, llm, seer, console)
    except TagllmError as error:
        console.explain(error)
        raise SystemExit(error.exit_code) from error
    console.result(summary.to_json(), summary.lines())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
