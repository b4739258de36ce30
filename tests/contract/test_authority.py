"""The sandbox's authority: azure-identity's own credentials sign in at every door, or do not."""

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import jwt
import psycopg
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    AzureCliCredential,
    AzureDeveloperCliCredential,
    AzurePowerShellCredential,
    CertificateCredential,
    ClientSecretCredential,
    CredentialUnavailableError,
    DefaultAzureCredential,
    DeviceCodeCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from azpgauth import connect_from_env, connection_from_env, token_info
from azpgauth.errors import AzpgauthError, TokenError
from azpgauth.identity.azure import forget
from azpgauth.identity.claims import claims_of, role_of
from azpgauth.identity.token import MARGIN
from azpgauth.opening.info import _logins
from azpgauth.sandbox import Identity, Sandbox
from azpgauth.sandbox.certificates import client_certificate
from azpgauth.sandbox.entra import proofs
from azpgauth.sandbox.entra.answers import EntraError
from azpgauth.sandbox.entra.directory import Directory, subject

RESOURCE = "https://ossrdbms-aad.database.windows.net"
SCOPE = f"{RESOURCE}/.default"

MSAL = {"disable_instance_discovery": True, "retry_total": 0}
MAKERS = {
    "default": lambda env: DefaultAzureCredential(
        managed_identity_client_id=env.get("AZPG_CREDENTIAL_CLIENT_ID"), retry_total=0
    ),
    "managed-identity": lambda env: ManagedIdentityCredential(
        client_id=env.get("AZPG_CREDENTIAL_CLIENT_ID"), retry_total=0
    ),
    "workload-identity": lambda _: WorkloadIdentityCredential(**MSAL),
    "client-secret": lambda env: ClientSecretCredential(
        env["AZPG_CREDENTIAL_TENANT_ID"],
        env["AZPG_CREDENTIAL_CLIENT_ID"],
        env["AZPG_CREDENTIAL_CLIENT_SECRET"],
        authority=env["AZPG_CREDENTIAL_AUTHORITY"],
        **MSAL,
    ),
    "client-certificate": lambda env: CertificateCredential(
        env["AZPG_CREDENTIAL_TENANT_ID"],
        env["AZPG_CREDENTIAL_CLIENT_ID"],
        env["AZPG_CREDENTIAL_CERTIFICATE_PATH"],
        authority=env["AZPG_CREDENTIAL_AUTHORITY"],
        **MSAL,
    ),
    "environment": lambda _: EnvironmentCredential(**MSAL),
    "azure-cli": lambda _: AzureCliCredential(),
    "azure-developer-cli": lambda _: AzureDeveloperCliCredential(),
    "azure-powershell": lambda _: AzurePowerShellCredential(),
    "device-code": lambda env: DeviceCodeCredential(
        env["AZPG_CREDENTIAL_CLIENT_ID"],
        tenant_id=env["AZPG_CREDENTIAL_TENANT_ID"],
        authority=env["AZPG_CREDENTIAL_AUTHORITY"],
        prompt_callback=lambda *_: None,
        **MSAL,
    ),
}
DOORS = {
    **dict.fromkeys(MAKERS, "oauth2"),
    **dict.fromkeys(("default", "managed-identity"), "app-service"),
    "azure-cli": "az",
    "azure-developer-cli": "azd",
    "azure-powershell": "pwsh",
}
PROGRAMS = ("azure-cli", "azure-developer-cli", "azure-powershell")
ONE_OF_EACH = ("managed-identity", "workload-identity", "client-secret", "azure-cli")
every_door = pytest.mark.parametrize("kind", MAKERS)
each_door_once = pytest.mark.parametrize("kind", ONE_OF_EACH)


@pytest.fixture
def credential(box, monkeypatch):
    """Makes a credential of azure-identity from the environment that the sandbox gives for it."""
    stale = list(box.environment)
    with contextlib.ExitStack() as stack:

        def make(kind, identity=None, **changed):
            environment = {**box.environment_for(kind, identity=identity), **changed}
            for name in stale:
                monkeypatch.delenv(name, raising=False)
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            return stack.enter_context(contextlib.closing(MAKERS[kind](environment)))

        yield make


