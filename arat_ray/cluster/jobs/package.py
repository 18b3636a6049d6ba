"""The package of a job, its working directory on the cluster: the experiment file, and no secret that was not named."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from arat_ray.cluster.jobs import keys
from arat_ray.text import command, plain

LEFT_OUT = (
    ".*",  # .git, .venv and caches, and also .ssh, .aws and tokens
    "__pycache__",
    "*.egg-info",
    "venv",
    "node_modules",
    *("*.pt", "*.pth", "*.ckpt", "*.pt2", "*.safetensors", "*.onnx", "*.parquet", "*.npz", "*.npy"),
    *(
        "*.whl",
        "*.zip",
        "*.tar*",
        "*.t[gbx]z",
        "*.gz",
        "*.bz2",
        "*.xz",
        "*.zst",
        "*.7z",
        "*.rar",
    ),  # no secret is seen in these
)
"""Names that stay behind wherever they stand, of files and of folders."""
LEFT_OUT_AT_THE_TOP = ("results", "runs", "data", "datasets", "checkpoints", "wandb")
"""Names that stay behind in the folder itself; deeper down they may be those of Python packages."""
LIMIT_MIB = 50
FILES_AT_MOST = 10_000
NAMED_AT_MOST = 10
"""How many files one message names."""


class PackagedFile(NamedTuple):
    """A file as it goes: what was looked at is what is sent, whatever happens to it in between."""

    content: bytes
    mode: int


class Package(NamedTuple):
    """Files by their name in the package, and a line for each thing that stays behind for a reason of its own."""

    files: dict[str, PackagedFile]
    stays: list[str]
    experiment: str
    """The name of the experiment file among the files."""

    def write(self, into: Path) -> None:
        """Write the files below a folder."""
        for name, sent in self.files.items():
            copy = into / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(sent.content)
            copy.chmod(sent.mode)

    def listing(self) -> Iterator[str]:
        """What goes, file by file with its size, and what stays behind."""
        sizes = {name: len(sent.content) for name, sent in self.files.items()}
        files = "goes 1 file" if len(sizes) == 1 else f"go {len(sizes)} files"
        yield f"to the cluster {files}, {_size(sum(sizes.values()))}:"
        yield from (f"  {plain(name)}  {_size(size)}" for name, size in sizes.items())
        yield from (f"stays behind: {line}" for line in self.stays)


def pack(
    file: Path, *, folder: Path | None = None, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Package:
    """The experiment file, all of `folder` where one is given but for what stays behind, and what `include` names.

    `exclude` are patterns of names, or of paths in the folder. Raises ValueError for what looks like a secret and is
    not named by `include`, for a link out of the folder that is, and for too much, with what is largest.
    """
    around = (folder or file.absolute().parent).resolve()
    experiment = _name_of(file, around)
    named = [_named(word, around) for word in include]
    selection = Selection(around, exclude, {})
    chosen = {experiment: around / experiment}
    for start in (around if folder else None, *(around / name for name in named)):
        if start is not None:
            chosen |= selection.below(start) if start.is_dir() else {start.relative_to(around).as_posix(): start}
    _refuse_too_much(around, chosen)
    files = {name: _read(path) for name, path in sorted(chosen.items())}
    if suspects := dict(_suspects(files, around, experiment, named)):
        raise ValueError(_suspicious(suspects))
    return Package(files, [*selection.lines(besides=files), *selection.idle()], experiment)


class Selection(NamedTuple):
    """What goes of a folder, and why the rest `stays`: name -> reason."""

    around: Path
    exclude: Sequence[str]
    stays: dict[str, str]

    def below(self, start: Path) -> dict[str, Path]:
        """The files that go from a folder inside, by their names in the package. Raises ValueError for too many."""
        found: dict[str, Path] = {}
        for where, folders, files in os.walk(start):
            for name in sorted(folders + files):
                path = Path(where) / name
                short = path.relative_to(self.around).as_posix()
                if (reason := self.reason(path)) is not None:
                    self.stays[short] = reason
                    folders[:] = [each for each in folders if each != name]
                elif name not in folders:
                    found[short] = path
            if len(found) > FILES_AT_MOST:
                raise ValueError(_too_much(self.around, f"more than {FILES_AT_MOST} files", found))
        return found

    def reason(self, path: Path) -> str | None:
        """Why a file or a folder stays behind, None where it goes."""
        if any(_fits(path.relative_to(self.around).as_posix(), pattern) for pattern in self.exclude):
            return "as --exclude says"
        usual = (*LEFT_OUT, *LEFT_OUT_AT_THE_TOP) if path.parent == self.around else LEFT_OUT
        if any(fnmatchcase(path.name, pattern) for pattern in usual):
            return "as a rule"
        if not path.name.isprintable():
            return "for its name, which is not printable"
        if path.is_symlink():
            return self._of_link(path)
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            return "neither a file nor a folder"
        return None if os.access(path, os.R_OK) else "not readable"

    def _of_link(self, path: Path) -> str | None:
        """A link goes as a copy of the file that it points to, where that file goes too."""
        try:
            target = Path(os.path.realpath(path, strict=True))
        except OSError:
            return "a link to nothing"
        if not target.is_relative_to(self.around):
            return "a link out of the folder"
        if not target.is_file():
            return "a link to a folder"
        kin = [target, *target.parents]
        inside = kin[: kin.index(self.around)]
        return "a link to what stays behind" if any(self.reason(each) for each in inside) else None

    def lines(self, *, besides: Iterable[str]) -> Iterator[str]:
        """What stays, a line for each reason."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.stays.items():
            if name not in besides:
                reasons.setdefault(reason, []).append(name)
        yield from (f"{_some(names)}: {reason}" for reason, names in reasons.items())

    def idle(self) -> Iterator[str]:
        """Patterns of --exclude that keep nothing back."""
        for pattern in self.exclude:
            if not any(_fits(name, pattern) for name in self.stays):
                yield f"nothing by --exclude {plain(pattern)}, which fits no name"


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(PurePosixPath(name).name, pattern) or fnmatchcase(name, os.path.normpath(pattern))


