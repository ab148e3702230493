"""Tables of the studies: settings are measured one after another into a tidy table that can be resumed.

The table is a CSV file of one row a measurement: the setting's columns, then `metric` and `value`. A
setting's rows are appended and flushed together as soon as they are measured. `settings.json` beside it says
what the table is of; a table is only ever continued with the same settings. As each setting brings its own
seed, a run that was interrupted and continued gives the same table, byte for byte, as one that was not.

Times are no results: they differ from run to run. What a study says about them goes to `times.csv`, one row a
setting with the threads that were used, of which nothing is promised but that it was measured.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sparsehopfield._engine.atomic_files import as_path, atomic_write
from sparsehopfield._engine.optional import require
from sparsehopfield._engine.progress import progress_bar
from sparsehopfield.config import get_num_threads, set_num_threads, show_config
from sparsehopfield.data._content import first_line
from sparsehopfield.errors import FileFormatError
from sparsehopfield.studies._core.options import StudyOptions

TABLE, SETTINGS, TIMES = "table.csv", "settings.json", "times.csv"
AGAIN = "; choose another --output, or begin again with --restart"  # what helps where a table cannot be continued

Setting = Mapping[str, Any]
Row = dict[str, Any]
Together = Callable[[Setting], Any]
Options = TypeVar("Options", bound=StudyOptions)


def run_table(
    folder: str | os.PathLike[str],
    study: str,
    options: Mapping[str, Any],
    settings: Sequence[Setting],
    metrics: Sequence[str] | Callable[[Setting], Sequence[str]],
    measure: Callable[[Setting], Mapping[str, float]],
    *,
    jobs: int = 1,
    restart: bool = False,
    progress: bool = True,
    together: Together | None = None,
) -> list[Row]:
    """Measure every setting that the table does not hold yet.

    Parameters
    ----------
    folder : path
        The folder of the table and its settings; made if it is not there.
    study : str
        Name of the study.
    options : mapping
        Everything that the results depend on, of types that JSON has.
    settings : sequence of mapping
        The settings in order, all with the same columns.
    metrics : sequence of str, or callable
        The names of the values that `measure` returns; or a function from a setting to these names.
    measure : callable
        Takes a setting, returns its value of every metric, and `seconds` if its time is to be written.
    jobs : int
        How many settings to measure at the same time, each in a process of its own with one thread. The table is
        the same for any number, in the order of `settings`.
    restart : bool
        Throw away what is there and begin again.
    progress : bool
        Show a progress bar (on a terminal only).
    together : callable, optional
        Takes a setting. Neighbours for which it returns the same, other than None, are measured one after the other by
        one process, which may keep what they share.

    Returns
    -------
    list of dict
        The whole table, in the order of `settings`.
    """
    folder = Path(as_path(folder, "folder"))
    claim(folder, study, options, restart)
    columns = list(settings[0])
    expected = {_key(setting, columns): metrics(setting) if callable(metrics) else metrics for setting in settings}
    done, whole = _complete(folder / TABLE, columns, expected, AGAIN)
    if (folder / TABLE).exists():
        os.truncate(folder / TABLE, whole)
    _times(folder / TIMES)  # found damaged now, and not when something is measured
    waiting = [setting for setting in settings if _key(setting, columns) not in done]
    with (
        _bar(study, len(settings), len(settings) - len(waiting), progress) as bar,
        open(folder / TABLE, "a", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow([*columns, "metric", "value"])
        for setting, values in zip(waiting, _measured(measure, waiting, jobs, together), strict=True):
            key = _key(setting, columns)
            writer.writerows([*key, metric, repr(float(values[metric]))] for metric in expected[key])
            file.flush()
            if "seconds" in values:
                _keep_time(folder / TIMES, columns, key, values["seconds"], 1 if jobs > 1 else get_num_threads())
            done[key] = {metric: float(values[metric]) for metric in expected[key]}
            bar.update()
    return _rows(settings, done)


def _rows(settings: Sequence[Setting], done: Mapping[tuple[str, ...], Row]) -> list[Row]:
    """Return one row for each value, in the order of the settings."""
    return [
        {**setting, "metric": metric, "value": value}
        for setting in settings
        for metric, value in done[_key(setting, list(setting))].items()
    ]


def measure_table(
    output: str | os.PathLike[str],
    study: str,
    chosen: StudyOptions,
    settings: Sequence[Setting],
    metrics: Sequence[str] | Callable[[Setting], Sequence[str]],
    measure: Callable[[Setting], Mapping[str, float]],
    also: Mapping[str, Any] | None = None,
    together: Together | None = None,
) -> list[Row]:
    """Measure as the options say; see `run_table`.

    Parameters
    ----------
    output, study, settings, metrics, measure, together
        As there.
    chosen : StudyOptions
        The options of the run; `jobs` settings at a time, where the study has them.
    also : mapping, optional
        All else that the results depend on.
    """
    return run_table(
        output,
        study,
        {**chosen.as_settings(), **(also or {})},
        settings,
        metrics,
        measure,
        jobs=getattr(chosen, "jobs", 1),
        restart=chosen.restart,
        progress=chosen.progress,
        together=together,
    )


def stored_options(folder: str | os.PathLike[str], study: str, kind: type[Options]) -> Options:
    """Read the options of a table that is there.

    Parameters
    ----------
    folder : path
        The folder of the table and its settings.
    study : str
        Name of the study.
    kind : type
        Of the study's options.

    Returns
    -------
    StudyOptions
        Of that type.

    Raises
    ------
    FileNotFoundError
        If there are no settings.
    FileFormatError
        If they are damaged, or another study's.
    """
    path = Path(as_path(folder, "folder"), SETTINGS)
    text = path.read_bytes()
    try:
        settings = json.loads(text)["settings"]
        if settings["study"] != study:
            raise ValueError(f"of {settings['study']}")
        return kind(**{name: settings[name] for name in kind().as_settings()})
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise FileFormatError(f"{path}: damaged, or of another study ({first_line(error)})") from error


def stored_rows(
    folder: str | os.PathLike[str],
    settings: Sequence[Setting],
    metrics: Sequence[str] | Callable[[Setting], Sequence[str]],
) -> list[Row]:
    """Read a finished table, and leave it as it is.

    Parameters
    ----------
    folder, settings, metrics
        As `run_table` has them.

    Returns
    -------
    list of dict
        What `run_table` returns.

    Raises
    ------
    FileNotFoundError
        If there is no table.
    FileFormatError
        If it is damaged or not finished.
    """
    path = Path(as_path(folder, "folder"), TABLE)
    columns = list(settings[0])
    expected = {_key(setting, columns): metrics(setting) if callable(metrics) else metrics for setting in settings}
    path.stat()  # a table that is not there is another error than one that is not finished
    done, whole = _complete(path, columns, expected)
    if missing := len(expected) - len(done):
        raise FileFormatError(f"{path}: not finished ({missing} of {len(expected)} settings are missing)")
    if whole < path.stat().st_size:
        raise FileFormatError(f"{path}: damaged (its last line is not complete)")
    return _rows(settings, done)


def times(folder: str | os.PathLike[str], settings: Sequence[Setting]) -> list[float]:
    """Read how many seconds each of some settings took; nan where no time was written."""
    known = _times(Path(folder, TIMES))
    return [known.get(_key(setting, list(setting)), float("nan")) for setting in settings]


def _times(path: Path) -> dict[tuple[str, ...], float]:
    """Return the seconds of the settings that the file has."""
    known = {}
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], start=1):
        try:
            *key, _threads, seconds = _fields(line)
            if number > 1:
                known[tuple(key)] = float(seconds)
        except ValueError as error:
            raise FileFormatError(
                f"{path}, line {number}: damaged ({error}); delete it: no result depends on it"
            ) from error
    return known


def _measured(
    measure: Callable[[Setting], Mapping[str, float]],
    settings: Sequence[Setting],
    jobs: int,
    together: Together | None,
) -> Iterator[Mapping[str, float]]:
    """Yield the values that `measure` returns for each setting, in their order."""
    if jobs == 1:
        return map(measure, settings)
    joblib = require("joblib", purpose="measuring several settings at the same time")
    groups: list[list[Setting]] = []
    last = None
    for setting in settings:
        group = None if together is None else together(setting)
        if group is None or group != last:
            groups.append([])
        groups[-1].append(setting)
        last = group
    tasks = (joblib.delayed(_with_one_thread)(measure, group) for group in groups)
    side_by_side = joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks)
    return (values for group in side_by_side for values in group)


def _with_one_thread(
    measure: Callable[[Setting], Mapping[str, float]], settings: Sequence[Setting]
) -> list[Mapping[str, float]]:
    """Measure settings with one thread."""
    set_num_threads(1)
    return [measure(setting) for setting in settings]


def _keep_time(path: Path, columns: Sequence[str], key: Sequence[str], seconds: float, threads: int) -> None:
    """Add the time of one setting to the file of times."""
    rows = path.read_text(encoding="utf-8") if path.exists() else _line([*columns, "threads", "seconds"])
    write(path, rows + _line([*key, threads, f"{seconds:.6g}"]))


def _line(fields: Sequence[Any]) -> str:
    """Format fields as a line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue()


