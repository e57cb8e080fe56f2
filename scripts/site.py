"""The site's pages of commands, made as it is built: what --help says, of every command (a hook of mkdocs)."""

from typing import Any

import typer
from mkdocs.structure.files import File, Files

WIDTH = 100


def commands(name: str, app: typer.Typer) -> str:
    """A page of Markdown: the help of a command line and of each of its commands."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name=name, max_content_width=WIDTH, terminal_width=WIDTH)
    page = [f"# {name}", group.help, ""]
    for each in sorted(group.list_commands(context)):
        command = group.get_command(context, each)
        inner = typer.Context(command, info_name=each, parent=context, terminal_width=WIDTH)
        page += [f"## {each}", "```text", command.get_help(inner), "```", ""]
    return "\n".join(page)


def on_files(files: Files, config: Any) -> Files:
    from macco.preprocess.cli import app as prep
    from macco.train.cli import app as train

    for name, app in [("prep", prep), ("train", train)]:
        page = commands(f"macco-{name}", app)
        files.append(File.generated(config, f"commands-{name}.md", content=page))
    return files
