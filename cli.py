"""The one command, `thermodl`. A verb lives with its stage, which is imported only when the verb is used."""

import json
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version

# verb: module that holds the function of that name, extra that the module needs, what the verb does
VERBS = {
    "record": ("thermodl.record.cli", "record", "train a model and record its trajectory"),
    "analyze": ("thermodl.analyze.cli", None, "turn recorded runs into temperatures, diffusion coefficients, …"),
    "export": ("thermodl.viewer.cli", None, "write results, charts, the model or the whole run as files"),
    "unpack": ("thermodl.analyze.cli", None, "make a run folder of a zip of a run"),
    "check": ("thermodl.analyze.check", None, "hold recordings against themselves: a certificate, or every defect"),
    "ls": ("thermodl.analyze.cli", None, "list runs, their state and what was analyzed"),
    "validate": ("thermodl.validate", None, "hold the analyses against processes with exact answers"),
    "demo": ("thermodl.demo", "record", "all of it once, on embedded data, in a few minutes"),
    "view": ("thermodl.viewer.cli", "view", "look at runs in the browser (read-only)"),
    "report": ("thermodl.viewer.cli", "view", "write one self-contained HTML file about a run"),
}

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; exit with 0, 1 (a run or an analysis failed), 2 (a mistake to mend) or 130 (Ctrl-C)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    if arguments[0] == "--version":
        print(f"thermodl {version('thermodl')}")
        return
    if arguments[0] not in VERBS:
        _fail(f"there is no verb {arguments[0]!r}; expected one of {', '.join(VERBS)} (see thermodl --help)")
    try:
        _run(*arguments)
    except KeyboardInterrupt:  # while packages are being imported; later Typer takes it
        _interrupted()
        sys.exit(INTERRUPTED)


def _run(verb: str, *arguments: str) -> None:
    module, extra, _ = VERBS[verb]
    try:
        function = getattr(import_module(module), verb)
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").startswith("thermodl"):
            raise
        _fail(f'thermodl {verb} needs the package {error.name}: pip install "thermodl[{extra}]"')
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=_settings_help() if verb == "record" else None)(function)
    try:
        app(args=list(arguments), prog_name=f"thermodl {verb}")
    except SystemExit as stop:
        # Typer turns Ctrl-C into this, without a word.
        if stop.code == INTERRUPTED:
            _interrupted(verb)
        raise
    except Exception as error:
        from thermodl.record.errors import UserError

        if not isinstance(error, UserError):
            raise
        _fail(str(error))


def _overview() -> str:
    lines = [f"  {verb:<9}{text}" for verb, (_, _, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: thermodl VERB [OPTIONS]",
            "",
            "Record the training of a neural network as a physics experiment, analyze it, view it.",
            "",
            *lines,
            "",
            "thermodl VERB --help explains a verb; thermodl --version prints the version.",
        ]
    )


def _settings_help() -> str:
    """Every setting of a recording with its default and description, from the models that check them."""
    from pydantic import BaseModel

    from thermodl.record.settings import RunSettings

    def entries(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            if isinstance(field.default, BaseModel):
                yield from entries(type(field.default), f"{prefix}{name}.")
                continue
            default = "(not set)" if field.default is None else f"= {json.dumps(field.default, ensure_ascii=False)}"
            yield f"  {prefix}{name} {default}"
            yield textwrap.fill(field.description or "", 78, initial_indent=" " * 6, subsequent_indent=" " * 6)

    # \b keeps click from wrapping the paragraph.
    return "\n".join(["\b", "Settings, for --set and TOML files, with their defaults:", *entries(RunSettings, "")])


def _interrupted(verb: str = "") -> None:
    go_on = "; the same command with --resume goes on" if verb == "record" else ""
    print(f"thermodl: interrupted; what was written before is safe{go_on}", file=sys.stderr)


def _fail(message: str) -> None:
    print(f"thermodl: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
