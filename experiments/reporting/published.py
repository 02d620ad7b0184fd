"""Reads and checks published.toml and targets.toml: published figures, trivial baselines and targets."""

import dataclasses
import pathlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from experiments.schema import Checked, UserError, build, require

CheckedType = TypeVar("CheckedType", bound=Checked)


@dataclasses.dataclass(frozen=True)
class Source(Checked):
    """The source of a published figure.

    Attributes:
      paper: authors and title.
      year: the year of publication; None for a repository.
      place: the table, page or section with the figure.
    """

    paper: str
    place: str
    year: int | None = None

    def check(self):
        require("paper", bool(self.paper), "authors and title", self.paper)
        require("place", bool(self.place), "a table, page or section", self.place)

    @property
    def text(self) -> str:
        return ", ".join(filter(None, [self.paper, str(self.year or ""), self.place]))


@dataclasses.dataclass(frozen=True)
class Figure(Checked):
    """A published result.

    Attributes:
      model: the name of the model, such as "GRU".
      value: in the units of the row's metric.
      source: the name of a table of [sources].
      kind: "recurrent", or "other" for convolutions, attention, linear maps and hybrids of them.
      comparable: whether the budget is comparable to ours; a smaller budget always is.
      parameters: the number of parameters; None if it is unknown.
      budget: other information on the size, such as "256 units".
      protocol: how the measurement differs from ours; empty if no difference is known.
      like_for_like: whether the protocol permits a comparison; if not, the figure is quoted but not compared.
      reported: whether it is quoted from a secondary source.
    """

    model: str
    value: float
    source: str
    kind: Literal["recurrent", "other"]
    comparable: bool
    parameters: int | None = None
    budget: str = ""
    protocol: str = ""
    like_for_like: bool = True
    reported: bool = False

    def check(self):
        require("like_for_like", self.like_for_like or bool(self.protocol), "a protocol that says why not", False)

    @property
    def size(self) -> str:
        """The budget as text: "201K, 256 units"."""
        return ", ".join(filter(None, ["" if self.parameters is None else count(self.parameters), self.budget]))

    @property
    def gated(self) -> bool:
        """Whether the model is a GRU or an LSTM."""
        return self.kind == "recurrent" and any(name in self.model for name in ("GRU", "LSTM"))


@dataclasses.dataclass(frozen=True)
class Trivial(Checked):
    """A trivial baseline. Exactly one of `value`, `cell` and `study` is given.

    Attributes:
      name: such as "last value".
      how: how the score is obtained.
      value: the score, if it follows from a definition.
      cell: the "cell" of the records with the score, such as "naive".
      study: the name of the score of `experiments.studies.trivial_baselines`.
    """

    name: str
    how: str
    value: float | None = None
    cell: str = ""
    study: str = ""

    def check(self):
        given = [self.value is not None, bool(self.cell), bool(self.study)]
        require("value", sum(given) == 1, "exactly one of value, cell and study", self.value)


@dataclasses.dataclass(frozen=True)
class Target(Checked):
    """The project's target for a GRU.

    Attributes:
      value: in the units of the row's metric.
      strict: whether the result must be better than the value, not only equal.
      at_most: the maximum number of parameters; None for any number.
    """

    value: float
    strict: bool = False
    at_most: int | None = None


