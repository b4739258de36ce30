"""Every block of code in README and manual runs, loads, or is compared with what it shows."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
from typing import get_args

import pytest
import shell
from pages import BLOCKS, CODE, LINKS, PAGES, ROOT, blocks

import azpgauth
import azpgauth.errors
import azpgauth.testing
from azpgauth import ConnectError, SettingsError, connect_from_env, load_settings
from azpgauth.cli.status import Status
from azpgauth.identity import diagnosis as identity
from azpgauth.sandbox.postgres.gateway import Certificate, Mode
from azpgauth.server import words as server
from azpgauth.settings.models.sections import SECTIONS

# -- nothing is left out ---------------------------------------------------------------------------

UNCHECKED = {
    # The first line of a block that can be neither run nor compared: why.
}
DIRECTIVES = {"{toctree}", "{include}", "{literalinclude}", "{eval-rst}"}
"""What Sphinx runs when it builds the manual, where each warning is an error."""


def is_output(block):
    """Whether a block of text shows what the program right above it prints."""
    if block.language != "text" or block.before is None or block.before.language != "python":
        return False
    between = PAGES[block.page].splitlines()[block.before.line : block.line - 1]
    shown = len(block.before.text.splitlines())
    return not "".join(between[shown + 1 :]).strip()


def kind_of(block):
    """Which test has the block."""
    if block.text.partition("\n")[0] in UNCHECKED:
        return "unchecked"
    if block.language in DIRECTIVES:
        return "directive"
    if block.language == "text":
        return "output" if is_output(block) else "report"
    return block.language


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_has_its_test(block):
    kinds = {"python", "toml", "dotenv", "sh", "console", "sql"}
    kinds |= {"output", "report", "directive", "unchecked"}
    assert kind_of(block) in kinds
    if kind_of(block) == "report":
        assert [each for each in REPORTS if block.text.startswith(each)]


def test_nothing_is_excused_that_is_not_there():
    first = {block.text.partition("\n")[0] for block in BLOCKS}
    assert UNCHECKED.keys() <= first
    for begin in REPORTS:
        assert [block for block in BLOCKS if block.text.startswith(begin)], begin


def test_there_is_something_to_check():
    assert len(blocks("python")) >= 20
    assert len(blocks("sh")) >= 10


# -- programs --------------------------------------------------------------------------------------


@pytest.fixture
def world(box, block, monkeypatch):
    """What a program needs besides the sandbox's settings."""
    if "Entra" in block.text or "enable_entra" in block.text:  # the drop-in classes have libpq's
        monkeypatch.setenv("PGHOST", "localhost")
        monkeypatch.setenv("PGPORT", str(box.gateway.port))
        monkeypatch.setenv("PGDATABASE", "app")
        monkeypatch.setenv("PGSSLROOTCERT", box.environment["AZPG_SERVER_SSLROOTCERT"])
    for name, value in box.environment.items():
        if 'prefix="REPORTS_"' in block.text and name.startswith("AZPG_"):
            monkeypatch.setenv(name.replace("AZPG_", "REPORTS_"), value)
            monkeypatch.delenv(name)
    return box


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # an example forks
@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_program(world, block, capfd, monkeypatch):
    names = {"__name__": "program"}
    exec(compile(block.text, str(block), "exec"), names)  # noqa: S102 - our own
    tests = [value for name, value in names.items() if name.startswith("test_")]
    for test in tests:
        with monkeypatch.context() as own:
            wanted = {"azpgauth_sandbox": world, "monkeypatch": own}
            test(*(wanted[name] for name in test.__code__.co_varnames[: test.__code__.co_argcount]))
        world.reset()
    if "pool" in names and hasattr(names["pool"], "close"):
        names["pool"].close()
    printed = capfd.readouterr().out
    following = [each for each in blocks("text") if each.before is block and is_output(each)]
    if following:
        assert neutral(printed, world) == neutral(following[0].text, world)
    else:
        assert tests or world.gateway.passwords >= 1
        assert not world.gateway.refusals


def neutral(text, box):
    """A text as it would be on Azure's usual port, behind an Azure name.

    Around the server's own words, a driver names addresses, and says of several what failed at
    each: that is up to the machine and to the driver's version.
    """
    text = text.replace(str(box.gateway.port), "5432")
    text = text.replace("at localhost:", "at shop.postgres.database.azure.com:")
    return re.sub(r'(?s)(role "[^"]+": ).*?(FATAL: [^\n]+)(.*?)(?=\n  cause:|$)', r"\1…\2", text)


# -- reports ---------------------------------------------------------------------------------------


