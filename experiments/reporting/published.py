"""Published figures, trivial baselines and targets: experiments/results/published.toml and targets.toml, checked."""

import dataclasses
import pathlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from experiments.schema import Checked, UserError, build, require

CheckedType = TypeVar("CheckedType", bound=Checked)


@dataclasses.dataclass(frozen=True)
class Source(Checked):
    """Where a figure was published.

    Attributes:
      paper: authors and title.
      year: of publication; None for a repository.
      place: the table, page or section that holds the figure.
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
    """A published number.

    Attributes:
      model: what reached it: "GRU".
      value: in the units of the row's metric.
      source: the name of a table of [sources].
      kind: "recurrent", or "other" for convolutions, attention, linear maps and hybrids of them.
      comparable: whether the budget is comparable to ours. A smaller budget always is.
      parameters: how many; None if the source does not say.
      budget: what else is known about the size: "256 units".
      protocol: how the measurement differs from ours; empty if no difference is known.
      like_for_like: whether the protocol permits a comparison; if not, the figure is quoted and never compared.
      reported: whether it is quoted at second hand.
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
        """The budget in words: "201K, 256 units"."""
        return ", ".join(filter(None, ["" if self.parameters is None else count(self.parameters), self.budget]))

    @property
    def gated(self) -> bool:
        """Whether the model is a GRU or an LSTM."""
        return self.kind == "recurrent" and any(name in self.model for name in ("GRU", "LSTM"))


@dataclasses.dataclass(frozen=True)
class Trivial(Checked):
    """A score that needs no training, or next to none. Exactly one of `value`, `cell` and `study` is given.

    Attributes:
      name: "last value".
      how: how the value is obtained.
      value: the score, if it follows from a definition.
      cell: the "cell" of our own records that hold it: "naive".
      study: its name in the recorded scores of `experiments.studies.trivial_baselines`.
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
    """What the project set out to reach with a GRU.

    Attributes:
      value: in the units of the row's metric.
      strict: whether it must be passed, not only reached.
      at_most: the most parameters that count; None for any number.
    """

    value: float
    strict: bool = False
    at_most: int | None = None


@dataclasses.dataclass(frozen=True)
class Row(Checked):
    """One metric of one task.

    Attributes:
      task, metric: as the records name them.
      title: the task, for readers.
      measure: the metric, for readers.
      digits: a format specification for its values: ".2f".
      better: whether "less" or "more" of it is better.
      page: the page of docs/results/ that has the details.
      ceiling: the best possible value where more is better.
      setting: the variant of the config that counts, where several have this task; the others are listed only.
      overrides: those of the runs that count, where another row of the task and metric has the rest.
      without: overrides whose runs belong to that other row.
      note: on the protocol; may be empty.
      headline: whether RESULTS.md has the row, or only the page.
      readme: whether README.md has it too.
      trained_on_validation: whether the final runs also train on the validation split.
      series, horizon: of forecasts, for their curves.
      figures: the published ones.
      trivial: baselines, the simplest first.
      target: the project's own; None if there is none.
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
        """Whether a value is better than another."""
        return one < other if self.better == "less" else one > other

    def best(self, figures: Iterable[Figure]) -> Figure | None:
        """Returns the strongest of some figures that are like for like; None if there is none."""
        return self.strongest([figure for figure in figures if figure.like_for_like])

    def strongest(self, figures: Sequence[Figure]) -> Figure | None:
        """Returns the best figure, of equals the first."""
        choose = min if self.better == "less" else max
        return choose(figures, key=lambda figure: figure.value) if figures else None

    @property
    def best_comparable(self) -> Figure | None:
        """The best published recurrent figure at a comparable budget."""
        return self.best(figure for figure in self.figures if figure.kind == "recurrent" and figure.comparable)

    @property
    def best_larger(self) -> Figure | None:
        """The best published GRU or LSTM of a larger budget, if it beats the best at a comparable one."""
        larger = self.best(figure for figure in self.figures if figure.gated and not figure.comparable)
        best = self.best_comparable
        return larger if larger and (best is None or self.beats(larger.value, best.value)) else None

    @property
    def best_of_any_kind(self) -> Figure | None:
        return self.best(self.figures)

    def error(self, value: float) -> float:
        """How far a value is from the best possible one."""
        return value if self.better == "less" else self.ceiling - value

    def reaches_target(self, value: float, parameters: int) -> bool:
        """Whether a result of a model of that size reaches the target."""
        assert self.target is not None
        if self.target.at_most is not None and parameters > self.target.at_most:
            return False
        return self.beats(value, self.target.value) or (value == self.target.value and not self.target.strict)


