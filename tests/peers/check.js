// Checks what the router sent with libraries that are not the router's: `node check.js KIND`, with a JSON
// object as input. Prints what it found, in JSON, or ends with an error.

"use strict";

const assert = require("node:assert");
const crypto = require("node:crypto");

const kinds = {
  // A Vonage delivery, as the provider's sample of a consumer reads it.
  jwt({ secret, headers, body }) {
    const jwt = require("jsonwebtoken");
    const key = Buffer.from(secret, "base64");
    const claims = jwt.verify(headers["vonage-signature"], key, { algorithms: ["HS256"] });
    const hash = crypto.createHash("sha256").update(body).digest();
    assert.ok(crypto.timingSafeEqual(Buffer.from(claims.payload_hash, "hex"), hash));
    return claims;
  },

  // A Copernica delivery.
  "http-signature"({ path, headers, key, body }) {
    const httpSignature = require("http-signature");
    const signed = ["(request-target)", "host", "date", "x-copernica-id", "digest", "x-nonce"];
    const request = { method: "POST", url: path, httpVersion: "1.1", headers };
    const parsed = httpSignature.parseRequest(request, { headers: signed, clockSkew: 60 });
    const spki = Buffer.from(key, "base64");
    const pem = crypto
      .createPublicKey({ key: spki, format: "der", type: "spki" })
      .export({ format: "pem", type: "spki" });
    assert.ok(httpSignature.verifySignature(parsed, pem), "the signature is wrong");
    const [algorithm, digest] = headers.digest.split(/=(.*)/);
    const hash = crypto.createHash("sha256").update(body).digest("base64");
    assert.deepStrictEqual([algorithm, digest], ["sha-256", hash]);
    return { keyId: parsed.keyId, algorithm: parsed.algorithm };
  },

  // What the guide on adding a format signs with.
  "hub-signature"({ secret, headers, body }) {
    const expected = crypto.createHmac("sha256", secret).update(body).digest("hex");
    assert.strictEqual(headers["x-hub-signature-256"], `sha256=${expected}`);
    return true;
  },

  "standard-webhooks"({ secret, headers, body }) {
    const { Webhook } = require("standardwebhooks");
    return new Webhook(secret).verify(body, headers);
  },

  // An event, as the JavaScript SDK sends it. A batch of its events is written as JSON writes an array.
  async "cloudevents-publish"({ url, token, mode, attributes, data, data_base64 }) {
    const { CONSTANTS, CloudEvent, HTTP } = require("cloudevents");
    const bytes = data_base64 && new Uint8Array(Buffer.from(data_base64, "base64"));
    const event = new CloudEvent({ ...attributes, data: bytes ?? data });
    const batch = () => ({
      headers: { "content-type": CONSTANTS.MIME_CE_BATCH },
      body: JSON.stringify([event]),
    });
    const { headers, body } = mode === "batch" ? batch() : HTTP[mode](event);
    const authorization = `Bearer ${token}`;
    const answer = await fetch(url, { method: "POST", headers: { ...headers, authorization }, body });
    return { status: answer.status, body: await answer.json() };
  },

  // The event as the SDK reads it, and then writes it.
  "cloudevents-receive"({ headers, body }) {
    const { HTTP } = require("cloudevents");
    return HTTP.toEvent({ headers, body });
  },

  // Answers of Kajabi's API.
  "json-api"({ documents }) {
    const { Validator } = require("jsonapi-validator");
    const validator = new Validator();
    documents.forEach((document) => validator.validate(document));
    return documents.length;
  },

  // A plain client of Vision6's API.
  async "json-rpc"({ url, calls }) {
    const jayson = require("jayson/promise");
    const client = jayson.Client.http({ ...parts(url), version: 1 });
    const answers = [];
    for (const [method, ...params] of calls) {
      answers.push(await client.request(method, params));
    }
    return answers;
  },
};

function parts(url) {
  const { hostname, port, pathname } = new URL(url);
  return { hostname, port, path: pathname };
}

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const found = await kinds[process.argv[2]](JSON.parse(Buffer.concat(chunks)));
  process.stdout.write(JSON.stringify(found));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