def mistakes(_, tmp_path, monkeypatch):
    (tmp_path / "azpgauth.prod.toml").write_text('[pool]\nmax_size = "lots"\n')
    for name in ("AZPG_SERVER_PORT", "AZPG_SERVER_SSLROOTCERT", "AZPG_CREDENTIAL_KIND"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZPG_ENV", "prod")
    monkeypatch.setenv("AZPG_POOL_MAXLIFETIME", "1")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


def refusal(box, *_):
    with pytest.raises(ConnectError) as caught:
        connect_from_env(database={"user": "orders"})
    return str(caught.value).replace('database "app"', 'database "shop"')


REPORTS = {
    # How a report begins: what makes it.
    "2 mistakes in the settings:": mistakes,
    'cannot connect to database "shop"': refusal,
}


@pytest.mark.parametrize(
    "block",
    [each for each in blocks("text") if not is_output(each)],
    ids=str,
)
def test_report(box, tmp_path, monkeypatch, block):
    make = next(make for begin, make in REPORTS.items() if block.text.startswith(begin))
    made = neutral(make(box, tmp_path, monkeypatch), box)
    assert sorted(neutral(block.text, box).splitlines()) == sorted(made.splitlines())


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("toml", "dotenv"), ids=str)
def test_settings_load(tmp_path, block):
    # Whatever is complete must load as it is; what is a part gets what is required.
    (tmp_path / {"toml": "azpgauth.toml", "dotenv": ".env"}[block.language]).write_text(block.text)
    required = {"server": ("host", "h"), "database": ("name", "d")}
    missing = {
        section: {name: value}
        for section, (name, value) in required.items()
        if not re.search(rf"{section.upper()}_{name.upper()}=|\[{section}\]\n{name} ", block.text)
    }
    assert load_settings(**missing)


def test_the_settings_that_the_manual_writes_twice_are_the_same(tmp_path, monkeypatch):
    page = "docs/settings.md"
    written = {}
    for name, language in (("azpgauth.toml", "toml"), (".env", "dotenv")):
        folder = tmp_path / language
        folder.mkdir()
        monkeypatch.chdir(folder)
        first = next(each for each in blocks(language) if each.page == page)
        (folder / name).write_text(first.text)
        written[language] = load_settings()
    assert written["toml"] == written["dotenv"]


# -- commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_commands_are_true(block):
    shell.check(block.text)


