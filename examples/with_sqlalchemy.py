"""SQLAlchemy: an engine for Core and ORM; each of its connections signs in afresh."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from azpgauth import closing, connect_from_env


def main() -> None:
    """Open an ORM session on the engine."""
    with closing(connect_from_env(driver="sqlalchemy")) as engine, Session(engine) as session:
        print(session.scalar(text("select current_user")))


if __name__ == "__main__":
    main()