@dataclasses.dataclass(frozen=True)
class Published:
    """Everything the project is measured against.

    Attributes:
      rows: by name, in the order of the file.
      sources: by the name that figures cite.
    """

    rows: Mapping[str, Row]
    sources: Mapping[str, Source]


@dataclasses.dataclass(frozen=True)
class LayerTargets(Checked):
    """Ratios of a layer to PyTorch's float32 `nn.GRU`; with reset="before", to the better of Haiku and Keras."""

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
    """Ratios that the benchmark's suites should stay below.

    Attributes:
      best_peer: a layer to the best peer at the same precision.
      compile: compiling the gradient to compiling the plain scan's.
      train_float32, train_bfloat16: a training step to PyTorch's in float32.
      train_autocast: in bfloat16 to PyTorch's under autocast.
      long_slowest: the slowest step to the fastest over sequence lengths.
      long_recompute, long_checkpoint: temporary memory to that of "save".
      loop: the training loop to a bare loop around its step.
      layer: by the sizes "B, T, I, H".
    """

    best_peer: float
    compile: float
    train_float32: float
    train_bfloat16: float
    train_autocast: float
    long_slowest: float
    long_recompute: float
    long_checkpoint: float
    loop: float
    layer: dict = dataclasses.field(default_factory=dict)


def read(folder: pathlib.Path) -> Published:
    """Reads published.toml, and the targets of its rows from targets.toml.

    Args:
      folder: of the results.

    Raises:
      UserError: an unknown key, a missing one, a value that is not accepted; one line with file, table and key.
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
      UserError: as `read`.
    """
    file, text = _load(folder / "targets.toml", {"rows", "speed"})
    table = dict(text["speed"])
    layers = table.pop("layer", {})
    made = {sizes: _make(LayerTargets, values, f"{file}: [speed.layer.{sizes}]") for sizes, values in layers.items()}
    return _make(SpeedTargets, table | {"layer": made}, f"{file}: [speed]")


def count(parameters: int) -> str:
    """Writes a number of parameters: "70K", "2.7M"."""
    if parameters >= 1_000_000:
        return f"{parameters / 1e6:.3g}M"
    return f"{parameters / 1e3:.3g}K" if parameters >= 1000 else str(parameters)


def _load(path: pathlib.Path, tables: set[str]) -> tuple[str, dict[str, Any]]:
    """Returns a file's name and its tables, each of which there must be."""
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path.name}: expected TOML, got {error}") from None
    if set(text) != tables:
        raise UserError(f"{path.name}: expected the tables {', '.join(sorted(tables))}, got {', '.join(text)}")
    return path.name, text


def _parts(kind: type[CheckedType], table: Mapping[str, Any], key: str, where: str) -> tuple[CheckedType, ...]:
    """Builds the list of tables under a key of a table."""
    value = table.get(key, [])
    if not isinstance(value, list):
        raise UserError(f"{where} {key}: expected a list of tables, got {value!r}")
    return tuple(_make(kind, part, f"{where} {key}[{index}]") for index, part in enumerate(value))


def _make(kind: type[CheckedType], values: Any, where: str) -> CheckedType:
    """Builds a checked dataclass from a TOML table; every message begins with where the table stands."""
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