def _name_of(file: Path, around: Path) -> str:
    """The experiment file's name below the folder; where it is a link, of the link or of what it points to."""
    for place in (file.absolute().parent.resolve() / file.name, file.resolve()):
        if place.is_relative_to(around):
            return place.relative_to(around).as_posix()
    raise ValueError(f"--folder {around} does not hold {file}; choose one that does")


def _named(word: str, around: Path) -> str:
    """What `--include` names, as a name below the folder: seen from the current folder, or as the list shows it."""
    for place in (Path.cwd() / word, around / word):
        real = place.parent.resolve() / place.name
        if real.is_relative_to(around) and real.exists() and real.name not in ("", ".."):
            if not real.resolve().is_relative_to(around):
                raise ValueError(
                    f"--include {word} is a link to {real.resolve()}, out of {around}; copy the file there"
                )
            return real.relative_to(around).as_posix()
    raise ValueError(
        f"--include {word}: there is no such file or folder in {around}; another one is chosen by --folder"
    )


def _read(path: Path) -> PackagedFile:
    try:
        descriptor = os.open(os.path.realpath(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError(f"{path}: is no file that can be sent")
            return PackagedFile(file.read(), stat.S_IMODE(mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def _suspects(
    files: dict[str, PackagedFile], around: Path, experiment: str, named: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Files that look secret and were not named, each with why; of a link, the name of its target counts as well."""
    for name, sent in files.items():
        if name in named:
            continue
        names = (name, os.path.relpath((around / name).resolve(), around)) if name != experiment else ()
        called = (keys.named_like_one(_below_what_is_named(each, named)) for each in names)
        why = next(filter(None, called), None) or keys.holds_one(sent.content)
        if why is not None:
            yield name, why


def _below_what_is_named(name: str, named: Sequence[str]) -> PurePosixPath:
    """A name without the folders that were named themselves."""
    path = PurePosixPath(name)
    return next((path.relative_to(each) for each in named if path.is_relative_to(each)), path)


def _suspicious(suspects: dict[str, str]) -> str:
    shown = [f"{plain(name)} ({plain(why)})" for name, why in list(suspects.items())[:NAMED_AT_MOST]]
    if len(suspects) > NAMED_AT_MOST:
        shown.append(f"{len(suspects) - NAMED_AT_MOST} others")
    first = next(iter(suspects))
    return (
        f"nothing was sent, for this looks secret: {', '.join(shown)}; leave out what the job does not need with "
        f"{command('--exclude', first)}, and name what it needs with {command('--include', first)}"
    )


def _refuse_too_much(around: Path, files: dict[str, Path]) -> None:
    """Raises ValueError for more than the limit, before any of it is read."""
    total = sum(path.stat().st_size for path in files.values())
    if total > LIMIT_MIB << 20:
        raise ValueError(_too_much(around, f"{_mib(total)}, more than {LIMIT_MIB} MiB", files))


def _too_much(folder: Path, much: str, files: dict[str, Path]) -> str:
    sizes: Counter[str] = Counter()
    for name, path in files.items():
        sizes[PurePosixPath(name).parts[0]] += path.stat().st_size
    largest = ", ".join(f"{plain(name)} ({_mib(size)})" for name, size in sizes.most_common(3))
    return (
        f"{folder} would go to the cluster and holds {much}; largest: {largest}; leave them out with --exclude NAME, "
        "or send the experiment file alone, without --folder"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(plain(name) for name in names[:NAMED_AT_MOST])
    return shown if len(names) <= NAMED_AT_MOST else f"{shown} and {len(names) - NAMED_AT_MOST} more"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _size(size: int) -> str:
    return f"{size} bytes" if size < 1024 else f"{size / 1024:.1f} KiB" if size < 2**20 else _mib(size)
