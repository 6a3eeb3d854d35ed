"""The command line: composes the config, then hands it to `recipes.<name>.main(config, run)`.

What a user got wrong ends with exit code 2 and one line on stderr; bugs keep their traceback.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from joyvl_train.children import Children, end_with_parent
from joyvl_train.config import Config, Key, UserError, check, keys, nearest
from joyvl_train.timeline import TimelineError

USAGE = "python -m joyvl_train recipe=NAME [group=option ...] [key=value ...]"
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; the form is: {USAGE}")


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str
    overrides: list[str]


def main(arguments: Sequence[str], root: Path) -> int:
    """Runs the command line of the checkout at `root`; returns the exit code."""
    end_with_parent()
    parser = _Parser(prog="joyvl_train", usage=USAGE, add_help=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-c", "--cfg", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("overrides", nargs="*")
    try:
        options = parser.parse_intermixed_args(arguments)
        if options.help:
            print("\n".join(_help(root)))
            return 0
        if not any(text.startswith("recipe=") for text in options.overrides):
            print("\n".join(_usage(root)))
            raise UserError("no recipe is named; give one, such as recipe=sft")
        if options.multirun:
            return _sweep(root, options.overrides)
        config = compose(root, options.overrides)
        if options.cfg:
            from joyvl_train.run import to_yaml

            print(to_yaml(config), end="")
            return 0
        if config.engine.processes > 1 and "RANK" not in os.environ:
            return _launch(config, options.overrides)
        _check_ranks(config)
        return _run(config, root, options.overrides)
    except (UserError, TimelineError) as error:
        rank = os.environ.get("RANK", "0")
        print(f"error: {'' if rank == '0' else f'rank {rank}: '}{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED


def recipes(root: Path) -> dict[str, str]:
    """The recipes of the checkout, each with the first line of its docstring."""
    found = {}
    for path in sorted((root / "recipes").glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = text.partition("\n")[0]
    return found


def compose(root: Path, overrides: Sequence[str]) -> Config:
    """The checked config of one run, from `root/configs` and the command line's overrides.

    `data.path=FILE` alone means `data=path`. Raises `UserError`.
    """
    import yaml
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    parsed = [_parse(text) for text in overrides]
    for override in parsed:
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: several values make a sweep; add -m")
        _check_override(root, override)
    texts = [_opened(override) for override in parsed]
    named = {override.key_or_group: override.value() for override in parsed}
    if named.get("data.path") and "data" not in named:
        texts.append("data=path")
    ConfigStore.instance().store(name="schema", node=Config)
    # ${choose:flag,a,b} in configs/: a where the flag is set, else b.
    OmegaConf.register_new_resolver("choose", lambda on, a, b: a if on else b, replace=True)
    # ${equal:one,other}
    OmegaConf.register_new_resolver("equal", lambda one, other: one == other, replace=True)
    try:
        with initialize_config_dir(str((root / "configs").resolve()), version_base="1.3"):
            config = OmegaConf.to_object(hydra_compose("run", texts))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise _composition_error(error, str(named.get("recipe"))) from error
    assert isinstance(config, Config)
    check(config)
    return config


def expand(overrides: Sequence[str]) -> list[Job]:
    """The jobs of a sweep: every combination of the values given, in the order given."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.errors import HydraException

    parsed = [_parse(text) for text in overrides]
    swept = {item.get_key_element() for item in parsed if item.is_sweep_override()}
    try:
        [jobs] = BasicSweeper.split_arguments(parsed, None)
    except HydraException as error:
        raise UserError(f"{shlex.join(overrides)}: {error}") from error
    named = []
    for number, job in enumerate(jobs):
        parts = [text for text in job if text.partition("=")[0] in swept]
        words = "_".join(re.sub(r"[^\w.+-]+", "-", part.lstrip("+~")) for part in parts)
        named.append(Job(f"{number}_{words}"[:150].rstrip("_"), job))
    return named


