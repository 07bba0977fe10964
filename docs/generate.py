"""Generate pages from code and data: ``commands.md``, ``messages.md``, ``bad_input.md``, tables of ``trainers.md``.

    python docs/generate.py

A test compares them with what this writes, so they cannot drift.
"""

import argparse
import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from nnunet_cmc.commands.main import COMMANDS, EPILOG, command_parser
from nnunet_cmc.trainers.compared import COMPARED
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.recipes import RECIPES

DOCS = Path(__file__).parent
STAGES = {
    "Commands": ["nnunet_cmc/commands", "nnunet_cmc/utils/variables.py"],
    "Converting": ["dataset_conversion"],
    "Cases, folds and preprocessing": ["nnunet_cmc/data"],
    "Planning": ["planners"],
    "Pretrained weights": [
        "nnunet_cmc/networks/pretrained.py",
        "nnunet_cmc/utils/checkpoints.py",
        "nnunet_cmc/networks/sam_med3d_checkpoint.py",
    ],
    "Training": ["trainers", "nnunet_cmc/networks/cmcnet.py"],
    "Evaluating": ["nnunet_cmc/evaluation"],
}
"""Where each stage's messages are raised; what only a programmer can cause (losses, blocks) is left out."""


def commands() -> str:
    """List every sub-command with its arguments, read from its parser."""
    parts = ["# Commands", "Made by `python docs/generate.py` from the commands themselves.", f"{EPILOG}"]
    for name in COMMANDS:
        parts += _command(command_parser(name), 2)
    return "\n\n".join(parts) + "\n"