def sign_in(box, token, user=None):
    """The role a token signs in as: the one that is named, or that of its claims."""
    user = user or os.environ.get("AZPG_DATABASE_USER") or role_of(claims_of(token))
    conninfo = f"host=localhost port={box.gateway.port} dbname=app sslmode=verify-full"
    root = box.environment["AZPG_SERVER_SSLROOTCERT"]
    with psycopg.connect(conninfo, user=user, password=token, sslrootcert=root) as conn:
        return conn.execute("select current_user").fetchone()[0]


def someone(kind="user-assigned", name=None, **more):
    return Identity(name or f"{kind}-{uuid.uuid4()}", kind=kind, **more)


# Signing in


@every_door
def test_every_door(box, credential, kind):
    token = credential(kind).get_token(SCOPE).token
    applications = {"workload-identity", "client-secret", "client-certificate", "environment"}
    assert sign_in(box, token) == ("sandbox-sp" if kind in applications else "sandbox-app")
    assert box.authority.requests == [RESOURCE]
    assert box.authority.endpoints == [DOORS[kind]]
    assert box.authority.issued == [token]
    box.reset()
    assert (box.authority.requests, box.authority.endpoints, box.gateway.users) == ([], [], [])


@every_door
def test_another_identity_at_every_door(box, credential, kind):
    other = someone()
    assert sign_in(box, credential(kind, other).get_token(SCOPE).token) == other.name
    assert box.authority.identity == box.identity


@pytest.mark.parametrize("kind", ["managed-identity", *PROGRAMS, "device-code"])
@pytest.mark.parametrize("who", ["user", "guest", "service-principal", "system-assigned"])
def test_each_kind_of_identity(box, credential, kind, who):
    other = someone(
        who, f"{uuid.uuid4().hex[:8]}_x.com#EXT#@t.onmicrosoft.com" if who == "guest" else None
    )
    token = credential(kind, other).get_token(SCOPE).token
    claims = claims_of(token)
    assert sign_in(box, token) == other.name
    assert claims["idtyp"] == ("user" if who in {"user", "guest"} else "app")
    assert ("upn" in claims) == (who == "user")
    assert (role_of(claims) is None) == (who == "service-principal")


def test_another_scope(box, credential):
    vault = "https://vault.azure.net"
    for kind in (*ONE_OF_EACH, "device-code", "azure-powershell", "azure-developer-cli"):
        token = credential(kind).get_token(f"{vault}/.default").token
        assert claims_of(token)["aud"] == vault
    assert set(box.authority.requests) == {vault}
    with pytest.raises(psycopg.OperationalError, match="valid audience claim"):
        sign_in(box, token)


@pytest.mark.parametrize("kind", ["default", "managed-identity"])
def test_imds(box, credential, monkeypatch, kind):
    monkeypatch.setattr(box, "endpoint", "imds")
    assert sign_in(box, credential(kind).get_token(SCOPE).token) == "sandbox-app"
    assert set(box.authority.endpoints) == {"imds"}  # the default credential knocks first


def test_what_no_program_is_named_for(box, credential):
    """The developers' own application stands for whoever the authority speaks for."""
    env = box.environment_for("device-code")
    credential("device-code")
    with contextlib.closing(
        DeviceCodeCredential(
            authority=env["AZPG_CREDENTIAL_AUTHORITY"], prompt_callback=lambda *_: None, **MSAL
        )
    ) as developer:
        assert sign_in(box, developer.get_token(SCOPE).token) == "sandbox-app"


def test_a_device_code_is_approved_once(box, credential):
    box.authority.lifetime = 60  # not worth keeping: the next one comes by the refresh token
    code = credential("device-code")
    first, second = (code.get_token(SCOPE).token for _ in range(2))
    assert first != second
    assert box.authority.endpoints == ["oauth2", "oauth2"]
    assert sign_in(box, second) == "sandbox-app"


# Groups


def test_a_member_signs_in_as_the_group(box, credential):
    group = someone("group")
    box.add(group)
    member = someone("user", groups=(group,))
    box.directory.add(member)
    token = credential("azure-cli", member).get_token(SCOPE).token
    assert claims_of(token)["groups"] == [group.object_id]
    assert os.environ["AZPG_DATABASE_USER"] == group.name
    assert sign_in(box, token) == group.name
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        sign_in(box, token, user=member.name)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        sign_in(box, box.issuer.token(someone("user")), user=group.name)