@pytest.mark.parametrize(
    "script",
    [
        "azpgauth chekc",
        "azpgauth check --josn",
        "azpgauth config shema",
        "azpgauth sandbox --credential azure -- python app.py",
        "azpgauth run psql",
        "azpgauth init && azpgauth inti",
        'PGPASSWORD="$(azpgauth token --rwa)" psql',
        "export AZPG_SERVER_HOTS=h",
        "AZPG_POOL_MAX=1 python app.py",
        "pip install 'azpgauth[psycopg,pscyopg2]'",
        "pip install azpguath",
        "python examples/quikstart.py",
        "python -m azpgaut",
        "bash .ci/rum",
        "make docs",
    ],
)
def test_commands_that_are_not_true_are_found(script):
    with pytest.raises((AssertionError, AttributeError, shell.click.UsageError)):
        shell.check(script)


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_console(box, block):
    assert box.gateway
    ours = f'azpgauth() {{ {shlex.quote(sys.executable)} -m azpgauth "$@"; }}'
    shown = re.split(r"^\$ (.*)\n", block.text, flags=re.MULTILINE)
    assert shown.pop(0) == ""
    for command, output in zip(shown[::2], shown[1::2], strict=True):
        shell.check(command)
        run = subprocess.run(
            ["bash", "-c", f"{ours}\n{command}"],  # noqa: S607 - whichever there is
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert (run.stdout, run.returncode) == (output, 0), run.stderr


def test_completion_is_there():
    [block] = [each for each in blocks("sh") if "_COMPLETE" in each.text]
    variable = re.search(r"(\w+)=bash_source", block.text)[1]
    run = subprocess.run(
        [sys.executable, "-c", "from azpgauth.cli import main; main()"],
        env={variable: "bash_source", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert "complete" in run.stdout, run.stderr


# Of Azure's functions, what this page needs.
AZURE = """
create function pgaadauth_create_principal(name text, is_admin boolean, is_mfa boolean)
returns text language plpgsql as $$
begin execute format('create role %I login', name); return name; end $$;
"""


@pytest.mark.parametrize("block", blocks("sql"), ids=str)
def test_sql(box, block):
    box.server.execute(f"begin; {AZURE} {block.text} rollback;")


# -- what the text says ----------------------------------------------------------------------------

SETTING = re.compile(rf"({'|'.join(SECTIONS)})\.(\w+)")


@pytest.mark.parametrize("page", PAGES)
def test_names_in_the_text_are_true(page):
    text = PAGES[page]
    for name in set(re.findall(r"\bAZPG_[A-Z0-9_]+\b(?!\*)", text)) - {"AZPG_POOL_MAXLIFETIME"}:
        assert name in shell.VARIABLES, name
    for code in CODE[page]:
        if (setting := SETTING.fullmatch(code.partition(" ")[0])) and setting[2] != "py":
            assert setting[2] in SECTIONS[setting[1]], code
        if code.startswith("azpgauth["):
            assert set(code[9:-1].split(",")) <= shell.EXTRAS.keys(), code
        words = [word for word in code.split() if word != "--debug"]
        if words and words[0] == "azpgauth" and "[" not in code and words[1] != "COMMAND":
            command = shell.app.commands[words[1]]
            options = {name for each in command.params for name in each.opts}
            assert {word for word in words if word.startswith("--") and word[2:]} <= options, code


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_links_lead_somewhere(page, target):
    path, _, anchor = target.partition("#")
    if not path.startswith(("https:", "http:")):
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists()
        assert not anchor or anchor in PAGES[page]


def test_the_statuses_are_the_programs():
    found = re.findall(r"^\| (\d) \|", PAGES["docs/command-line.md"], re.MULTILINE)
    assert [int(number) for number in found] == list(Status)


def test_the_faults_are_the_sandboxs():
    found = re.findall(r"^\| `([\w-]+)` \|", PAGES["docs/sandbox.md"], re.MULTILINE)
    assert set(found) == set(get_args(Mode))
    for certificate in get_args(Certificate):
        assert f"`{certificate}`" in PAGES["docs/sandbox.md"]


def test_the_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) < 150


AWKWARD = r"\btold\b|\banew\b|\bwhoever\b|\blies over\b|\bstands in\b|\ball holds\b"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CONTRIBUTING.md"])
def test_plain_english(page):
    by_hand = re.sub(r"(?s)<!-- made by .*?<!-- end -->", "", PAGES[page])
    assert not re.findall(AWKWARD, by_hand, re.IGNORECASE)


def messages():
    """The texts of the code that users may come to see: strings that are no docstrings."""
    for path in sorted((ROOT / "azpgauth").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for field, value in ast.iter_fields(node):
                values = value if isinstance(value, list) else [value]
                for each in values:
                    if isinstance(each, ast.Constant) and not isinstance(node, ast.Expr):
                        yield f"{path.name}, {field}", each.value


def test_messages_are_in_plain_english():
    texts = [(where, text) for where, text in messages() if isinstance(text, str)]
    assert len(texts) > 1000
    assert [each for each in texts if re.search(AWKWARD, each[1], re.IGNORECASE)] == []


# -- what is made from the code --------------------------------------------------------------------

GENERATE = runpy.run_path(str(ROOT / "docs/generate.py"))


@pytest.mark.parametrize("page", GENERATE["PARTS"])
def test_generated_tables_are_what_the_code_says(page):
    text = PAGES[f"docs/{page}"]
    assert GENERATE["generated"](page, text) == text, "run: python docs/generate.py"


def test_a_page_without_a_place_for_its_table_is_found():
    with pytest.raises(ValueError, match="no place for server"):
        GENERATE["generated"]("troubleshooting.md", "# Troubleshooting")


@pytest.mark.parametrize(
    "pattern", [row[0] for rows in (server.ROWS, identity.ROWS) for row in rows], ids=str
)
def test_messages_are_shown_as_texts_that_fit(pattern):
    found = GENERATE["readable"](pattern.pattern)
    assert found
    for text in found:
        assert pattern.search(text.replace("…", "7")), text
        assert not set(text) & set("\\^$|*+?[]{}"), text


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("oid mismatch", ["oid mismatch"]),
        ("a b|c d", ["a b", "c d"]),
        ("AADSTS7000215|AADSTS7000222", ["AADSTS7000215", "AADSTS7000222"]),
        ("[ab]c", ["ac", "bc"]),
        ('role "[^"]*" is', ['role "…" is']),
        ("for .* does", ["for … does"]),
        (r"pg_hba.conf|pg_hba\.conf", ["pg_hba.conf"]),
        (r"\b429\b|too many (incoming )?requests$", ["429", "too many requests"]),
        (r"with -?\d+ s (?=left)(?!x)", ["with … s "]),
        (r"(?:one|two) (three|four)", ["one three", "one four", "two three", "two four"]),
    ],
)
def test_patterns_as_texts(pattern, texts):
    assert GENERATE["readable"](pattern) == texts


def test_the_api_page_has_every_public_name():
    page = PAGES["docs/api.md"]
    named = set(re.findall(r"^\.\. auto\w+:: (\w+)", page, re.MULTILINE))
    public = {*azpgauth.__all__, *azpgauth.testing.__all__, "Sandbox"} - {"__version__"}
    # An error's other names, of azure-postgresql-auth, are on the page of those who come from it.
    public |= {
        name
        for name in azpgauth.errors.__all__
        if getattr(getattr(azpgauth.errors, name), "__name__", "") == name and name[0].isupper()
    }
    assert public <= named


def test_every_page_is_in_the_table_of_contents():
    listed = "\n".join(each.text for each in BLOCKS if each.language == "{toctree}").splitlines()
    pages = {page[5:-3] for page in PAGES if page.startswith("docs/")} - {"index"}
    assert pages <= set(listed)
    assert listed.count("settings") == 1