@dataclasses.dataclass(frozen=True)
class Row(Checked):
    """A metric of a task.

    Attributes:
      task, metric: the names in the records.
      title: the name of the task in tables.
      measure: the name of the metric in tables.
      digits: a format specification for values, such as ".2f".
      better: whether "less" or "more" is better.
      page: the page of docs/results/ with the details.
      ceiling: the best possible value if more is better.
      setting: the variant of the config that represents the task; runs of other variants are only listed.
      overrides: if given, only runs with these overrides belong to the row.
      without: runs with any of these overrides do not belong to the row.
      elsewhere: variants of the config whose runs belong to another row.
      note: a remark on the protocol; may be empty.
      headline: whether RESULTS.md shows the row.
      readme: whether README.md shows the row.
      trained_on_validation: whether the final runs also train on the validation split.
      series, horizon: of a forecast, for the plot of the errors over the horizon.
      figures: published figures.
      trivial: trivial baselines, the simplest first.
      target: the project's target; None if there is none.
    """

    task: str
    metric: str
    title: str
    measure: str
    digits: str
    better: Literal["less", "more"]
    page: str
    ceiling: float = 100.0
    setting: str = ""
    overrides: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    note: str = ""
    headline: bool = False
    readme: bool = False
    trained_on_validation: bool = False
    series: str = ""
    horizon: int | None = None
    figures: tuple[Figure, ...] = ()
    trivial: tuple[Trivial, ...] = ()
    target: Target | None = None

    def check(self):
        require("digits", bool(re.fullmatch(r"\.\d[fg]", self.digits)), "a format such as .2f or .3g", self.digits)
        together = bool(self.series) == (self.horizon is not None)
        require("horizon", together, "a number with a series, and none without", self.horizon)

    def beats(self, one: float, other: float) -> bool:
        """Returns whether a value is better than another."""
        return one < other if self.better == "less" else one > other

    def best(self, figures: Iterable[Figure]) -> Figure | None:
        """Returns the best like-for-like figure, the first one of a tie; None if there is none."""
        choose = min if self.better == "less" else max
        return choose((f for f in figures if f.like_for_like), key=lambda figure: figure.value, default=None)

    @property
    def best_comparable(self) -> Figure | None:
        """The best published recurrent figure at a comparable budget."""
        return self.best(figure for figure in self.figures if figure.kind == "recurrent" and figure.comparable)

    @property
    def best_larger(self) -> Figure | None:
        """The best published GRU or LSTM with a larger budget, if it beats the best with a comparable budget."""
        larger = self.best(figure for figure in self.figures if figure.gated and not figure.comparable)
        best = self.best_comparable
        return larger if larger and (best is None or self.beats(larger.value, best.value)) else None

    @property
    def best_of_any_kind(self) -> Figure | None:
        return self.best(self.figures)

    def error(self, value: float) -> float:
        """Returns the distance of a value from the best possible value."""
        return value if self.better == "less" else self.ceiling - value

    def reaches_target(self, value: float, parameters: int) -> bool:
        """Returns whether the result of a model with that many parameters reaches the target."""
        assert self.target is not None
        if self.target.at_most is not None and parameters > self.target.at_most:
            return False
        return self.beats(value, self.target.value) or (value == self.target.value and not self.target.strict)


@dataclasses.dataclass(frozen=True)
class Published:
    """The content of published.toml.

    Attributes:
      rows: by name, in the order of the file.
      sources: by the name that the figures cite.
    """

    rows: Mapping[str, Row]
    sources: Mapping[str, Source]


@dataclasses.dataclass(frozen=True)
class LayerTargets(Checked):
    """Targets for the time of a layer over PyTorch's in float32; with reset="before", over Haiku's or Keras's."""

    forward_float32: float | None = None
    forward_bfloat16: float | None = None
    gradient_float32: float | None = None
    gradient_bfloat16: float | None = None
    gradient_float32_best_jax_peer: float | None = None
    gradient_float32_all_cores: float | None = None
    gradient_bfloat16_all_cores: float | None = None
    before_forward: float | None = None
    before_gradient: float | None = None


@dataclasses.dataclass(frozen=True)
class SpeedTargets(Checked):
    """Targets for ratios in the benchmark; lower is better.

    Attributes:
      compile: the compile time of the gradient over the plain scan's.
      train_float32, train_bfloat16: the time of a training step over PyTorch's in float32.
      train_autocast: the time of a training step in bfloat16 over PyTorch's under autocast.
      long_slowest: the slowest time per step over the fastest, for all sequence lengths.
      long_recompute, long_checkpoint: temporary memory over the memory of "save".
      loop: the time of the training loop over a bare loop's.
      cells: the time of any cell over a plain scan of its step.
      options: the time of a layer with a mask, decay or zoneout over the same layer without.
      limit_float32: the fraction of the machine's matmul limit that a layer reaches in float32; higher is better.
      layer: targets of a layer by its sizes "B, T, I, H".
    """

    compile: float
    train_float32: float
    train_bfloat16: float
    train_autocast: float
    long_slowest: float
    long_recompute: float
    long_checkpoint: float
    loop: float
    cells: float
    options: float
    limit_float32: float
    layer: dict = dataclasses.field(default_factory=dict)


