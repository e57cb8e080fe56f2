"""Is this input in the store already? What of a plan is new, has grown, takes another's place, or is refused."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from macco.pipeline.errors import UserError
from macco.pipeline.shards import fit
from macco.pipeline.store import Store
from macco.pipeline.urls import folder, stamps, stem
from macco.preprocess.config import READING
from macco.preprocess.extraction.repeats import firsts, refuse_overlaps
from macco.preprocess.extraction.shard import Job
from macco.preprocess.sources import Shard
from macco.preprocess.sources.content import STAND_INS, State, state


@dataclass
class Replacement:
    """Shards that come into the store together, for those of the same names and for those that are `gone`."""

    shards: list[str]
    gone: list[str]
    left: set[str]  # those that are not written yet


@dataclass
class Work:
    """What is to be done of a plan."""

    todo: list[Job] = field(default_factory=list)
    skipped: int = 0
    replacements: list[Replacement] = field(default_factory=list)


@dataclass(frozen=True)
class _Held:
    """A shard that the store holds."""

    shard: Shard
    input: Mapping[str, Any]


def work_of(store: Store, jobs: Sequence[Job], replace: bool = False) -> Work:
    """Find what of a plan is to be done. What is there is skipped, what has grown is done as far as it is new.

    Raises UserError for what would enter twice, and for a file that was changed or is to be read otherwise than
    before, unless its shards are to `replace` the old ones. The store is only read.
    """
    return _Comparison(store, replace).work(jobs)


class _Comparison:
    def __init__(self, store: Store, replace: bool) -> None:
        self.store, self.replace = store, replace
        self.held: dict[str, dict[str, _Held]] = defaultdict(dict)  # by URL and name
        self.names: dict[str, str] = {}  # of every shard that the store knows, with its URL
        self.given_up: dict[str, Shard] = {}  # by URL
        for name, record in store.records().items():
            shard = Shard.of(record)
            self.names[name] = record["input"]["url"]
            if shard is not None:
                self.held[shard.url][name] = _Held(shard, record["input"])
        for name, record in store.records("failed").items():
            if name not in self.names and (shard := Shard.of(record)) is not None:
                self.names[name] = shard.url
                self.given_up[shard.url] = shard
        self.stamps: dict[str, dict[str, Any] | None] = {}
        self.done = Work()

    def work(self, jobs: Sequence[Job]) -> Work:
        files: dict[str, list[Shard]] = defaultdict(list)
        for job in jobs:
            if job.redo is None:
                files[job.shard.url].append(job.shard)
        for job in jobs:
            fit(job.shard.name)
        try:
            self.stamps = stamps(job.shard.url for job in jobs if job.shard.url in self.held)
            for job in jobs:
                if job.redo is not None:
                    self._check_kept(job.shard, job.redo)
                    self._replace([job.shard], (), job.redo)
            for url in self.held.keys() & files.keys():
                files[url] = self._named(files[url], next(iter(self.held[url].values())).shard.file)
            new = {url: shards for url, shards in files.items() if url not in self.held}
            places = self._repeats(new)
            for url, shards in files.items():
                if url in self.held:
                    self._extend(url, shards)
                elif url in places:
                    old = self.held[places[url]]
                    shards = self._named(shards, next(iter(old.values())).shard.file)
                    self._replace(shards, old)
                else:
                    self.done.todo += [Job(shard) for shard in self._free(url, shards)]
            self._refuse_overlaps()
        except OSError as error:
            raise UserError(f"cannot compare the shards with those of {self.store.url}: {error}") from error
        return self.done

    # Files that the store knows by their URL

    def _extend(self, url: str, shards: list[Shard]) -> None:
        held = self.held[url]
        states = dict[str, State]()
        problem = self._read_otherwise(shards[0], held)
        if problem is None:
            states = {name: self._state(one) for name, one in held.items()}
            problem = self._changed(shards, held, states)
        if problem is not None:
            if not self.replace:
                raise UserError(
                    f"{problem}; --replace does its shards in {self.store.url} again, or use another --out"
                )
            self._replace(shards, held)
            return
        for shard in shards:
            one = held.get(shard.name)
            if one is None:
                self.done.todo.append(Job(shard))
            elif (one.shard.stop, states[shard.name]) == (shard.stop, State.SAME):
                self.done.skipped += 1
            else:
                self._replace([shard], ())

    def _read_otherwise(self, shard: Shard, held: Mapping[str, _Held]) -> str | None:
        for one in held.values():
            for name, option in READING.items():
                was, now = getattr(one.shard, name), getattr(shard, name)
                if was != now:
                    return f"{shard.url} was read with {option} {_shown(was)}, not {_shown(now)}"
        return None

    def _changed(
        self, shards: list[Shard], held: Mapping[str, _Held], states: Mapping[str, State]
    ) -> str | None:
        """Why a file's shards cannot simply go on, though it is read as before."""
        url = shards[0].url
        last = max(held.values(), key=lambda one: one.shard.start).shard
        if other := [name for name, found in states.items() if found == State.OTHER]:
            return f"{url} was changed since shard {other[0]} was extracted"
        for shard in shards:
            one = held.get(shard.name)
            if one is None:
                inside = next((o.shard for o in held.values() if _meet(o.shard, shard)), None)
                if inside is None and (taken := self.names.get(shard.name, url)) != url:
                    raise UserError(
                        f"{url} and {taken} would be the same shard {shard.name!r}: extract them into two stores"
                    )
            else:
                grown = shard.start == one.shard.start and one.shard == last and _reaches(shard, one.shard)
                same = _range(shard) == _range(one.shard) and states[shard.name] == State.SAME
                inside = None if same or grown else one.shard
            if inside is not None:
                rows = max((one.shard.stop or 0) - one.shard.start for one in held.values())
                rows = inside.rows_per_shard or rows
                return f"{url} was read with --rows-per-shard {rows}, not {shard.rows_per_shard}"
        return None

    def _state(self, one: _Held) -> State:
        was, now = one.input.get("fingerprint") or {}, self.stamps[one.shard.url]
        if now is None:
            raise UserError(
                f"{one.shard.url} is no longer there, and shards of {self.store.url} were made from it"
            )
        if _stamped(was, now):
            return State.SAME
        if "content" in one.input:
            return state(one.shard, one.input["content"])
        return self._rows_state(one.shard)

    def _rows_state(self, shard: Shard, but: Collection[int] = ()) -> State:
        """Compare a file with the rows made of it: all that a former version's record allows."""
        table = self.store.table("samples", shard.name).sort_by("row")
        rows = zip(*(table[name].to_pylist() for name in ("key", "caption", "member", "offset")), strict=True)
        held = [
            row for row, kind in zip(rows, table["status"].to_pylist(), strict=True) if kind not in STAND_INS
        ]
        images = (image for image in shard.glance() if image.status not in STAND_INS)
        now = ((one.key, row[0], one.member, one.offset) for one in images for row in one.rows())
        for number, was in enumerate(held):
            if next(now, None) != was and number not in but:
                return State.OTHER
        return State.SAME if next(now, None) is None else State.LONGER

    def _check_kept(self, shard: Shard, redo: Collection[int]) -> None:
        """Some rows are to be done again, the others stay: they must be what the file still says."""
        one, now = self.held[shard.url][shard.name], self.stamps[shard.url]
        if now is None or _stamped(one.input.get("fingerprint") or {}, now):
            return
        if self._rows_state(shard, redo) != State.SAME:
            raise UserError(
                f"{shard.url} was changed since shard {shard.name} was extracted: "
                "do it again with macco-prep extract --replace"
            )

    def _replace(
        self, shards: Sequence[Shard], old: Iterable[str], redo: frozenset[int] | None = None
    ) -> None:
        names = [shard.name for shard in shards]
        self.done.replacements.append(Replacement(names, sorted({*old} - {*names}), set(names)))
        self.done.todo += [Job(shard, redo, stage=True) for shard in shards]

    # Files that the store does not know

    def _repeats(self, new: Mapping[str, list[Shard]]) -> dict[str, str]:
        """The new files that take the places of files in the store, whose first sample they begin with."""
        known = {
            first: one.shard.url
            for held in self.held.values()
            for one in held.values()
            if (first := one.input.get("content", {}).get("first"))
        }
        places = dict[str, str]()
        for url, first in firsts([shards[0] for shards in new.values()], alone=not known).items():
            if first in known and not self.replace:
                raise UserError(
                    f"{url} begins with the same sample as {known[first]}, which is in {self.store.url}: "
                    "leave it out or use another --out; --replace puts it in that file's place"
                )
            if first in known:
                places[url] = known[first]
        return places

    def _free(self, url: str, shards: list[Shard]) -> list[Shard]:
        """The shards by names that no other file in the store has: a store's files are named by shard alone."""
        if (was := self.given_up.get(url)) is not None and all(self.names.get(s.name) != url for s in shards):
            shards = self._named(shards, was.file)
        name, above = stem(url), folder(url)
        while any(self.names.get(shard.name, url) != url for shard in shards):
            part = above.rpartition("/")[2]
            if not part:
                raise UserError(
                    f"{url} and {self.names[shards[0].name]} would be the same shard {shards[0].name!r}: "
                    "extract them into two stores"
                )
            name, above = f"{part}-{name}", folder(above)
            shards = self._named(shards, name)
        self.names |= {shard.name: url for shard in shards}
        return shards

    def _named(self, shards: list[Shard], file: str) -> list[Shard]:
        return shards if shards[0].file == file else [shard.named(file) for shard in shards]

    def _refuse_overlaps(self) -> None:
        gone = {name for one in self.done.replacements for name in (*one.shards, *one.gone)}
        held = [
            (name, url)
            for url, shards in self.held.items()
            for name, one in shards.items()
            if one.shard.format != "webdataset" and name not in gone
        ]
        refuse_overlaps(self.store, [job.shard for job in self.done.todo if job.redo is None], held)


def _stamped(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether a file is as it was by its stamp: all that was recorded, and more than the size, is the same."""
    known = {name for name in ("size", "mtime", "etag", "ctime") if was.get(name) is not None}
    return known != {"size"} and bool(known) and all(was[name] == now.get(name) for name in known)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(repr, value)) or "of the usual name"
    return "left out" if value is None else repr(value)


def _range(shard: Shard) -> tuple[int, int | None]:
    return shard.start, shard.stop


def _reaches(shard: Shard, other: Shard) -> bool:
    return shard.stop is None or (other.stop is not None and shard.stop >= other.stop)


def _meet(one: Shard, other: Shard) -> bool:
    ends = [float("inf") if shard.stop is None else shard.stop for shard in (one, other)]
    return max(one.start, other.start) < min(ends)