@pytest.mark.parametrize("kind", ["managed-identity", *PROGRAMS, "device-code"])
def test_of_a_group_a_member_signs_in(box, credential, kind):
    group = someone("group")
    token = credential(kind, group).get_token(SCOPE).token
    assert claims_of(token)["oid"] != group.object_id
    assert sign_in(box, token) == group.name


def test_a_group_has_no_tokens(box, credential):
    group = someone("group")
    box.add(group)
    box.directory.add(group)  # even so
    for kind in ("managed-identity", "client-secret", "device-code"):
        with pytest.raises(ClientAuthenticationError, match=r"AADSTS700016|Identity not found|400"):
            credential(kind, AZPG_CREDENTIAL_CLIENT_ID=group.client_id).get_token(SCOPE)


def test_a_user_is_no_application(box, credential):
    user = someone("user")
    for kind in ("client-secret", "client-certificate", "environment", "workload-identity"):
        for who in (user, someone("group")):
            with pytest.raises(AzpgauthError, match="not an application"):
                box.environment_for(kind, identity=who)
    with pytest.raises(ClientAuthenticationError, match="AADSTS700016"):
        credential("client-secret", AZPG_CREDENTIAL_CLIENT_ID=user.client_id).get_token(SCOPE)
    with pytest.raises(ValueError, match="no credential 'passkey'"):
        box.environment_for("passkey")


def test_adding_twice_does_no_harm(box):
    other = someone()
    box.add(other)
    box.add(other)
    assert sign_in(box, box.issuer.token(other)) == other.name
    assert len({other, Identity(other.name), other}) == 2


# Refusals


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        ("client-secret", {"AZPG_CREDENTIAL_CLIENT_SECRET": "a"}, "AADSTS7000215: Invalid client"),
        ("environment", {"AZURE_CLIENT_SECRET": "wröng"}, "AADSTS7000215: Invalid client"),
        ("client-secret", {"AZPG_CREDENTIAL_CLIENT_ID": "nobody"}, "AADSTS700016: .*'nobody'"),
        ("workload-identity", {"AZURE_CLIENT_ID": "nobody"}, "AADSTS700016: .*'nobody'"),
        ("device-code", {"AZPG_CREDENTIAL_CLIENT_ID": "nobody"}, "AADSTS700016: .*'nobody'"),
        ("workload-identity", {"AZURE_TENANT_ID": "wrong"}, "AADSTS90002: Tenant 'wrong' not"),
    ],
    ids=str,
)
def test_a_refusal(box, credential, kind, changed, said):
    with pytest.raises(ClientAuthenticationError, match=said):
        credential(kind, **changed).get_token(SCOPE)
    assert box.authority.issued == []


def test_a_wrong_tenant_has_no_configuration(credential):
    # msal asks for it first, and has words of its own for that.
    with pytest.raises(ClientAuthenticationError, match="double check your tenant name"):
        credential("client-secret", AZPG_CREDENTIAL_TENANT_ID="wrong").get_token(SCOPE)


def test_the_certificate_of_another(box, credential, tmp_path):
    pem, _ = client_certificate("stranger")
    (tmp_path / "stranger.pem").write_bytes(pem)
    box.environment_for("client-certificate")
    for path in (tmp_path / "stranger.pem", box.directory.certificate(someone())):
        changed = {"AZPG_CREDENTIAL_CERTIFICATE_PATH": str(path)}
        with pytest.raises(ClientAuthenticationError, match="AADSTS700027"):
            credential("client-certificate", **changed).get_token(SCOPE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lifetime": -1}, "AADSTS700024"),
        ({"audience": "https://example.com"}, "AADSTS700212"),
        ({"other_key": True}, "AADSTS700027"),
    ],
    ids=str,
)
def test_a_bad_federated_token(box, credential, tmp_path, options, said):
    token = box.directory.federated_token(box.service_principal, **options)
    (tmp_path / "token").write_text(token)
    with pytest.raises(ClientAuthenticationError, match=said):
        credential(
            "workload-identity", AZURE_FEDERATED_TOKEN_FILE=str(tmp_path / "token")
        ).get_token(SCOPE)