def read(folder: pathlib.Path) -> Published:
    """Reads published.toml, and the targets of its rows from targets.toml.

    Args:
      folder: the folder of the results.

    Raises:
      UserError: if a key is unknown or missing, or a value is invalid; the message names file, table and key.
    """
    file, text = _load(folder / "published.toml", {"sources", "rows"})
    sources = {name: _make(Source, table, f"{file}: [sources.{name}]") for name, table in text["sources"].items()}
    targets_file, targets = _load(folder / "targets.toml", {"rows", "speed"})
    rows = {}
    for name, table in text["rows"].items():
        where = f"{file}: [rows.{name}]"
        if "target" in table:
            raise UserError(f"{where} target: expected in targets.toml, got it here")
        target = targets["rows"].get(name)
        figures = _parts(Figure, table, "figures", where)
        for index, figure in enumerate(figures):
            if figure.source not in sources:
                known = ", ".join(sources)
                raise UserError(f"{where} figures[{index}].source: expected one of {known}, got {figure.source!r}")
        parts = {
            "figures": figures,
            "trivial": _parts(Trivial, table, "trivial", where),
            "target": None if target is None else _make(Target, target, f"{targets_file}: [rows.{name}]"),
        }
        rows[name] = _make(Row, {**table, **parts}, where)
    for name in targets["rows"]:
        if name not in rows:
            raise UserError(f"{targets_file}: [rows.{name}]: expected the name of a row of published.toml")
    return Published(rows, sources)


def read_speed_targets(folder: pathlib.Path) -> SpeedTargets:
    """Reads the table [speed] of targets.toml.

    Raises:
      UserError: see `read`.
    """
    file, text = _load(folder / "targets.toml", {"rows", "speed"})
    table = dict(text["speed"])
    layers = table.pop("layer", {})
    made = {sizes: _make(LayerTargets, values, f"{file}: [speed.layer.{sizes}]") for sizes, values in layers.items()}
    return _make(SpeedTargets, table | {"layer": made}, f"{file}: [speed]")


def count(parameters: int) -> str:
    """Formats a number of parameters: "70K", "2.7M"."""
    if parameters >= 1_000_000:
        return f"{parameters / 1e6:.3g}M"
    return f"{parameters / 1e3:.3g}K" if parameters >= 1000 else str(parameters)


def _load(path: pathlib.Path, tables: set[str]) -> tuple[str, dict[str, Any]]:
    """Returns the name and the tables of a file, and checks the names of the tables."""
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path.name}: expected TOML, got {error}") from None
    if set(text) != tables:
        raise UserError(f"{path.name}: expected the tables {', '.join(sorted(tables))}, got {', '.join(text)}")
    return path.name, text


def _parts(kind: type[CheckedType], table: Mapping[str, Any], key: str, where: str) -> tuple[CheckedType, ...]:
    """Builds checked dataclasses from the list under a key of a table."""
    value = table.get(key, [])
    if not isinstance(value, list):
        raise UserError(f"{where} {key}: expected a list of tables, got {value!r}")
    return tuple(_make(kind, part, f"{where} {key}[{index}]") for index, part in enumerate(value))


def _make(kind: type[CheckedType], values: Any, where: str) -> CheckedType:
    """Builds a checked dataclass from a TOML table; `where` begins every message."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected a table, got {values!r}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise UserError(f"{where} {field.name}: expected a value, got none")
    try:
        return build(kind, values, "")
    except UserError as error:
        raise UserError(f"{where} {str(error).removeprefix('.')}") from None
