import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpgauth.identity.claims import claims_of, no_role, role_of, who
from azpgauth.testing import fake_token

RESOURCE = "/subscriptions/1/resourcegroups/rg/providers"

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["xms_mirid", "upn", "preferred_username", "unique_name", "appid", "azp", "oid", "groups"]
)


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"xms_mirid": f"{RESOURCE}/Microsoft.ManagedIdentity/userAssignedIdentities/app"}, "app"),
        ({"xms_mirid": f"{RESOURCE}/microsoft.managedidentity/userassignedidentities/A b"}, "A b"),
        ({"xms_mirid": f"{RESOURCE}/Microsoft.Web/sites/shop"}, "shop"),
        ({"xms_mirid": f"{RESOURCE}/Microsoft.Web/sites/shop/slots/next"}, "shop/slots/next"),
        ({"xms_mirid": f"{RESOURCE}/Microsoft.Compute/virtualMachines/vm-1"}, "vm-1"),
        ({"xms_mirid": "nonsense", "upn": "ada@example.com"}, "ada@example.com"),
        ({"xms_mirid": 7, "upn": "ada@example.com"}, "ada@example.com"),
        ({"upn": "", "preferred_username": "ada"}, "ada"),
        ({"unique_name": "ada_x.com#EXT#@y.onmicrosoft.com"}, "ada_x.com#EXT#@y.onmicrosoft.com"),
        ({"upn": "  ", "preferred_username": "a\0b", "unique_name": "\ud800"}, None),
        ({"xms_mirid": f"{RESOURCE}/Microsoft.Web/sites/\0", "upn": "ada"}, "ada"),
        ({"upn": 'o\'ther "quoted" r\u00f4le @ #'}, 'o\'ther "quoted" r\u00f4le @ #'),
        ({"upn": "x" * 200}, "x" * 200),
        ({"appid": "1"}, None),
        ({}, None),
    ],
)
def test_roles(claims, role):
    assert role_of(claims) == role
    assert role_of(claims_of(fake_token(**claims))) == role


@given(st.dictionaries(NAMES | st.text(), ANYTHING))
def test_any_claims_give_a_name_or_nothing(claims):
    role = role_of(claims)
    assert role is None or (isinstance(role, str) and role.strip())
    if role is not None:  # a driver can send it
        assert b"\0" not in role.encode()
    assert who(claims).isascii()
    assert who(claims).isprintable()
    assert "AZPG_DATABASE_USER" in str(no_role(claims))


@given(st.text() | st.builds(".".join, st.lists(st.text(), min_size=3, max_size=3)))
def test_what_is_no_token_has_no_claims(text):
    assert isinstance(claims_of(text), dict)


@given(ANYTHING)
def test_any_payload(payload):
    body = base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=")
    assert isinstance(claims_of(f"h.{body}.s"), dict)