def test_the_federated_token_of_another(box, credential, tmp_path):
    for token, said in (
        (box.directory.federated_token(box.identity), "AADSTS700213"),
        (box.issuer.token(box.service_principal), "AADSTS700027"),
        ("rubbish", "AADSTS50027"),
    ):
        (tmp_path / "token").write_text(token)
        workload = credential(
            "workload-identity", AZURE_FEDERATED_TOKEN_FILE=str(tmp_path / "token")
        )
        with pytest.raises(ClientAuthenticationError, match=said):
            workload.get_token(SCOPE)


def test_an_assertion_of_a_certificate():
    """What azure-identity never sends, but an attacker could."""
    pem, certificate = client_certificate("app")
    shown = {"x5t": min(proofs._thumbprints(certificate), key=len)}
    now = int(time.time())
    good = {"aud": "here", "iss": "app", "sub": "app", "exp": now + 60}

    def refused(key=pem, headers=shown, **changed):
        assertion = jwt.encode({**good, **changed}, key, algorithm="RS256", headers=headers)
        with pytest.raises(EntraError) as caught:
            proofs.check_certificate(assertion, certificate, client_id="app", audience="here")
        return caught.value.code

    assertion = jwt.encode(good, pem, algorithm="RS256", headers=shown)
    proofs.check_certificate(assertion, certificate, client_id="app", audience="here")
    assert refused(exp=now - 1) == 700024
    assert refused(nbf=now + 60) == 700024
    assert refused(aud="there") == 700023
    assert refused(iss="other") == refused(sub="other") == 700021
    assert refused(key=client_certificate("other")[0]) == 700027
    assert refused(headers={"x5t": "AAAA"}) == 700027
    unsigned = jwt.encode(good, None, algorithm="none", headers=shown)
    with pytest.raises(EntraError, match="AADSTS700027"):
        proofs.check_certificate(unsigned, certificate, client_id="app", audience="here")
    with pytest.raises(EntraError, match="AADSTS700027"):
        proofs.check_certificate(unsigned, None, client_id="app", audience="here")


def post(box, path, **form):
    import requests

    url = f"{box.authority.url}/{box.authority.tenant}/oauth2/v2.0/{path}"
    answer = requests.post(url, form, verify=box.environment["AZPG_SERVER_SSLROOTCERT"], timeout=5)
    return answer.status_code, answer.json()


def test_what_only_other_clients_send(box):
    who = {"client_id": box.service_principal.client_id, "grant_type": "client_credentials"}
    right = {**who, "client_secret": box.directory.secret(box.service_principal)}
    device = "urn:ietf:params:oauth:grant-type:device_code"
    for form, status, error, code in (
        ({**who, "scope": SCOPE}, 401, "invalid_client", 7000218),
        ({**right, "scope": RESOURCE}, 400, "invalid_scope", 1002012),
        ({**right, "grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"grant_type": device, "device_code": "x"}, 400, "bad_verification_code", 70018),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant", 700082),
    ):
        answered, document = post(box, "token", **form)
        assert (answered, document["error"], document["error_codes"]) == (status, error, [code])
        assert document["error_description"].startswith(f"AADSTS{code}: ")
    assert post(box, "authorize")[0] == 404
    assert post(box, "token", **right, scope=SCOPE)[0] == 200


def test_http_without_the_header(box):
    import requests

    url = box.authority.imds["AZURE_POD_IDENTITY_AUTHORITY_HOST"]
    for path, status in (
        ("/programs/az", 403),
        ("/msi/token", 403),
        ("/metadata/identity/oauth2/token", 403),
        ("/elsewhere", 404),
    ):
        assert requests.get(url + path, {"resource": RESOURCE}, timeout=5).status_code == status
    assert box.authority.requests == []


# Faults


@each_door_once
def test_a_status(box, credential, kind):
    box.authority.status = 403
    with pytest.raises(ClientAuthenticationError):
        credential(kind).get_token(SCOPE)
    assert box.authority.endpoints == [DOORS[kind]]
    assert box.authority.issued == []


@each_door_once
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"lifetime": -1}, "The access token has expired"),
        ({"resource": "https://example.com"}, "valid audience claim"),
        ({"other_key": True}, "validating the access token"),
        ({"malformed": True}, "validating the access token"),
    ],
    ids=str,
)
def test_a_token_that_the_server_refuses(box, credential, kind, fault, said):
    for name, value in fault.items():
        setattr(box.authority, name, value)
    token = credential(kind).get_token(SCOPE).token
    assert (token == "not-a-token") == ("malformed" in fault)
    with pytest.raises(psycopg.OperationalError, match=said):
        sign_in(box, token, user="sandbox-app")
    assert box.authority.issued == [token]


