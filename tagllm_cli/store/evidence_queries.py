"""What `tagllm info` reads of an evidence file; also a program, which ends without closing the file.

    python -I evidence_queries.py FILE [WHAT]    # prints one JSON object, or an error in a line on stderr (exit code 1)

WHAT is `info`, or `decisions` for all that people decided.

SQLite reads a database and its write-ahead log right as long as the log is not begun anew meanwhile (every 4 MiB,
https://www.sqlite.org/wal.html): its pages would be overwritten. The header of the log changes then, so where it is the
same after the reading as before, what was read is one commit.

SQLite merges the log into the database when it closes it, and deletes the log. It must not do that to the log of
another process that is writing, nor to one that a killed run left. Python 3.11 has no switch for it (3.12 has
`Connection.setconfig`), so where there is a log, the reading is done by a process that ends before anything is closed.
It imports nothing of ours, so that it starts in some 50 ms.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import quote

_META = "('plan', 'source', 'part', 'merged', 'unread')"
TOO_FAST = "written faster than it can be read"

_TRIES = 12
_PAUSE_S = 0.02
_LOG_HEADER = 32
HUMAN_FORMAT = 5  # the first one that holds decisions of people
_EXAMPLES = 20
_DECISION = "fingerprint, image, label, who, decided, decision, scope, origin, file, recorded"
# Of `human_decision d`: it is no withdrawal, and was not taken back by one.
_STANDS = """d.decision != 'withdrawn' AND NOT EXISTS (SELECT 1 FROM human_decision w WHERE w.decision = 'withdrawn'
    AND (w.fingerprint, w.image, w.label, w.scope, w.who, w.decided)
        = (d.fingerprint, d.image, d.label, d.scope, d.who, d.decided))"""
_TOKENS = "count(*), sum(prompt_tokens), sum(cached_tokens), sum(output_tokens)"


class UnreadableError(Exception):
    """What is in the file makes no sense, or is not the same for long enough to be read."""


def read_now(
    path: str, *, progress: bool, keep: list[sqlite3.Connection] | None = None, what: str = "info"
) -> dict[str, Any]:
    """Return what `read` (or `read_decisions`) finds in one commit; connections go to `keep` instead of being closed.

    Raises UnreadableError where there is a log and no `keep`, and for what cannot be read.
    """
    for number in range(_TRIES):
        time.sleep(number * _PAUSE_S)
        before = state(path)
        has_log = before[0] == "log"
        if has_log and keep is None:
            raise UnreadableError("it has a log")
        error = None
        try:
            db = opened(path, with_log=has_log)
            if keep is not None:
                keep.append(db)
            try:
                found = read_decisions(db) if what == "decisions" else read(db, progress=progress or has_log)
            finally:
                if keep is None:
                    db.close()
        except (sqlite3.Error, UnicodeDecodeError) as raised:
            error = raised
        if state(path) == before:
            if error is not None:
                raise UnreadableError(str(error)) from error
            return found
    raise UnreadableError(TOO_FAST)


def state(path: str) -> tuple[Any, ...]:
    """Return what is the same before and after a reading that saw one commit; first `log` where there is a log."""
    with suppress(FileNotFoundError), open(f"{path}-wal", "rb") as log:
        if header := log.read(_LOG_HEADER):
            return ("log", os.fstat(log.fileno()).st_ino, header)
    found = os.stat(path)
    return ("file", found.st_ino, found.st_size, found.st_mtime_ns)


def opened(path: str, *, with_log: bool) -> sqlite3.Connection:
    """Open a database, with its log or without, for reading: without locks and without making files."""
    how = "vfs=unix-none" if with_log else "immutable=1"
    db = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?mode=ro&{how}", uri=True, isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")  # the index of the log is kept in memory
    db.execute("BEGIN")
    return db


def read(db: sqlite3.Connection, *, progress: bool) -> dict[str, Any]:
    """Return what an evidence file of any format says about its runs, as plain JSON values.

    `progress`: also how many images have all their answers, which looks at each.
    """
    (application_id,), (format_,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    engine, response, completed = ("engine", "response", "completed") if format_ > 1 else ("NULL", "reply", "settled")
    columns = f"id, command, version, started, ended, {engine}, report"
    runs = db.execute(f"SELECT {columns} FROM run ORDER BY id").fetchall()
    untold = [run[0] for run in runs if '"tokens"' not in (run[-1] or "")]
    done = f"SELECT count(*) FROM image WHERE ({completed} NOTNULL OR proposed = '[]') AND error_kind ISNULL"
    return {
        "application_id": application_id,
        "format": format_,
        "runs": runs,
        "meta": dict(db.execute(f"SELECT key, value FROM meta WHERE key IN {_META}").fetchall()),
        "answers": _answers(db, response, untold),
        "images": db.execute("SELECT count(*) FROM image").fetchone()[0],
        "completed": db.execute(done).fetchone()[0] if progress else None,
        "people": read_people(lambda query: db.execute(query).fetchall()) if format_ >= HUMAN_FORMAT else None,
    }


def read_decisions(db: sqlite3.Connection) -> dict[str, Any]:
    """Return all that people decided, with checksums, as plain JSON values; bytes in hexadecimal."""
    (application_id,), (format_,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    found: dict[str, Any] = {"application_id": application_id, "format": format_, "decisions": [], "sets": []}
    if format_ >= HUMAN_FORMAT:
        for name, query in (
            ("decisions", f"SELECT {_DECISION}, checksum FROM human_decision"),
            ("sets", "SELECT key, names, checksum FROM label_set"),
        ):
            found[name] = [[_plain(value) for value in row] for row in db.execute(query)]
    return found


def read_people(query: Callable[[str], Sequence[Sequence[Any]]]) -> dict[str, Any] | None:
    """Return what people decided in numbers, None where there is nothing, as plain JSON values.

    `stale`: of images that are there with other bytes; `gone`: of images that are not there at all; of these and of
    `labels`, what was taken back does not count. `disputed` are all decisions about the images that several people
    decided about.
    """
    ((count, first, last),) = query("SELECT count(*), min(decided), max(decided) FROM human_decision")
    if not count:
        return None
    lost = _lost_images(query)
    several = "SELECT fingerprint FROM human_decision GROUP BY fingerprint HAVING count(DISTINCT who) > 1"
    disputed = query(f"SELECT {_DECISION} FROM human_decision WHERE fingerprint IN ({several}) ORDER BY fingerprint")
    return {
        "decisions": count,
        "images": query("SELECT count(DISTINCT fingerprint) FROM human_decision")[0][0],
        "first": first,
        "last": last,
        "who": [list(row) for row in query("SELECT who, count(*) FROM human_decision GROUP BY who ORDER BY 2 DESC, 1")],
        "files": [
            list(row)
            for row in query(
                "SELECT origin, count(*), min(recorded) FROM human_decision GROUP BY origin, file ORDER BY 3"
            )
        ],
        "stale": _lost([(image, number) for image, number, is_there in lost if is_there]),
        "gone": _lost([(image, number) for image, number, is_there in lost if not is_there]),
        "labels": [
            list(row)
            for row in query(f"SELECT label, count(*) FROM human_decision d WHERE label != '' AND {_STANDS} GROUP BY 1")
        ],
        "sets": [[_plain(value) for value in row] for row in query("SELECT key, names FROM label_set")],
        "disputed": [[_plain(value) for value in row] for row in disputed],
    }


def _lost_images(query: Callable[[str], Sequence[Sequence[Any]]]) -> Sequence[Sequence[Any]]:
    """Return (image, decisions, whether it is there with other bytes) of decisions about bytes that are not there."""
    unmoved = "EXISTS (SELECT 1 FROM image WHERE id = d.image AND fingerprint = d.fingerprint)"
    if not query(f"SELECT EXISTS (SELECT 1 FROM human_decision d WHERE NOT {unmoved})")[0][0]:
        return ()
    return query(
        f"""WITH moved AS (SELECT DISTINCT fingerprint FROM human_decision d WHERE NOT {unmoved}),
            present AS (SELECT fingerprint FROM image WHERE fingerprint IN (SELECT fingerprint FROM moved))
        SELECT d.image, count(*), EXISTS (SELECT 1 FROM image WHERE id = d.image) FROM human_decision d
        WHERE d.fingerprint IN (SELECT fingerprint FROM moved)
            AND d.fingerprint NOT IN (SELECT fingerprint FROM present) AND {_STANDS}
        GROUP BY d.image, d.fingerprint ORDER BY d.image"""
    )


def _lost(images: list[tuple[str, int]]) -> dict[str, Any]:
    count = sum(number for _, number in images)
    return {"decisions": count, "images": len(images), "examples": [image for image, _ in images[:_EXAMPLES]]}


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _answers(db: sqlite3.Connection, response: str, runs: list[int]) -> dict[str, list[int]]:
    """Return (requests, prompt, cached and output tokens, failed requests) by run; reads all answers."""
    if not runs:
        return {}
    some = f"WHERE run IN ({', '.join(map(str, runs))}) GROUP BY run"
    told = {run: counts for run, *counts in db.execute(f"SELECT run, {_TOKENS} FROM {response} {some}")}
    failed = dict(db.execute(f"SELECT run, count(*) FROM failed_request {some}").fetchall())
    found = {}
    for run in told.keys() | failed.keys():
        requests, *tokens = told.get(run, (0, 0, 0, 0))
        found[str(run)] = [requests + failed.get(run, 0), *tokens, failed.get(run, 0)]
    return found


def _main() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an exception would end the process in the ordinary way
    connections: list[sqlite3.Connection] = []
    code = 1
    try:
        found = read_now(sys.argv[1], progress=True, keep=connections, what="".join(sys.argv[2:]) or "info")
        print(json.dumps(found), flush=True)
        code = 0
    except Exception as error:
        print(" ".join(f"{error}".split()), file=sys.stderr, flush=True)
    finally:
        os._exit(code)  # the connections are still open


if __name__ == "__main__":
    _main()
