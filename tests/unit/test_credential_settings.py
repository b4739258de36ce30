"""The settings of every kind of credential, and what azure-identity is told of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azpgauth import SettingsError, load_settings
from azpgauth.identity.azure import build, options_of
from azpgauth.server.clouds import CLOUDS, cloud_of, full_scope
from azpgauth.settings.models.credential import KINDS

TENANT = "7b2f3c64-9c0d-4a57-8c7e-5d2f0a6b1e93"
PUBLIC = CLOUDS["public"].authority
WITH_TOKENS = [kind for kind in KINDS if kind not in {"password", "none"}]


def loaded(host="shop.postgres.database.azure.com", **credential):
    return load_settings(
        server={"host": host}, database={"name": "shop", "user": "app"}, credential=credential
    ).credential


@pytest.fixture
def files():
    Path("cert.pem").write_text("no certificate")
    Path("token").write_text("a.b.c")


OPTIONS = [
    # what is set, the class of azure-identity, and what it is told
    ({}, "DefaultAzureCredential", {}),
    (
        {"client_id": "c", "exclude_cli_credential": "true", "process_timeout": "3"},
        "DefaultAzureCredential",
        {
            "managed_identity_client_id": "c",
            "workload_identity_client_id": "c",
            "exclude_cli_credential": True,
            "process_timeout": 3,
        },
    ),
    ({"kind": "managed-identity"}, "ManagedIdentityCredential", {}),
    (
        {"kind": "managed-identity", "client_id": "c"},
        "ManagedIdentityCredential",
        {"client_id": "c"},
    ),
    (
        {"kind": "managed-identity", "resource_id": "/r"},
        "ManagedIdentityCredential",
        {"identity_config": {"resource_id": "/r"}},
    ),
    (
        {
            "kind": "workload-identity",
            "client_id": "c",
            "tenant_id": TENANT,
            "token_file_path": "token",
        },
        "WorkloadIdentityCredential",
        {"client_id": "c", "tenant_id": TENANT, "token_file_path": "token"},
    ),
    (
        {
            "kind": "client-secret",
            "client_id": "c",
            "tenant_id": TENANT,
            "client_secret": "s",
            "authority": "login.example",
            "disable_instance_discovery": "true",
            "additionally_allowed_tenants": "a, b",
        },
        "ClientSecretCredential",
        {
            "client_id": "c",
            "tenant_id": TENANT,
            "client_secret": "s",
            "authority": "login.example",
            "disable_instance_discovery": True,
            "additionally_allowed_tenants": ["a", "b"],
        },
    ),
    (
        {
            "kind": "client-certificate",
            "client_id": "c",
            "tenant_id": TENANT,
            "certificate_path": "cert.pem",
            "certificate_password": "p",
            "send_certificate_chain": True,
        },
        "CertificateCredential",
        {
            "client_id": "c",
            "tenant_id": TENANT,
            "certificate_path": "cert.pem",
            "password": "p",
            "send_certificate_chain": True,
        },
    ),
    ({"kind": "environment"}, "EnvironmentCredential", {}),
    (
        {"kind": "azure-cli", "subscription": "prod", "process_timeout": 20},
        "AzureCliCredential",
        {"subscription": "prod", "process_timeout": 20},
    ),
    (
        {"kind": "azure-developer-cli", "tenant_id": TENANT},
        "AzureDeveloperCliCredential",
        {"tenant_id": TENANT},
    ),
    ({"kind": "azure-powershell"}, "AzurePowerShellCredential", {}),
    (
        {"kind": "interactive-browser", "login_hint": "ada@example.com"},
        "InteractiveBrowserCredential",
        {"login_hint": "ada@example.com", "timeout": 300},
    ),
    ({"kind": "device-code", "timeout": 60}, "DeviceCodeCredential", {"timeout": 60}),
]


@pytest.mark.parametrize(("given", "name", "options"), OPTIONS, ids=lambda each: str(each)[:40])
def test_azure_identity_gets_its_options_under_its_own_names(files, given, name, options):
    settings = loaded(**given)
    assert options_of(settings, PUBLIC, {}) == options
    if settings.kind != "client-certificate":  # which reads the certificate at once
        credential = build(settings)
        assert type(credential).__name__ == name
        getattr(credential, "close", lambda: None)()


def test_every_kind_is_in_the_table():
    assert {given.get("kind", "default") for given, _, _ in OPTIONS} == set(WITH_TOKENS)


def test_every_option_is_known_to_azure_identity():
    # Those of DefaultAzureCredential are keywords that its signature does not show.
    import inspect

    from azure.identity._credentials.default import DefaultAzureCredential

    source = inspect.getsource(DefaultAzureCredential.__init__)
    for name in KINDS["default"].model_fields:
        if name.startswith("exclude_"):
            assert name in source


@pytest.mark.parametrize(
    ("cloud", "authority"),
    [("usgov", "https://login.microsoftonline.us"), ("china", "https://login.chinacloudapi.cn")],
)
def test_the_authority_is_the_clouds_unless_somebody_names_one(cloud, authority):
    of_cloud = CLOUDS[cloud].authority
    environment = loaded(host=f"shop{CLOUDS[cloud].suffix}", kind="environment")
    assert options_of(environment, of_cloud, {}) == {"authority": authority}
    assert options_of(environment, of_cloud, {"AZURE_AUTHORITY_HOST": "https://own"}) == {}
    named = loaded(kind="environment", authority="https://mine")
    assert options_of(named, of_cloud, {}) == {"authority": "https://mine"}
    assert options_of(loaded(kind="azure-cli"), of_cloud, {}) == {}


MISTAKES = [
    ({"kind": "client-secret", "client_id": "c"}, ["AZPG_CREDENTIAL_TENANT_ID", "CLIENT_SECRET"]),
    ({"kind": "azure-cli", "client_id": "c"}, ["credential.client_id", "azure-cli", "device-code"]),
    ({"tenant_id": TENANT}, ["credential.tenant_id", "kind default", "workload-identity"]),
    ({"kind": "client-certificate", "certificate_path": "no.pem"}, ["no.pem", "not a file"]),
    ({"kind": "workload-identity", "token_file_path": "no"}, ["token_file_path", "not a file"]),
    ({"kind": "environment", "authority": "http://x"}, ["credential.authority", "https"]),
    ({"kind": "azure-cli", "process_timeout": 0}, ["process_timeout", "greater than or equal"]),
    ({"kind": "azure-cli", "tenant_id": "a b"}, ["credential.tenant_id", "'a b'"]),
    ({"kind": "azure_cli"}, ["credential.kind", "did you mean azure-cli?"]),
    ({"kind": "managed-identity", "client_id": "c", "object_id": "o"}, ["object_id", "client_id"]),
    ({"exclude_cli_credential": "perhaps"}, ["exclude_cli_credential", "perhaps"]),
    ({"refresh": "never"}, ["credential.refresh", "on-demand"]),
]


@pytest.mark.parametrize(("given", "words"), MISTAKES, ids=lambda each: str(each)[:40])
def test_mistakes(given, words):
    with pytest.raises(SettingsError) as caught:
        loaded(**given)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (
            {"host": "a.postgres.database.azure.com", "cloud": "china"},
            ["server.cloud", "is in cloud public", "set it to public"],
        ),
        (
            {"host": "a.postgres.database.azure.com,b.postgres.database.chinacloudapi.cn"},
            ["server.host", "china, public"],
        ),
    ],
)
def test_a_cloud_that_contradicts_the_host(server, words):
    with pytest.raises(SettingsError) as caught:
        load_settings(server=server, database={"name": "shop"})
    for word in words:
        assert word in str(caught.value)


def test_the_cloud_by_the_host_or_by_name():
    def cloud(**server):
        return load_settings(server=server, database={"name": "shop"}).server.cloud_name

    assert cloud(host="localhost") == "public"
    assert cloud(host="localhost", cloud="usgov") == "usgov"
    assert cloud(host="10.0.0.1,b.postgres.database.chinacloudapi.cn") == "china"
    assert cloud_of("SHOP.postgres.database.usgovcloudapi.net.") == "usgov"


@pytest.mark.parametrize(
    ("scope", "full"),
    [
        ("https://ossrdbms-aad.database.windows.net", None),
        ("https://ossrdbms-aad.database.windows.net/", None),
        ("https://ossrdbms-aad.database.windows.net//.default", None),
        ("ossrdbms-aad.database.windows.net", None),
        ("ossrdbms-aad.database.windows.net/.default", None),
        (" https://ossrdbms-aad.database.windows.net/.default ", None),
        ("https://x.net/user_impersonation", "https://x.net/user_impersonation"),
        ("123107d6-7a5e-4a6c-9c5d-d2bc6a3c0a3b", "123107d6-7a5e-4a6c-9c5d-d2bc6a3c0a3b/.default"),
        ("api://own", "api://own/.default"),
    ],
)
def test_scopes_are_completed(scope, full):
    expected = full or CLOUDS["public"].scope
    assert loaded(scope=scope).scope == full_scope(scope) == expected


@given(st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=1))
def test_completing_a_scope_once_is_enough(text):
    assert full_scope(full_scope(text)) == full_scope(text)


def test_a_secret_in_a_toml_file_is_taken_with_a_warning(monkeypatch):
    Path("azpgauth.toml").write_text(
        '[server]\nhost = "h"\n[database]\nname = "d"\n'
        f'[credential]\nkind = "client-secret"\ntenant_id = "{TENANT}"\nclient_id = "c"\n'
        'client_secret = "hunter2"\n'
    )
    with pytest.warns(UserWarning, match="AZPG_CREDENTIAL_CLIENT_SECRET") as caught:
        settings = load_settings()
    assert settings.credential.client_secret.get_secret_value() == "hunter2"
    assert "azpgauth.toml, [credential] client_secret" in str(caught[0].message)
    assert "hunter2" not in str(caught[0].message)
    assert caught[0].filename == __file__


def test_a_file_for_production_and_one_variable_on_a_laptop(monkeypatch):
    Path("azpgauth.toml").write_text(
        '[server]\nhost = "h"\n[database]\nname = "d"\n'
        '[credential]\nkind = "managed-identity"\nclient_id = "c"\nrefresh = "on-demand"\n'
    )
    monkeypatch.setenv("AZPG_CREDENTIAL_KIND", "azure-cli")
    credential = load_settings().credential
    assert (credential.kind, credential.refresh) == ("azure-cli", "on-demand")
    # But what stands beside the kind, or above it, is meant.
    monkeypatch.setenv("AZPG_CREDENTIAL_CLIENT_ID", "c")
    with pytest.raises(SettingsError, match="does not belong"):
        load_settings()


SERVICE_CONNECTOR = {
    "AZURE_POSTGRESQL_HOST": "shop.postgres.database.azure.com",
    "AZURE_POSTGRESQL_CLIENTID": "c",
    "AZURE_POSTGRESQL_CLIENTSECRET": "hunter2",
    "AZURE_POSTGRESQL_TENANTID": TENANT,
}


def test_service_connectors_identity_is_taken(monkeypatch):
    monkeypatch.setenv("AZURE_POSTGRESQL_HOST", "shop.postgres.database.azure.com")
    monkeypatch.setenv("AZURE_POSTGRESQL_CLIENTID", "c")
    assert (loaded().kind, loaded().client_id) == ("managed-identity", "c")
    assert (loaded(kind="default").kind, loaded(kind="default").client_id) == ("default", "c")
    assert loaded(kind="azure-cli").kind == "azure-cli"
    assert loaded(client_id="mine").client_id == "mine"


def test_service_connectors_service_principal_is_taken(monkeypatch):
    for name, value in SERVICE_CONNECTOR.items():
        monkeypatch.setenv(name, value)
    credential = loaded()
    assert (credential.kind, credential.client_id) == ("client-secret", "c")
    assert credential.tenant_id == TENANT
    assert credential.client_secret.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(credential)
    assert loaded(kind="password", password="x").kind == "password"


def test_settings_of_every_kind_can_be_a_key(files):
    for fields, _, _ in OPTIONS:
        assert len({loaded(**fields), loaded(**fields)}) == 1
