"""Addresses without their secrets."""

import pytest

from optimizer.addresses import without_secrets


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:hunter2@host:5000", "http://host:5000"),
        ("http://me:hunter2@host:5000/mlflow?x=a@b", "http://host:5000/mlflow?x=a@b"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("http://me:hun/ter2@host:5000", "http://host:5000"),
        ("http://me:hun@ter2@host", "http://host"),
        ("https://host?token=hunter2&page=3", "https://host?token=***&page=3"),
        (
            "postgresql:///mlflow?host=10.0.0.1&user=me&password=hunter2",
            "postgresql:///mlflow?host=10.0.0.1&user=me&password=***",
        ),
        ("postgresql://host/db?password=hun@ter2", "postgresql://host/db?password=***"),
        ("postgresql+psycopg://me:hunter2@host/db", "postgresql+psycopg://host/db"),
        ("mysql://host/db?ssl_key_password=hunter2", "mysql://host/db?ssl_key_password=***"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("me:hunter2@nonsense", "nonsense"),
    ],
)
def test_no_secret_is_shown_and_nothing_else_is_lost(uri: str, shown: str) -> None:
    assert without_secrets(uri) == shown


def test_user_may_be_shown_with_a_mark_for_the_password() -> None:
    shown = without_secrets("postgresql://me:hunter2@host/db", shows_user=True)

    assert shown == "postgresql://me:***@host/db"
