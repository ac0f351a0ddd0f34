#!/usr/bin/env python3
"""Generates the tables of options in docs/operations/configuration.md from the programs' --help.

usage: docs/configuration.py [--check] BIN_DIR

BIN_DIR is the folder with muse-auth, muse-embedder and muse-gateway, such as target/release. The script replaces the text
between the markers of the page. With --check it writes nothing, prints the differences, and exits with status 1 if there are any.
"""

import argparse
import difflib
import os
import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).parent / "operations/configuration.md"
PROGRAMS = ("muse-auth", "muse-embedder", "muse-gateway")
BEGIN = "<!-- begin of what docs/configuration.py generates -->"
END = "<!-- end of what docs/configuration.py generates -->"

# Defaults that depend on the machine.
COMPUTED_DEFAULTS = {
    "HASH_THREADS": "half of the cores, at most 4",
    "MUSE_THREADS": "the cores",
    "MUSE_TOKENIZER_THREADS": "the cores",
}
# Options that are not listed.
SKIPPED = ("--help", "--version")

OPTION = re.compile(r"^ {2,6}(?:-\w, )?(--[\w-]+(?: <\w+>)?)$")
HEADING = re.compile(r"^(\S.*):$")
BRACKETED = re.compile(r"\[(env|default|possible values): ?(.*?)\]")


class Option:
    """An option as clap prints it in the long help."""

    def __init__(self, heading, name, lines):
        self.group = "General" if heading in ("Options", "Options of the service") else heading.removeprefix("Options of ")
        self.name = name
        values = []
        text = []
        for line in lines:
            value = re.match(r"^- (\w+):\s+(.*)$", line)
            if value:
                values.append(f"`{value[1]}`: {value[2]}")
            elif line != "Possible values:":
                text.append(line)
        text = " ".join(text)
        brackets = dict(BRACKETED.findall(text))
        self.variable = brackets.get("env", "").split("=")[0]
        default = brackets.get("default", "")
        # A default in words is shown as text, a value as code.
        self.default = f"`{default}`" if default and " " not in default else default
        if "<" not in name:
            self.default = "`false`"
        self.default = COMPUTED_DEFAULTS.get(self.variable, self.default)
        description = " ".join(BRACKETED.sub("", text).split())
        self.description = f"{description}. {'; '.join(values)}" if values else description

    def row(self):
        variable = f"`{self.variable}`" if self.variable else ""
        cells = (f"`{self.name}`", variable, self.default, self.description)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def options(help_text):
    """The options of a program, in the order of its help."""
    heading, name, lines, found = "", None, [], []
    for line in [*help_text.splitlines(), "End:"]:
        begins = OPTION.match(line)
        new_heading = HEADING.match(line)
        if not begins and not new_heading:
            if name and line.strip():
                lines.append(line.strip())
            continue
        if name and not name.startswith(SKIPPED):
            found.append(Option(heading, name, lines))
        name, lines = (begins[1] if begins else None), []
        if new_heading:
            heading = new_heading[1]
    return found


def help_of(program):
    """The long help, without values of the environment."""
    ran = subprocess.run([program, "--help"], env={"PATH": os.environ.get("PATH", "")}, check=True, capture_output=True, text=True)
    return ran.stdout


def tables(title, chosen):
    """A section with a table for each heading of the help."""
    lines = [f"### {title}", ""]
    for group in dict.fromkeys(option.group for option in chosen):
        lines += [f"#### {title}: {group}", "", "| option | variable | default | description |", "|---|---|---|---|"]
        lines += [option.row() for option in chosen if option.group == group]
        lines.append("")
    return lines


def generated(folder):
    """The text between the markers."""
    by_program = {program: options(help_of(folder / program)) for program in PROGRAMS}
    rows = [{option.row() for option in chosen} for chosen in by_program.values()]
    common = set.intersection(*rows)
    lines = tables("All services", [option for option in by_program["muse-gateway"] if option.row() in common])
    for program, chosen in by_program.items():
        lines += tables(f"`{program}`", [option for option in chosen if option.row() not in common])
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    now = PAGE.read_text(encoding="utf-8")
    before, _, rest = now.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or END not in rest:
        sys.exit(f"error: {PAGE} has no markers")
    page = f"{before}{BEGIN}\n\n{generated(arguments.folder.resolve())}\n{END}{after}"
    if not arguments.check:
        PAGE.write_text(page, encoding="utf-8")
        return
    differences = list(difflib.unified_diff(now.splitlines(), page.splitlines(), str(PAGE), "generated", lineterm=""))
    print("\n".join(differences))
    if differences:
        sys.exit(1)


if __name__ == "__main__":
    main()
