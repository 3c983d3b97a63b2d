//! `POST /v1/plugins/{name}/versions`: a file becomes the current version of a plugin.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Path, Query, State};
use axum::response::Response;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Violation, essence};
use hookyard_nouns::refusal::Refusal;
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::auth::Caller;
use super::exchange::Incoming;
use super::plugins::{CONTENT_DIGEST, document, if_match, name, owner, refused};
use super::problem::Problem;
use super::{Api, answer, work};
use crate::fair::Busy;
use crate::manage::plugins::{File, upload as make};

/// How long a file may take to come: while it does, it has one of few places.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many fields of a form may come before the one with the file.
const FIELDS_MAX: usize = 16;
const MEDIA_TYPES: &str = "`application/wasm`, `text/javascript` for a script, or a form \
     (`multipart/form-data`) with one of them in its field `file`";

/// `POST /v1/plugins/{name}/versions`: the body is the file, WebAssembly or a script. It becomes the current version.
pub(super) async fn upload(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plugin): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    mut incoming: Incoming,
) -> Result<Response, Problem> {
    caller.require("plugins:write")?;
    let owner = owner(&api, &caller, &query).await?;
    let plugin = name(plugin)?;
    let headers = incoming.headers.clone();
    let expected = if_match(&headers)?;
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let is_form = media_type.is_some_and(|it| essence(it) == "multipart/form-data");
    let kind = if is_form { None } else { Some(kind(media_type)?) };
    let _upload = api.app.uploads.begin(&owner).map_err(busy)?;
    let body = incoming.read(api.app.settings.plugin_upload_bytes_max);
    let body = timeout(PATIENCE, body).await.map_err(|_| {
        let detail = format!("the body did not come within {} s", PATIENCE.as_secs());
        Refusal::Malformed(detail)
    })?;
    let body = body.map_err(too_large)?;
    let (kind, file) = {
        let owner = owner.clone();
        let runtime = Handle::current();
        let check = move || {
            let (kind, file) = match kind {
                Some(kind) => (kind, body),
                None => runtime.block_on(file_of_form(headers.clone(), body))?,
            };
            check_digest(&headers, &file)?;
            Ok::<_, Problem>((kind, file))
        };
        work(&api, owner, check).await??
    };
    let file = kind(file);
    let (version, uploaded) =
        make(&api.app, owner.as_ref(), &plugin, file, expected).await.map_err(refused)?;
    let mut body = document(&version);
    body["imports"] = json!(uploaded.imports);
    body["compile_ms"] = json!(millis(uploaded.compile_time.as_secs_f64() * 1e3));
    body["empty_run_us"] = json!(millis(uploaded.empty_run_time.as_secs_f64() * 1e6));
    Ok(answer(StatusCode::CREATED, &body))
}

fn too_large(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::TooLarge { bytes_max } => {
            let detail = format!(
                "the file is larger than {bytes_max} bytes; strip its debug information (`wasm-tools strip`, \
                 `strip = true` in a profile of Cargo), which is often most of a file, or ask the operator for \
                 more (`plugin-upload-bytes-max`)"
            );
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
        }
        other => other.into(),
    }
}

fn busy(busy: Busy) -> Problem {
    match busy {
        Busy::Own => {
            let detail = "you have several uploads under way; wait until one of them has ended";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-uploads", detail).with_retry()
        }
        Busy::All => {
            Refusal::Unavailable("too many plugins are being uploaded; try again".to_owned()).into()
        }
    }
}

fn kind(media_type: Option<&str>) -> Result<fn(Bytes) -> File, Refusal> {
    match &*essence(media_type.unwrap_or_default()) {
        "application/wasm" | "application/octet-stream" => Ok(File::Wasm),
        "text/javascript" | "application/javascript" => Ok(File::Script),
        _ => Err(Refusal::WrongMediaType(MEDIA_TYPES)),
    }
}

/// The field `file` of a form, as browsers and `curl --form` send it.
async fn file_of_form(
    headers: HeaderMap,
    body: Bytes,
) -> Result<(fn(Bytes) -> File, Bytes), Refusal> {
    let wrong =
        |it: &dyn std::fmt::Display| Refusal::Malformed(format!("the form is broken: {it}"));
    let mut request = Request::new(Body::from(body));
    *request.headers_mut() = headers;
    // The size has been checked; axum has a limit of its own, which is less.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|err| wrong(&err))?;
    let mut others = 0;
    while let Some(field) = form.next_field().await.map_err(|err| wrong(&err))? {
        if field.name() == Some("file") {
            let kind = kind(field.content_type())?;
            return Ok((kind, field.bytes().await.map_err(|err| wrong(&err))?));
        }
        others += 1;
        if others > FIELDS_MAX {
            let detail = format!("must be one of the first {FIELDS_MAX} fields of the form");
            return Err(Refusal::Invalid(vec![Violation::new("file", detail)]));
        }
    }
    let detail = "is missing: a form has the plugin in its field `file`";
    Err(Refusal::Invalid(vec![Violation::new("file", detail)]))
}

/// One digit behind the point is as much as such a figure is worth.
fn millis(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// What the sender says that the file is (RFC 9530, section 2).
fn check_digest(headers: &HeaderMap, file: &[u8]) -> Result<(), Problem> {
    let Some(value) = headers.get(CONTENT_DIGEST) else { return Ok(()) };
    let expected = format!("sha-256=:{}:", BASE64_STANDARD.encode(Digest::of(file).0));
    if value.to_str().is_ok_and(|it| it.split(',').any(|it| it.trim() == expected)) {
        return Ok(());
    }
    let detail = "is not the SHA-256 of the body; the file may have been changed on its way";
    let violation = Violation::new("Content-Digest", detail);
    Err(Problem::invalid("the file is not what it should be", vec![violation]))
}