def _run(config: Config, root: Path, overrides: Sequence[str]) -> int:
    from joyvl_train.run import Run

    if config.command != "run":
        recipe = _recipe(config)
        if config.command in getattr(recipe, "LOOKS", ()):  # into a run, and writes nothing
            recipe.look(config, root)
            return 0
    with Run(config, root) as run:
        if run.finished and not _goes_on(config):
            if run.is_main:
                run.clear()
            run.say(f"{run.dir} is finished already; give another run.dir to run again")
            return 0
        run.say(f"run.dir={run.dir}")
        try:
            _recipe(config).main(config, run)
        except KeyboardInterrupt:
            again = shlex.join(_command(overrides, run.dir)[3:])
            print(f"stopped; to go on: python -m joyvl_train {again}", file=sys.stderr)
            return INTERRUPTED
        if run.report.exists():
            run.say(f"report: {run.report}")
    return 0


def _goes_on(config: Config) -> bool:
    """Whether a finished run of this recipe looks for what has changed since."""
    return config.command == "run" and bool(getattr(_recipe(config), "GOES_ON", False))


def _recipe(config: Config) -> Any:
    return importlib.import_module(f"recipes.{config.recipe}")


def _check_ranks(config: Config) -> None:
    """Several ranks that another launcher started must be wanted: else each trains by itself."""
    ranks = os.environ.get("WORLD_SIZE", "1")
    if ranks != "1" and config.engine.kind == "single":
        raise UserError(
            f"engine=single: is one process, but {ranks} were started (WORLD_SIZE={ranks}); "
            "start one, or use engine=ddp, zero2 or zero3"
        )


def _sweep(root: Path, overrides: Sequence[str]) -> int:
    """Runs the jobs one after the other, each in a process of its own; goes on past a failure."""
    from joyvl_train.run import fresh_dir

    jobs = expand(overrides)
    configs = [compose(root, job.overrides) for job in jobs]
    dirs = [Path(config.run.dir) for config in configs]
    if len(set(dirs)) < len(dirs) or not configs[0].run.dir:
        given = configs[0].run.dir
        parent = Path(given) if given else fresh_dir(Path(configs[0].run.root) / configs[0].recipe)
        dirs = [parent / job.name for job in jobs]
    failed: list[tuple[Path, int]] = []
    for number, (job, folder) in enumerate(zip(jobs, dirs, strict=True), 1):
        print(f"job {number} of {len(jobs)}: {folder}", flush=True)
        with Children() as children:
            code = _exit_code(children.start(_command(job.overrides, folder)).wait())
        if code == INTERRUPTED:
            return code
        if code:
            failed.append((folder, code))
    if failed:
        names = ", ".join(str(folder) for folder, _ in failed)
        print(f"error: {len(failed)} of {len(jobs)} jobs failed: {names}", file=sys.stderr)
        return failed[0][1]
    return 0