@every_door
def test_a_short_life(box, credential, kind):
    box.authority.lifetime = 600
    token = credential(kind).get_token(SCOPE).token
    assert 590 < claims_of(token)["exp"] - time.time() <= 600


@each_door_once
def test_a_delay(box, credential, kind):
    box.authority.delay = 0.2
    began = time.monotonic()
    credential(kind).get_token(SCOPE)
    assert time.monotonic() - began >= 0.2


@each_door_once
def test_hanging(box, credential, kind):
    box.authority.hanging = True
    waiting = credential(kind)
    tokens = []
    thread = threading.Thread(target=lambda: tokens.append(waiting.get_token(SCOPE).token))
    thread.start()
    deadline = time.monotonic() + 10
    while not box.authority.endpoints and time.monotonic() < deadline:
        thread.join(0.01)
    thread.join(0.1)
    assert thread.is_alive()
    box.authority.hanging = False
    thread.join(10)
    assert box.authority.issued == tokens != []


@pytest.mark.parametrize("kind", ["managed-identity", "workload-identity", "client-secret"])
def test_throttling(box, credential, kind, monkeypatch):
    box.authority.throttled = 1
    with pytest.raises(ClientAuthenticationError):
        credential(kind).get_token(SCOPE)  # it is told not to try again
    monkeypatch.setitem(MSAL, "retry_total", 3)
    box.reset()
    box.authority.throttled = 1
    patient = credential(kind) if kind != "managed-identity" else ManagedIdentityCredential()
    with contextlib.closing(patient):
        assert sign_in(box, patient.get_token(SCOPE).token)
    assert box.authority.endpoints == [DOORS[kind]] * 2
    assert box.authority.throttled == 0


def test_throttling_says_for_how_long(box):
    who = {"client_id": box.service_principal.client_id, "grant_type": "client_credentials"}
    box.authority.throttled, box.authority.retry_after = 2, "17"
    status, document = post(box, "token", **who, scope=SCOPE)
    assert (status, document["error_codes"]) == (429, [90055])
    import requests

    endpoint = box.authority.app_service
    answer = requests.get(
        endpoint["IDENTITY_ENDPOINT"],
        {"resource": RESOURCE},
        headers={"X-IDENTITY-HEADER": endpoint["IDENTITY_HEADER"]},
        timeout=5,
    )
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "17")


@pytest.mark.parametrize("kind", ["workload-identity", "client-secret", "device-code"])
def test_refresh_in(box, credential, kind):
    assert credential(kind).get_token_info(SCOPE).refresh_on is None
    box.authority.refresh_in = 1234
    refresh_on = credential(kind).get_token_info(SCOPE).refresh_on
    assert refresh_on == pytest.approx(time.time() + 1234, abs=5)


# The programs


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("azure-cli", "az login"),
        ("azure-developer-cli", "azd auth login"),
        ("azure-powershell", "Connect-AzAccount"),
    ],
)
def test_nobody_is_signed_in(box, credential, kind, said):
    box.authority.signed_out = True
    with pytest.raises(CredentialUnavailableError, match=said):
        credential(kind).get_token(SCOPE)
    box.authority.signed_out = False
    assert sign_in(box, credential(kind).get_token(SCOPE).token) == "sandbox-app"


@pytest.mark.parametrize("kind", PROGRAMS)
def test_throttled_programs(box, credential, kind):
    box.authority.throttled = 1
    said = "Failed to invoke PowerShell" if kind == "azure-powershell" else "AADSTS90055"
    with pytest.raises(ClientAuthenticationError, match=said):
        credential(kind).get_token(SCOPE)
    assert sign_in(box, credential(kind).get_token(SCOPE).token) == "sandbox-app"


@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_tenant_of_a_program(box, credential, kind):
    credential(kind)  # for the environment
    make = type(credential(kind))
    assert make(tenant_id=box.authority.tenant).get_token(SCOPE).token
    with pytest.raises(ClientAuthenticationError):
        make(tenant_id="wrong").get_token(SCOPE)


