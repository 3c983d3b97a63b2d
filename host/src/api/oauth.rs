//! Token endpoints of the providers, so that their clients can log in: OAuth 2.0 (RFC 6749) with the
//! client credentials grant, where the client is one of our tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hookyard_nouns::clock;
use hookyard_nouns::event::essence;
use hookyard_nouns::json::without_mark;
use hookyard_nouns::refusal::Refusal;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::exchange::Incoming;
use super::{Api, answer, hash_token, new_token};
use crate::formats::Login;
use crate::store::{StoreError, Token};

/// How large the body of a caller is who only wants to log in.
const BODY_BYTES_MAX: usize = 16 << 10;
/// How many scopes a token has that is given out.
const SCOPES_MAX: usize = 100;
/// How long a refresh token can be used.
const REFRESH_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// In front of each scope of a refresh token, which is good for nothing else.
const REFRESHES: &str = "refreshes:";

/// Why there is no token (RFC 6749, section 5.2).
struct Refused {
    status: StatusCode,
    error: &'static str,
    description: &'static str,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error, "error_description": self.description});
        let mut response = answer(self.status, &body);
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"Hookyard\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

const BAD_CLIENT: Refused = Refused {
    status: StatusCode::UNAUTHORIZED,
    error: "invalid_client",
    description: "`client_id` must be the id of a token, and `client_secret` the token",
};

fn bad_request(error: &'static str, description: &'static str) -> Refused {
    Refused { status: StatusCode::BAD_REQUEST, error, description }
}

const UNAVAILABLE: Refused = Refused {
    status: StatusCode::SERVICE_UNAVAILABLE,
    error: "temporarily_unavailable",
    description: "the store is not available, or too much is going on; try again",
};

const TOO_MANY: Refused = Refused {
    status: StatusCode::TOO_MANY_REQUESTS,
    error: "temporarily_unavailable",
    description: "the account has as many tokens as it may have (`tokens-max`); use one until it ends, or revoke some",
};

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        match error {
            StoreError::Quota(_) => TOO_MANY,
            _ => UNAVAILABLE,
        }
    }
}

pub(super) fn mount(mut router: Router<Arc<Api>>, api: &Arc<Api>) -> Router<Arc<Api>> {
    for format in api.app.formats.iter() {
        let Some(login) = format.api().and_then(|it| it.login()) else { continue };
        let name = format.name();
        let mut add = |path: &str, what: What| {
            let handler = async move |axum::extract::State(api): axum::extract::State<Arc<Api>>,
                                      method: Method,
                                      incoming: Incoming| {
                respond(&api, what, &method, incoming).await
            };
            router = std::mem::take(&mut router)
                .route(&format!("/{name}{path}"), any(handler))
                .route(&format!("/{name}{path}/"), any(handler));
        };
        match login {
            Login::OAuth { token, revoke, expires_s, refresh } => {
                token.iter().for_each(|path| add(path, What::Token { expires_s, refresh }));
                revoke.iter().for_each(|path| add(path, What::Revoke));
            }
            Login::Exchange { path, expires_s } => add(path, What::Exchange { expires_s }),
        }
    }
    router
}

#[derive(Clone, Copy)]
enum What {
    Token { expires_s: u32, refresh: bool },
    Revoke,
    Exchange { expires_s: u32 },
}