def _launch(config: Config, overrides: Sequence[str]) -> int:
    """Starts `engine.processes` ranks of this command and waits; the first failure ends all."""
    import socket
    import time

    from torch.cuda import device_count

    from joyvl_train.run import cores, fresh_dir

    count = config.engine.processes
    if 0 < device_count() < count:
        raise UserError(
            f"engine.processes={count}: this machine has {device_count()} GPUs, and each process "
            "needs one; lower it"
        )
    folder = config.run.dir or fresh_dir(Path(config.run.root) / config.recipe)
    command = _command(overrides, Path(folder))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {"OMP_NUM_THREADS": str(max(1, cores() // count)), **os.environ, **shared}
    with Children() as children:
        ranks = [
            children.start(command, {**environment, "RANK": str(n), "LOCAL_RANK": str(n)})
            for n in range(count)
        ]
        codes: list[int | None] = [None]
        while None in codes and not any(codes):
            time.sleep(0.2)
            codes = [rank.poll() for rank in ranks]
    return _exit_code(next((code for code in codes if code), 0))


def _exit_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _command(overrides: Sequence[str], folder: Path) -> list[str]:
    """This command line again, in `folder`."""
    rest = [text for text in overrides if not text.lstrip("+").startswith("run.dir=")]
    return [sys.executable, "-m", "joyvl_train", *rest, _dir_override(folder)]


def _dir_override(folder: Path) -> str:
    text = str(folder)
    if re.fullmatch(r"[\w./+-]+", text):
        return f"run.dir={text}"
    escaped = text.replace("'", "\\'")
    return f"run.dir='{escaped}'"


def _parse(text: str) -> Any:
    """One parsed override. Hydra's own types are not typed for strict checking."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(text)
        if override.key_or_group:
            return override
        raise HydraException("no key")
    except HydraException:
        raise UserError(
            f"{text}: can't be read as key=value; quote a value that has special characters, "
            "\"key='a, b'\""
        ) from None


def _check_override(root: Path, override: Any) -> None:
    """Finds what a user most often gets wrong, where the nearest right word is known."""
    text, name = override.input_line, override.key_or_group
    group = root / "configs" / name
    if group.is_dir():
        options = sorted(path.stem for path in group.glob("*.yaml"))
        value = override.value()
        if not override.is_delete() and value not in options:
            if name == "recipe":
                print("\n".join(_usage(root)))
            raise UserError(
                f"{text}: there is no such {name}; it is one of {', '.join(options)}."
                f"{nearest(str(value), options)}"
            )
        return
    known_keys = {key.name: key for key in keys()}
    if name in known_keys or _open_key(name, known_keys.values()):
        return
    groups = [path.name for path in (root / "configs").iterdir() if path.is_dir()]
    inner = sorted(key for key in known_keys if key.startswith(name + "."))
    if inner:
        raise UserError(f"{text}: {name} holds keys; set one of them, such as {inner[0]}=...")
    hint = nearest(name, [*known_keys, *groups]) or " `--help` lists all keys."
    raise UserError(f"{text}: there is no key {name}.{hint}")


def _open_key(name: str, known: Iterable[Key]) -> Key | None:
    """The free mapping that is of this name, or holds it."""
    return next((key for key in known if key.open and f"{name}.".startswith(key.name + ".")), None)


def _opened(override: Any) -> str:
    """The override's text; a key inside a free mapping needs Hydra's word for adding one."""
    text = str(override.input_line)
    if override.is_delete() or text.startswith("+"):
        return text
    return "++" + text if _open_key(override.key_or_group, keys()) else text


def _composition_error(error: Exception, recipe: str) -> UserError:
    cause = error.__cause__ or error
    words = " ".join(str(error).split())
    name = str(getattr(cause, "full_key", None) or "")
    key = next((key for key in keys() if key.name == name), None) or _open_key(name, keys())
    merged = re.search(r"Error merging override (.*)", str(error))
    if key is not None and merged:
        return UserError(f"{merged[1].strip().lstrip('+')}: takes {key.takes} ({key.meaning})")
    unread = re.search(r"Could not override '([^']+)'.*No match in the defaults list", words)
    if unread:
        return UserError(
            f"{unread[1]}=...: recipe={recipe} does not read the group {unread[1]}; leave it out"
        )
    in_file = re.search(r"In '([^']+)': \w+ raised .*? config: (.*?) full_key: (\S+)", words)
    if in_file:
        hint = nearest(in_file[3], [key.name for key in keys()]) if "Key '" in in_file[2] else ""
        return UserError(f"configs/{in_file[1]}.yaml: {in_file[2]} ({in_file[3]}).{hint}")
    if name:
        return UserError(f"{name}: {str(cause).splitlines()[0]}; mend it there")
    detail = " ".join(str(cause).split())
    return UserError(words if detail in words else f"{words}: {detail}")


def _usage(root: Path) -> Iterator[str]:
    yield f"usage: {USAGE}"
    yield "recipes:"
    known = recipes(root)
    width = max(map(len, known), default=0)
    for name, line in known.items():
        yield f"  {name:{width}}  {line}"


def _help(root: Path) -> Iterator[str]:
    yield from _usage(root)
    yield "options:"
    yield "  -m, --multirun  several values for a key make a sweep: -m loss=weighted,plain seed=0,1"
    yield "  -c, --cfg       print the composed config and stop"
    yield "groups:"
    for group in sorted(path for path in (root / "configs").iterdir() if path.is_dir()):
        if group.name != "recipe":
            yield f"  {group.name}={'|'.join(sorted(path.stem for path in group.glob('*.yaml')))}"
    yield "keys:"
    for key in keys():
        yield f"  {key.name}={_shown(key.default)}  {key.meaning} [{key.takes}]"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)
