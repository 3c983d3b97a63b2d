//! `GET /v1/deliveries/export`: the delivery log, line by line. What is read of the store is one line, and
//! the next one only when the reader wants it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hookyard_nouns::delivery::Delivery;
use hookyard_nouns::event::Tenant;
use hookyard_nouns::refusal::Refusal;
use http::header;
use serde_json::json;
use uuid::Uuid;

use super::auth::Caller;
use super::deliveries::{search, whole};
use super::exchange::Exchange;
use super::lines::{self, Lines};
use super::problem::Problem;
use super::view::EventText;
use super::{Api, tenant, work_if_large};
use crate::store::{self, DeliveryQuery, Page, StoreError};

/// How many deliveries are looked for at a time. What belongs to each is read with its line.
const PART: usize = 50;

/// Everything that a search finds, with the attempts and the event, as a JSON object on each line (NDJSON).
pub(super) async fn export(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Extension(exchange): Extension<Arc<Exchange>>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    caller.require("deliveries:read")?;
    let tenant = tenant(&api, &caller, &query).await?;
    let search = DeliveryQuery { limit: PART, ..search(&query)? };
    exchange.stream(&caller)?;
    // What is wrong is told before there is an answer.
    let first = api.app.store.deliveries(&tenant, search.clone()).await?;
    let body = lines::read(|lines| Export { api, tenant, search, lines }.run(first));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

struct Export {
    api: Arc<Api>,
    tenant: Tenant,
    search: DeliveryQuery,
    lines: Lines,
}

impl Export {
    async fn run(mut self, mut page: Page) -> store::Result<()> {
        loop {
            for it in &page.deliveries {
                self.line(it).await?;
            }
            if page.next.is_none() {
                return Ok(());
            }
            self.search.after = page.next;
            page = self.api.app.store.deliveries(&self.tenant, self.search.clone()).await?;
        }
    }

    async fn line(&self, it: &Delivery) -> store::Result<()> {
        let (store, tenant) = (&self.api.app.store, &self.tenant);
        let (it, attempts) = match store.delivery(tenant, it.id).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(err) => return self.send(broken(it.id, err)? + "\n").await,
        };
        let answers: usize = attempts.iter().map(|it| it.answer.len()).sum();
        let (event, body) = (it.event_id, whole(&self.api, tenant, it, attempts).await?);
        let text = move || body.show().to_string();
        let text = work_if_large(&self.api, Some(tenant.clone()), answers, text).await;
        // Whoever reads this can try again, as when the store cannot be read.
        let mut text = text.map_err(|refusal| StoreError::Unavailable(refusal.to_string()))?;
        // The event comes as one more member, without being a part of the text.
        text.truncate(text.len() - 1);
        text.push_str(",\"event\":");
        self.lines.send(text.into()).await;
        match store.event(tenant, event).await {
            Ok(Some(event)) => {
                for piece in EventText::on_one_line(event) {
                    self.lines.send(piece).await;
                }
            }
            Ok(None) => self.send(json!({"id": event}).to_string()).await?,
            Err(err) => self.send(broken(event, err)?).await?,
        }
        self.lines.send(Bytes::from_static(b"}\n")).await;
        Ok(())
    }

    async fn send(&self, text: String) -> store::Result<()> {
        self.lines.send(text.into()).await;
        Ok(())
    }
}

/// What is told instead of something that is damaged in the store, where nothing but that has failed: the others
/// are exported all the same.
fn broken(id: Uuid, err: StoreError) -> store::Result<String> {
    match err {
        StoreError::Broken(_) => {
            Ok(json!({"id": id, "error": Refusal::from(err).to_string()}).to_string())
        }
        _ => Err(err),
    }
}
