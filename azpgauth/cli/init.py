"""Runs `azpgauth init`: writes a commented file of settings to begin with."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["init"]


@click.command()
@click.option("--dotenv", is_flag=True, help="Write .env instead of azpgauth.toml.")
@click.option("--force", is_flag=True, help="Write over a file that exists.")
def init(dotenv: bool, force: bool) -> None:
    """Write azpgauth.toml, with every setting in it and most of them commented out.

    It asks nothing, and does not touch a file that exists unless told so.

    Example: azpgauth init --dotenv
    """
    from azpgauth.settings.reference import dotenv_example, toml_example

    path = Path(".env" if dotenv else "azpgauth.toml")
    text = dotenv_example() if dotenv else toml_example()
    mode = 0o600 if dotenv else 0o644
    try:
        if path.exists() and not force:
            raise FileExistsError  # noqa: TRY301 - as the system would
        # Beside it first, and then in its place: whole, and with the right to read it.
        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=mode, exist_ok=False)
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except FileExistsError:
        raise click.ClickException(f"{path} exists; --force overwrites it") from None
    except OSError as exc:
        raise click.ClickException(f"cannot write {path}: {exc.strerror}") from None
    click.echo(f"{path} written: edit it, then run azpgauth check")
