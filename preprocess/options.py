"""Settings as options: a dataclass parameter of a command becomes an option for each of its fields."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_args, get_type_hints

import typer


def given_options(context: typer.Context) -> set[str]:
    """The names of the options that the user gave to a command."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let typer see the fields, which are Annotated[type, help]; the command gets dataclasses, built of them."""
    parameters: list[inspect.Parameter] = []
    built: dict[str, Any] = {}
    for parameter in inspect.signature(command).parameters.values():
        settings: Any = parameter.annotation
        if not is_dataclass(settings):
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
            continue
        built[parameter.name] = settings
        hints = get_type_hints(settings, include_extras=True)
        for field in fields(settings):
            kind, words = get_args(hints[field.name])
            option = Annotated[kind, typer.Option(help=words)]  # type: ignore[valid-type]
            parameters.append(
                inspect.Parameter(
                    field.name, parameter.KEYWORD_ONLY, default=field.default, annotation=option
                )
            )

    @wraps(command)
    def run(**given: Any) -> None:
        for name, settings in built.items():
            given[name] = settings(**{field.name: given.pop(field.name) for field in fields(settings)})
        command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