def _command(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{parser.prog}`"
    if parser.description:
        raw = parser.formatter_class is argparse.RawDescriptionHelpFormatter
        yield f"```text\n{parser.description.strip()}\n```" if raw else _sentence(parser.description)
    formatter = argparse.HelpFormatter(parser.prog)
    rows = []
    children: list[argparse.ArgumentParser] = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            children += dict.fromkeys(action.choices.values())
            continue
        metavar = action.metavar or (action.option_strings[-1].lstrip("-") if action.option_strings else action.dest)
        value = "" if action.nargs == 0 else " " + formatter._format_args(action, str(metavar).upper())
        if action.nargs == argparse.REMAINDER:
            value = f" {metavar} ..."
        if action.choices:
            value = " " + "|".join(map(str, action.choices)) + (" ..." if action.nargs in ("+", "*") else "")
        names = ", ".join(f"`{option}{value}`" for option in action.option_strings) or f"`{value.strip()}`"
        needed = "yes" if action.required and action.option_strings else ""
        if not action.option_strings:
            needed = "" if action.nargs in ("?", "*") else "yes"
        rows.append(f"| {_cell(names)} | {needed} | {_cell(formatter._expand_help(action) if action.help else '')} |")
    if rows:
        yield "\n".join(["| argument | needed | |", "|---|---|---|", *rows])
    for child in children:
        yield from _command(child, level + 1)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def messages() -> str:
    """List every message of a ValueError or RuntimeError in two columns: what is wrong, and the remedy."""
    parts = [
        "# Error messages",
        "Made by `python docs/generate.py` from the code. Words in capitals and … stand for what a message names.\n"
        "[troubleshooting.md](troubleshooting.md) is about what no message explains.",
    ]
    for stage, places in STAGES.items():
        files = [file for place in places for file in sorted(_python(DOCS.parent / place))]
        rows = dict.fromkeys(row for file in files for row in _messages(file))
        parts += [f"## {stage}", "\n".join(["| message | remedy |", "|---|---|", *sorted(rows)])]
    return "\n\n".join(parts) + "\n"


def _python(place: Path) -> list[Path]:
    return list(place.rglob("*.py")) if place.is_dir() else [place]


def _messages(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    constants = dict(map(_constant, tree.body))
    within: dict[ast.AST, dict[str, str]] = {}  # the texts that names stand for, of each node of a function
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            within[node] = {**within.get(node, constants), **_remedy(function, constants)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        if not (
            isinstance(node.exc.func, ast.Name) and node.exc.func.id in ("ValueError", "RuntimeError", "PartialError")
        ):
            continue
        text = " ".join(_text(node.exc.args[0], within.get(node, constants)).split())
        if len(re.findall("[a-z]{2,}", text)) < 3:  # hands on a message from elsewhere
            continue
        problem, remedy = map(_escape, _split(text))
        yield f"| {problem} | {remedy} |"


# variables whose names tell what stands in a message
SAID = ("case", "checkpoint", "dataset", "file", "fold", "folder", "images", "label", "modality", "path", "trainer")


def _constant(statement: ast.stmt) -> tuple[str, str]:
    """Return name and value of a text that a module defines, such as a remedy that several messages share."""
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        value = statement.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return statement.targets[0].id, value.value
    return "", ""


def _remedy(function: ast.FunctionDef, constants: Mapping[str, str]) -> dict[str, str]:
    """Return the default of a parameter ``remedy``, which some callers replace."""
    parameters = function.args.args[len(function.args.args) - len(function.args.defaults) :]
    for parameter, default in zip(parameters, function.args.defaults, strict=True):
        if parameter.arg == "remedy":
            named = isinstance(default, ast.Name)
            return {"remedy": constants[default.id] if named else ast.literal_eval(default)}
    return {}


def _text(node: ast.expr, constants: Mapping[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value, constants) for value in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left, constants) + _text(node.right, constants)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        name = node.value.id
        return constants.get(name, name.upper() if name in SAID else "…")
    return "…"


def _split(text: str) -> tuple[str, str]:
    """Split a message at the last colon or semicolon before a word in lower case, where the remedy starts."""
    found = [match for match in re.finditer(r"[:;] (?=[a-z-])", text) if match.start() > 10]
    return (text[: found[-1].start()], text[found[-1].end() :]) if found else (text, "")


def _escape(text: str) -> str:
    return re.sub(r"(`[^`|]*`)|([*<>|])", lambda found: found[1] or f"\\{found[2]}", text)


def bad_input() -> str:
    """List every kind of bad input of ``bad_input.toml``, with the message that it leads to."""
    faults = tomllib.loads((DOCS / "bad_input.toml").read_text(encoding="utf-8"))["fault"]
    rows = []
    for fault in faults:
        told = ", ".join(f'"{_escape(text)}"' for text in fault.get("says", ()))
        told = "; ".join(filter(None, (told, _escape(fault.get("outcome", "")))))
        rows.append(f"| {', '.join(fault['commands'])} | {_escape(fault['input'])} | {told} |")
    parts = [
        "# Bad input",
        "Made by `python docs/generate.py` from `docs/bad_input.toml`, which names the test of each row.",
        "A command refuses what is listed here before it begins, or removes what it has written. It exits with a code\n"
        "other than 0, and one sentence names the case, the file and the remedy; `nnUNetv2_*` commands print text of\n"
        "their own around it. Quoted text is part of that sentence, shortened with ….",
        "\n".join(["| command | what is wrong | what you are told |", "|---|---|---|", *rows]),
    ]
    return "\n\n".join(parts) + "\n"


def trainers() -> str:
    """List the recipes that are no parts of another one, with the purpose of each."""
    rows = [f"| `{name}` | {_cell(recipe.purpose)} |" for name, recipe in _named().items()]
    return "\n".join(["| trainer | |", "|---|---|", *rows])


def _named() -> dict[str, Recipe]:
    chosen = ("CMCTrainer_contrastTeacher", "CMCTrainer_supervised")
    return {name: recipe for name, recipe in RECIPES.items() if "_" not in name or name in chosen}


def recipes() -> str:
    """List every recipe with its differences from the default's or, of the paper's variants, from the paper's."""
    parts = []
    for base in ("CMCTrainer", "CMCTrainerPaper"):
        plain = RECIPES[base].rows()
        described = f"`{base}`: {'; '.join(f'{what}: {value}' for what, value in plain.items())}."
        rows = [
            f"| `{name}` | {_cell('' if name in _named() else recipe.purpose)} | {_cell(_differences(recipe, plain))} |"
            for name, recipe in RECIPES.items()
            if name != base and (base == "CMCTrainerPaper") == name.startswith(("CMCTrainerPaper", "CMCTrainerAs"))
        ]
        header = ["| trainer | what it is, if it is not listed above | differences |", "|---|---|---|"]
        parts.append("\n".join([*textwrap.wrap(described, 120, break_on_hyphens=False), "", *header, *rows]))
    return "\n\n".join(parts)


def papers() -> str:
    """List what each compared system has from its paper, and what not."""
    rows = [f"| `{name}` | {_cell(recipe.differences)} |" for name, recipe in COMPARED.items()]
    return "\n".join(["| trainer | what is from its paper, simplified, or ours |", "|---|---|", *rows])


def _differences(recipe: Recipe, plain: Mapping[str, str]) -> str:
    own = recipe.rows()
    if not any(term.loss.uses_unlabeled for term in recipe.terms):
        own.pop("unlabelled pairs")  # which it does not read
    terms, others = (rows["terms"].split("; ") for rows in (own, plain))
    said = [f"without {term.split(': ')[-1]}" for term in others if term not in terms]
    said += [f"with {term}" for term in terms if term not in others]
    said += [f"{what}: {value}" for what, value in own.items() if what != "terms" and value != plain[what]]
    return "; ".join(said)


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """Return ``text`` with each table between the two marks of its name."""
    for name, table in tables.items():
        start, end = f"<!-- {name}: made by docs/generate.py -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    return text


PAGES = {
    DOCS / "commands.md": commands,
    DOCS / "messages.md": messages,
    DOCS / "bad_input.md": bad_input,
    DOCS / "trainers.md": lambda: with_tables(
        (DOCS / "trainers.md").read_text(encoding="utf-8"),
        {"trainers": trainers(), "papers": papers(), "recipes": recipes()},
    ),
}

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for file, page in PAGES.items():
        file.write_text(page(), encoding="utf-8")
        print(f"Written: {file}")