def write(path: Path, text: str) -> None:
    """Write a text file as a whole, so that no half-written one is ever read."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same columns, at least one, as a CSV file; its folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, "".join(map(_line, [list(rows[0]), *(list(row.values()) for row in rows)])))


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a table, and what it was computed by."""
    text = json.dumps({"settings": settings, "config": show_config(mode="dict")}, indent=2, default=str)
    write(folder / SETTINGS, text + "\n")


def claim(folder: Path, study: str, options: Mapping[str, Any], restart: bool) -> None:
    """Write the settings, or check that the table which is there has the same ones.

    Parameters
    ----------
    folder, study, options, restart
        As in `run_table`.

    Raises
    ------
    ValueError
        If there is a table of other settings or of another study, or one without settings.
    FileFormatError
        If the settings that are there are damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS
    wanted = json.loads(json.dumps({"study": study, **options}))
    if restart:
        for name in (TABLE, TIMES, SETTINGS):
            (folder / name).unlink(missing_ok=True)
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["settings"]
            differ = (
                ["study"]
                if found["study"] != study
                else [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileFormatError(f"{path}: damaged settings file ({first_line(error)}){AGAIN}") from error
        if differ:
            what = "; ".join(f"{name}: there {found.get(name)}, now {wanted.get(name)}" for name in differ)
            raise ValueError(f"{folder} holds a table of other settings ({first_line(what)}){AGAIN}")
        return
    if (folder / TABLE).exists():
        raise ValueError(f"{folder / TABLE} is there without its {SETTINGS}{AGAIN}")
    write_settings(folder, wanted)


def _complete(
    path: Path, columns: Sequence[str], expected: Mapping[tuple[str, ...], Sequence[str]], advice: str = ""
) -> tuple[dict[tuple[str, ...], Row], int]:
    """Read the settings that are complete in the table, and how many bytes they are, without an incomplete one."""
    if not path.exists():
        return {}, 0
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    done: dict[tuple[str, ...], Row] = {}
    whole = position = 0
    current: Row = {}
    previous: tuple[str, ...] = ()
    metrics: Sequence[str] = ()
    for number, line in enumerate(lines, start=1):
        position += len(line)
        try:
            fields = _fields(line)
            if number == 1:
                if fields != [*columns, "metric", "value"]:
                    raise ValueError(f"its columns are {fields}, not {[*columns, 'metric', 'value']}")
                whole = position
                continue
            key = tuple(fields[:-2])
            if key != previous:
                if current and len(current) != len(metrics):
                    raise ValueError("the setting before it is not complete")
                if key not in expected:
                    raise ValueError("not one of the settings")
                current, previous, metrics = {}, key, expected[key]
            metric, value = fields[-2:]
            if metric != metrics[len(current)]:
                raise ValueError(f"{metric!r} where {metrics[len(current)]!r} should be")
            current[metric] = float(value)
        except (ValueError, IndexError) as error:
            raise FileFormatError(f"{path}, line {number}: damaged ({first_line(error)}){advice}") from error
        if len(current) == len(metrics):
            done[key] = current
            whole = position
    return done, whole


def _fields(line: bytes) -> list[str]:
    """Return the fields of a line; ValueError if it has none that a table can have."""
    try:
        return next(csv.reader([line.decode("utf-8")]), [])
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _key(setting: Setting, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the fields of a setting as the table has them."""
    return tuple(str(setting[column]) for column in columns)


def _bar(study: str, total: int, initial: int, progress: bool) -> Any:
    """Return a progress bar."""
    purpose, hidden = "the progress bar of the studies", None if progress else True
    return progress_bar(total, study, "settings", purpose=purpose, initial=initial, disable=hidden)