def test_programs_speak_for_whoever_the_authority_does(box, credential, monkeypatch):
    az = credential("azure-cli")
    assert sign_in(box, az.get_token(SCOPE).token) == "sandbox-app"
    other = someone("user")
    box.create_role(other)  # the authority has not been told of it
    monkeypatch.setattr(box.authority, "identity", other)
    assert sign_in(box, az.get_token(SCOPE).token) == other.name


def run(box, *words, **environment):
    program = box.authority.programs() / words[0]
    return subprocess.run(
        [program, *words[1:]],
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_the_programs_print(box):
    done = run(box, "az", "account", "get-access-token", "--resource", RESOURCE)
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["accessToken"] == box.authority.issued[-1]
    local = datetime.strptime(document["expiresOn"], "%Y-%m-%d %H:%M:%S.%f")  # noqa: DTZ007
    assert local.timestamp() == document["expires_on"]
    done = run(box, "az", "account", "get-access-token", "--scope", SCOPE)
    assert json.loads(done.stdout)["tenant"] == box.authority.tenant
    document = json.loads(run(box, "azd", "auth", "token", "--scope", SCOPE).stdout)
    until = datetime.strptime(document["expiresOn"] + "+0000", "%Y-%m-%dT%H:%M:%SZ%z")
    assert until.timestamp() == claims_of(document["token"])["exp"]


@pytest.mark.parametrize("words", [("az", "login"), ("azd",), ("pwsh", "-EncodedCommand", "%")])
def test_programs_that_are_asked_for_more(box, words):
    done = run(box, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no more" in done.stderr
    assert box.authority.requests == []


# The gateway


@pytest.mark.parametrize(
    "name",
    [
        'o\'ther "quoted" role',
        " spaces  around ",
        "ada_x.com#EXT#@tenant.onmicrosoft.com",
        "Zoë 役割 🐘",
        "a" * 100,
        "x" * 62 + "éé",  # PostgreSQL cuts it before the é, not in its middle
        "役" * 40,
    ],
)
def test_names_pass_unharmed(box, name):
    identity = someone("user", f"{name}{uuid.uuid4() if len(name) < 20 else ''}")
    box.add(identity)
    kept = identity.name.encode()[:63].decode(errors="ignore")
    assert sign_in(box, box.issuer.token(identity), user=identity.name) == kept
    assert box.gateway.users == [identity.name]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        sign_in(box, box.issuer.token(someone("user")), user=identity.name)
    assert box.gateway.users == [identity.name] * 2


# As a whole


def test_secrets_are_not_shown(box):
    secret = box.directory.secret(box.service_principal)
    shown = repr((box, box.directory, box.authority, box.service_principal, box.identity))
    assert secret not in shown
    assert box.authority.app_service["IDENTITY_HEADER"] not in shown


def test_files_are_for_their_owner_alone(box):
    for path in (
        box.directory.federated_token_file(box.service_principal),
        box.directory.certificate(box.service_principal),
        box.authority.programs() / "az",
    ):
        assert path.stat().st_mode & 0o077 == 0


def test_a_directory_of_another_cluster(tmp_path):
    identity = someone()
    token = Directory(tmp_path).federated_token(identity)
    with pytest.raises(EntraError, match="AADSTS700027"):
        proofs.check_federated(token, Directory(tmp_path).cluster_key, subject(identity))


def test_a_group_is_who_signs_in_and_nothing_is_left(monkeypatch):
    before = set(threading.enumerate())
    with Sandbox(identity=Identity("everybody", kind="group")) as box:
        environment = box.environment
        assert environment["AZPG_DATABASE_USER"] == "everybody"
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with contextlib.closing(ManagedIdentityCredential()) as managed:
            assert sign_in(box, managed.get_token(SCOPE).token) == "everybody"
        port = int(box.authority.url.rpartition(":")[2])
        folder = Path(box.environment_for("azure-cli")["PATH"].split(os.pathsep)[0])
        silent = socket.create_connection(("127.0.0.1", port))
    with silent:
        assert silent.recv(1) == b""
    assert not folder.exists()
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_the_command_line(tmp_path):
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    words = (
        "--credential",
        "azure-cli",
        "--identity",
        "group",
        "--",
        sys.executable,
        "-c",
        program,
    )
    done = subprocess.run(
        [sys.executable, "-m", "azpgauth", "sandbox", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    environment = json.loads(done.stdout)
    assert environment["AZPG_CREDENTIAL_KIND"] == "azure-cli"
    assert environment["AZPG_DATABASE_USER"] == "sandbox-group"
    assert Path(environment["PATH"].split(os.pathsep)[0]).parent.name == "programs"


def test_the_command_line_knows_what_cannot_be(tmp_path):
    words = ("--credential", "client-secret", "--identity", "user", "--", "true")
    done = subprocess.run(
        [sys.executable, "-m", "azpgauth", "sandbox", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: ada@sandbox.example is not an application: it has no credential client-secret\n"
    )


@pytest.mark.parametrize("fault", ["errors", "expired", "garbage", "hanging"])
def test_twenty_who_ask_again_and_again_make_no_storm(box, monkeypatch, fault):
    monkeypatch.setenv("AZPG_DATABASE_USER", "sandbox-app")
    monkeypatch.setenv("AZPG_POOL_TIMEOUT", "1")
    if fault == "errors":
        box.authority.status = 400
    elif fault == "expired":
        box.authority.lifetime = 20
    elif fault == "garbage":
        box.authority.malformed = True
    else:
        box.authority.hanging = True
    begin = time.monotonic()

    def call(_):
        refused = 0
        while time.monotonic() < begin + 1.5:
            with pytest.raises(AzpgauthError):
                connection_from_env()
            refused += 1
        return refused

    with ThreadPoolExecutor(20) as threads:
        refused = sum(threads.map(call, range(20)))
    asked = len(box.authority.requests)
    # After n requests that brought nothing, at least (2 ** n - 1) / 2 seconds have passed.
    assert asked <= 1 + math.log2(1 + 2 * (time.monotonic() - begin))
    assert refused >= 20


def test_tokens_that_are_over_in_a_moment_make_no_storm(box, monkeypatch):
    monkeypatch.setenv("AZPG_DATABASE_USER", "sandbox-app")
    box.authority.lifetime = MARGIN + 1  # of which a fraction of a second is left when it comes
    begin = time.monotonic()

    def call(_):
        while time.monotonic() < begin + 1.5:
            with contextlib.suppress(AzpgauthError):
                connection_from_env().close()

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(call, range(20)))
    # What may be used for half a second or more is renewed after half of that.
    assert len(box.authority.requests) <= 2 + 4 * (time.monotonic() - begin)


def test_what_failed_while_the_driver_was_imported_is_not_asked_again(box):
    box.authority.status = 400
    with pytest.raises(TokenError):
        connection_from_env()
    assert len(box.authority.requests) == 1


def test_forgetting_ends_a_pause(box):
    box.authority.status = 400
    for expected in (1, 2, 3, 4):  # the pauses would be longer and longer
        with pytest.raises(TokenError):
            connection_from_env()
        assert len(box.authority.requests) == expected
        forget()


@pytest.mark.parametrize("kind", ["managed-identity", "client-secret"])
def test_an_idle_pool_whose_authority_hangs_has_two_threads_at_most(box, monkeypatch, caplog, kind):
    for name, value in box.environment_for(kind).items():
        monkeypatch.setenv(name, value)

    def eventually(condition):
        until = time.monotonic() + 20
        while not condition():
            waiting = [each for each in threading.enumerate() if each.name == "azpgauth-token"]
            assert len(waiting) <= 2
            assert time.monotonic() < until
            time.sleep(0.01)

    box.authority.lifetime = 290  # azure-identity's own cache does not answer any more
    with connect_from_env() as pool:
        source = _logins[pool].source
        box.authority.hanging = True
        source._patience = 0.1
        source._token = replace(source._token, refresh_on=0.0, fetched_at=0.0)
        source._changed()  # as the clock does, an hour later
        eventually(lambda: source._failures == 2)
        asked = len(box.authority.requests)
        for _ in range(3):  # the refresher looks again and again
            source._changed()
            eventually(lambda: not source._refresher._wake.is_set())
        info = token_info(pool)
        assert (info.requests, info.failures) == (3, 2)
        assert "no answer within 0.1 s" in info.last_error
        assert caplog.text.count("no answer within 0.1 s") == 2
        assert len(box.authority.requests) == asked <= 3
        with pool.connection() as conn:
            assert conn.execute("select 1").fetchone() == (1,)
        box.authority.hanging = False
        eventually(lambda: token_info(pool).last_error is None)
        assert token_info(pool).failures == 2
        eventually(lambda: not source._asking)