async fn respond(api: &Api, what: What, method: &Method, mut incoming: Incoming) -> Response {
    if method != Method::POST {
        let mut response = answer(
            StatusCode::METHOD_NOT_ALLOWED,
            &json!({"error": "invalid_request", "error_description": "use POST"}),
        );
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let done = async {
        let form = Form::read(api, &mut incoming).await?;
        let headers = &incoming.headers;
        match what {
            What::Token { expires_s, refresh } => {
                token(api, headers, &form, expires_s, refresh).await
            }
            What::Revoke => revoke(api, headers, &form).await,
            What::Exchange { expires_s } => exchange(api, &form, expires_s).await,
        }
    };
    let mut response = done.await.unwrap_or_else(IntoResponse::into_response);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The parameters of a request.
struct Form(Vec<(String, String)>);

impl Form {
    async fn read(api: &Api, incoming: &mut Incoming) -> Result<Form, Refused> {
        let invalid = |description| bad_request("invalid_request", description);
        incoming.exchange.check_host().map_err(|_| invalid("`Host` must be there once"))?;
        let media_type = incoming.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
        if media_type.is_none_or(|it| essence(it) != "application/x-www-form-urlencoded") {
            let wanted = "the body must be `application/x-www-form-urlencoded`";
            return Err(bad_request("invalid_request", wanted));
        }
        let bytes_max = api.app.settings.body_bytes_max.min(BODY_BYTES_MAX);
        let body = incoming.read(bytes_max).await.map_err(|refusal| match refusal {
            Refusal::TooLarge { .. } => invalid("the body is larger than 16384 bytes"),
            Refusal::Encoded => invalid("the body must be without `Content-Encoding`"),
            Refusal::TooSlow => {
                Refused { status: refusal.status(), ..invalid("the body came too slowly") }
            }
            Refusal::Unavailable(_) => UNAVAILABLE,
            _ => invalid("the body cannot be read"),
        })?;
        let form = Form(form_urlencoded::parse(&without_mark(&body)).into_owned().collect());
        let names: BTreeSet<_> = form.0.iter().map(|(name, _)| name).collect();
        // RFC 6749, section 3.2.
        if names.len() < form.0.len() {
            return Err(bad_request("invalid_request", "a parameter is there more than once"));
        }
        Ok(form)
    }

    /// A parameter, which counts as absent when it is empty (RFC 6749, section 3.2).
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

async fn token(
    api: &Api,
    headers: &HeaderMap,
    form: &Form,
    expires_s: u32,
    refresh: bool,
) -> Result<Response, Refused> {
    let (parent, granted) = match form.get("grant_type") {
        Some("client_credentials") => {
            let client = client(api, headers, form).await?;
            let granted = client.scopes.clone();
            (client, granted)
        }
        Some("refresh_token") if refresh => refreshed(api, headers, form).await?,
        // Vonage says this of one that is missing as well.
        Some(_) | None => {
            let supported = if refresh {
                "`grant_type` must be `client_credentials` or `refresh_token`"
            } else {
                "`grant_type` must be `client_credentials`"
            };
            return Err(bad_request("unsupported_grant_type", supported));
        }
    };
    let scopes = asked_of(&granted, form)?;
    let access = give(api, &parent, scopes.clone(), i64::from(expires_s)).await?;
    let mut body = json!({
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": expires_s,
        "scope": scopes.join(" "),
    });
    if refresh {
        // What it renews is kept in a form that is a scope of nothing.
        let kept = scopes.iter().map(|it| format!("{REFRESHES}{it}")).collect();
        body["refresh_token"] = give(api, &parent, kept, REFRESH_MS / 1_000).await?.into();
    }
    Ok(answer(StatusCode::OK, &body))
}

/// The client that a refresh token was given to, and the scopes that it renews. It is good once.
async fn refreshed(
    api: &Api,
    headers: &HeaderMap,
    form: &Form,
) -> Result<(Token, Vec<String>), Refused> {
    let gone = || bad_request("invalid_grant", "the refresh token is unknown or has ended");
    let missing = || bad_request("invalid_request", "`refresh_token` is missing");
    let used = valid(api, form.get("refresh_token").ok_or_else(missing)?).await?;
    let used = used.ok_or_else(gone)?;
    let renews = |it: &String| it.strip_prefix(REFRESHES).map(str::to_owned);
    let granted: Option<Vec<String>> = used.scopes.iter().map(renews).collect();
    let granted = granted.filter(|it| !it.is_empty()).ok_or_else(gone)?;
    if is_named(headers, form) && Some(client(api, headers, form).await?.id) != used.parent {
        return Err(gone());
    }
    // Of two at the same time, one is the first.
    match api.app.store.revoke_token(used.id, clock::now_ms()).await {
        Err(StoreError::NotFound) => return Err(gone()),
        result => result?,
    }
    let parent = api.app.store.token_by_id(used.parent.ok_or_else(gone)?).await?;
    let parent = parent.filter(is_good).ok_or_else(gone)?;
    Ok((parent, granted))
}

/// The scopes that are asked for, where they are granted. Some providers have clients write other
/// things there, such as an account: a word without a colon that is no scope of the client's says nothing.
fn asked_of(granted: &[String], form: &Form) -> Result<Vec<String>, Refused> {
    let has = |scope: &str| granted.iter().any(|it| it == scope || it == "admin");
    let asked = form.get("scope").unwrap_or_default().split_whitespace();
    let asked: Vec<&str> = asked.filter(|it| it.contains(':') || has(it)).collect();
    if !asked.iter().all(|it| has(it)) {
        return Err(bad_request("invalid_scope", "the client does not have all of these scopes"));
    }
    let is_plain_admin =
        granted.iter().any(|it| it == "admin") && asked.iter().all(|it| !it.contains(':'));
    if asked.is_empty() || is_plain_admin {
        return Ok(granted.to_vec());
    }
    // Each once, however often it is asked for: they are looked through at each call.
    let mut seen = BTreeSet::new();
    let once: Vec<_> = asked.into_iter().filter(|it| seen.insert(*it)).collect();
    if once.len() > SCOPES_MAX {
        return Err(bad_request("invalid_scope", "a token has at most 100 scopes"));
    }
    Ok(once.into_iter().map(str::to_owned).collect())
}

/// Makes a token for the bearer of another one.
async fn give(
    api: &Api,
    parent: &Token,
    scopes: Vec<String>,
    seconds: i64,
) -> Result<String, Refused> {
    let (mut token, text) = new_token(parent.tenant.clone(), scopes, None);
    let until_ms = token.created_at_ms + seconds * 1_000;
    token.expires_at_ms = Some(parent.expires_at_ms.map_or(until_ms, |end| end.min(until_ms)));
    token.parent = Some(parent.id);
    api.app.store.create_token(token).await?;
    Ok(text)
}

/// RFC 7009: what is unknown is as good as revoked.
async fn revoke(api: &Api, headers: &HeaderMap, form: &Form) -> Result<Response, Refused> {
    let Some(given) = form.get("token") else {
        return Err(bad_request("invalid_request", "`token` is missing"));
    };
    let found = valid(api, given).await?;
    // Whoever has the token may end it; a client that says who it is must be the token's.
    let owner =
        if is_named(headers, form) { Some(client(api, headers, form).await?) } else { None };
    if let Some(token) = found.filter(|it| it.parent.is_some())
        && owner.is_none_or(|owner| token.parent == Some(owner.id))
    {
        match api.app.store.revoke_token(token.id, clock::now_ms()).await {
            Ok(()) | Err(StoreError::NotFound) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(answer(StatusCode::OK, &Value::Object(serde_json::Map::new())))
}

/// Copernica: "access_token" for a token of a day, which is the text of the answer (its shape is ours).
async fn exchange(api: &Api, form: &Form, expires_s: u32) -> Result<Response, Refused> {
    let given = form.get("access_token").unwrap_or_default();
    let Some(parent) = valid(api, given).await?.filter(|it| it.parent.is_none()) else {
        return Err(Refused { description: "`access_token` must be a token", ..BAD_CLIENT });
    };
    let text = give(api, &parent, parent.scopes.clone(), i64::from(expires_s)).await?;
    Ok((StatusCode::OK, text).into_response())
}

/// The token that a client is: by HTTP Basic, or by the form (RFC 6749, section 2.3.1).
async fn client(api: &Api, headers: &HeaderMap, form: &Form) -> Result<Token, Refused> {
    let basic = basic(headers).and_then(|text| {
        let text = BASE64_STANDARD.decode(text.trim()).ok()?;
        let text = String::from_utf8(text).ok()?;
        let (id, secret) = text.split_once(':')?;
        let decoded = |text: &str| {
            let pair = format!("x={text}");
            form_urlencoded::parse(pair.as_bytes()).next().map(|(_, it)| it.into_owned())
        };
        Some((decoded(id)?, decoded(secret)?))
    });
    let given = |name| form.get(name).unwrap_or_default().to_owned();
    let (id, secret) = basic.unwrap_or_else(|| (given("client_id"), given("client_secret")));
    let found = valid(api, &secret).await?;
    found.filter(|it| it.parent.is_none() && it.id.to_string() == id).ok_or(BAD_CLIENT)
}

/// Whether a call says which client it is from.
fn is_named(headers: &HeaderMap, form: &Form) -> bool {
    form.get("client_id").is_some() || basic(headers).is_some()
}

fn basic(headers: &HeaderMap) -> Option<&str> {
    let (scheme, text) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then_some(text)
}

/// A token by its text, if it is good now.
async fn valid(api: &Api, text: &str) -> Result<Option<Token>, Refused> {
    Ok(api.app.store.token(hash_token(text)).await?.filter(is_good))
}

fn is_good(it: &Token) -> bool {
    let now_ms = clock::now_ms();
    it.revoked_at_ms.is_none() && it.expires_at_ms.is_none_or(|until| now_ms < until)
}
