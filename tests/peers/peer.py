"""Clients and receivers written in Python: `python peer.py KIND`, with a JSON object as input.

Each does what it is named after with a library that is not the router's, and prints what came of it, in JSON, or
ends with an error.
"""

import base64
import hashlib
import json
import sys


def cloudevents_publish(url, token, mode, attributes, data=None, data_base64=None):
    import requests
    from cloudevents.core.bindings import http
    from cloudevents.core.v1.event import CloudEvent
    from dateutil.parser import isoparse

    if data_base64 is not None:
        data = base64.b64decode(data_base64)
    event = CloudEvent({**attributes, "time": isoparse(attributes["time"])}, data)
    write = {"binary": http.to_binary_event, "structured": http.to_structured_event}[mode]
    message = write(event)
    headers = {**message.headers, "authorization": f"Bearer {token}"}
    answer = requests.post(url, headers=headers, data=message.body)
    return {"status": answer.status_code, "body": answer.json()}


def cloudevents_receive(headers, body, **_):
    """The event as the SDK reads it, and then writes it."""
    from cloudevents.core.bindings import http

    event = http.from_http_event(http.HTTPMessage(headers, body.encode()))
    return json.loads(http.to_structured_event(event).body)


def standard_webhooks(secret, headers, body, **_):
    from standardwebhooks import Webhook

    return Webhook(secret).verify(body, headers)


def svix(secret, headers, body, **_):
    from svix.webhooks import Webhook

    return Webhook(secret).verify(body, headers)


def jwt(secret, headers, body, **_):
    """A Vonage delivery."""
    import jwt

    key = base64.b64decode(secret, validate=True)
    required = {"require": ["iat", "exp", "payload_hash"]}
    claims = jwt.decode(headers["vonage-signature"], key, algorithms=["HS256"], options=required)
    assert claims["payload_hash"] == hashlib.sha256(body.encode()).hexdigest()
    return claims


def http_signature(path, headers, key, body):
    """A Copernica delivery."""
    import httpsig

    signed = ["(request-target)", "host", "date", "x-copernica-id", "digest", "x-nonce"]
    verifier = httpsig.HeaderVerifier(
        headers, base64.b64decode(key), signed, method="POST", path=path, sign_header="signature"
    )
    assert verifier.verify(), "the signature is wrong"
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    assert headers["digest"] == f"sha-256={digest}"
    return {"keyId": verifier.auth_dict["keyid"], "algorithm": verifier.auth_dict["algorithm"]}


def copernica_record(record):
    """The key in a TXT record, by the rule of the provider's verifier: nothing is trimmed."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    parts = dict(part.split("=", 1) for part in record.split(";"))
    assert (parts["v"], parts["k"]) == ("DKIM1", "rsa"), parts
    key = load_der_public_key(base64.b64decode(parts["p"], validate=True))
    assert isinstance(key, RSAPublicKey)
    return parts["p"]


def json_rpc_jsonrpcclient(url, calls):
    import requests
    from jsonrpcclient import Ok, parse, request

    answers = []
    for method, *params in calls:
        answer = requests.post(url, json=request(method, params))
        found = parse(answer.json())
        answers.append(
            {"result": found.result}
            if isinstance(found, Ok)
            else {"error": {"code": found.code, "message": found.message}}
        )
    return answers


def json_rpc_jsonrpclib(url, calls):
    from jsonrpclib import ServerProxy
    from jsonrpclib.jsonrpc import AppError

    server = ServerProxy(url)
    answers = []
    for method, *params in calls:
        try:
            answers.append({"result": getattr(server, method)(*params)})
        except AppError as error:
            code, message, _ = error.args[0]
            answers.append({"error": {"code": code, "message": message}})
    return answers


def json_api(url, token):
    """The ids of all of Kajabi's hooks, two a page."""
    from jsonapi_client import Modifier, Session

    headers = {"accept": "application/vnd.api+json", "authorization": f"Bearer {token}"}
    session = Session(url, request_kwargs={"headers": headers})
    return [hook.id for hook in session.iterate("hooks", Modifier("page[size]=2"))]


def oauth(token_url, client_id, client_secret, scope, call_url, accept):
    from authlib.integrations.requests_client import OAuth2Session

    session = OAuth2Session(client_id, client_secret, scope=scope)
    token = session.fetch_token(token_url, grant_type="client_credentials")
    answer = session.get(call_url, headers={"accept": accept})
    return {"token": token, "status": answer.status_code, "body": answer.json()}


KINDS = {
    "cloudevents-publish": cloudevents_publish,
    "cloudevents-receive": cloudevents_receive,
    "standard-webhooks": standard_webhooks,
    "svix": svix,
    "jwt": jwt,
    "http-signature": http_signature,
    "copernica-record": copernica_record,
    "json-rpc-jsonrpcclient": json_rpc_jsonrpcclient,
    "json-rpc-jsonrpclib": json_rpc_jsonrpclib,
    "json-api": json_api,
    "oauth": oauth,
}

print(json.dumps(KINDS[sys.argv[1]](**json.load(sys.stdin))))
