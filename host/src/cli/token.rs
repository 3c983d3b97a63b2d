//! `hookyard token create|list|revoke`

use anyhow::Context;
use clap::Subcommand;
use hookyard_nouns::clock;
use hookyard_nouns::event::Tenant;
use serde_json::json;
use uuid::Uuid;

use super::print::say;
use super::shared_store;
use crate::api::{new_hex_token, new_token};
use crate::config::Given;
use crate::store::{Sqlite, Store, StoreError};

/// What a token may be good for.
const SCOPES: [&str; 16] = [
    "events:write",
    "subscriptions:read",
    "subscriptions:write",
    "plugins:read",
    "plugins:write",
    "deliveries:read",
    "deliveries:write",
    "admin",
    // Of Kajabi's API.
    "view:purchases",
    "view:transactions",
    "view:orders",
    "view:form_submissions",
    "view:contacts",
    // Of Vonage Contact Center's.
    "admin:read",
    "admin:write",
    // Of Vision6's.
    "full_access",
];

#[derive(Debug, clap::Args)]
pub(super) struct Tokens {
    /// Where everything is kept: `sqlite:PATH`, the same as the router's
    #[arg(long, value_name = "URL", env = "HOOKYARD_STORE", global = true)]
    store: Option<String>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token, and show it this once
    ///
    /// The scopes are events:write, subscriptions:read, subscriptions:write, plugins:read,
    /// plugins:write, deliveries:read, deliveries:write, and admin for all of them. Providers' APIs have scopes of their
    /// own: Kajabi view:purchases, view:transactions, view:orders, view:form_submissions and
    /// view:contacts, Vonage admin:read and admin:write, Vision6 full_access.
    Create {
        /// The account that the token is for; begins to exist with its first token. Without it, the
        /// token is the operator's and acts for any tenant that a call names
        #[arg(long)]
        tenant: Option<String>,
        /// What the token may do
        #[arg(long, value_delimiter = ',', required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// After how many days the token ends; never, unless given
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
        /// How the token is written
        #[arg(long, value_enum, default_value_t = Style::Hookyard)]
        style: Style,
    },
    /// List all tokens, without what is secret in them
    List,
    /// End a token
    Revoke {
        /// The id that `create` and `list` show
        id: Uuid,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Style {
    /// `hky_` and 43 characters, which scanners for leaked secrets can find
    Hookyard,
    /// 64 hexadecimal digits, as clients of Vision6 take keys
    Hex64,
}

impl Tokens {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let settings = Given { store: self.store, ..Given::default() }.settle();
        let store = shared_store(&settings)?;
        let result = match self.command {
            Command::Create { tenant, scopes, days, style } => {
                create(&store, tenant, scopes, days, style, self.json).await
            }
            Command::List => list(&store, self.json).await,
            Command::Revoke { id } => revoke(&store, id, self.json).await,
        };
        store.close().await;
        result
    }
}

async fn create(
    store: &Sqlite,
    tenant: Option<String>,
    scopes: Vec<String>,
    days: Option<u32>,
    style: Style,
    json: bool,
) -> anyhow::Result<()> {
    if let Some(unknown) = scopes.iter().find(|it| !SCOPES.contains(&it.as_str())) {
        anyhow::bail!("`{unknown}` is not a scope; the scopes are {}", SCOPES.join(", "));
    }
    let tenant = tenant.map(|name| Tenant::new(&name)).transpose();
    let tenant = tenant.map_err(|violation| anyhow::anyhow!("{violation}"))?;
    let new = match style {
        Style::Hookyard => new_token,
        Style::Hex64 => new_hex_token,
    };
    let (token, text) = new(tenant, scopes, days);
    store.create_token(token.clone()).await?;
    if json {
        say!("{}", json!({"id": token.id, "token": text, "tenant": token.tenant}))?;
    } else {
        say!("{text}")?;
        eprintln!("the token has the id {}; it is not shown again", token.id);
    }
    Ok(())
}

async fn list(store: &Sqlite, json: bool) -> anyhow::Result<()> {
    for it in store.tokens().await? {
        let ended = it.revoked_at_ms.or(it.expires_at_ms.filter(|until| *until <= clock::now_ms()));
        if json {
            let line = json!({
                "id": it.id,
                "tenant": it.tenant,
                "scopes": it.scopes,
                "created_at": clock::rfc3339(it.created_at_ms),
                "expires_at": it.expires_at_ms.map(clock::rfc3339),
                "revoked_at": it.revoked_at_ms.map(clock::rfc3339),
            });
            say!("{line}")?;
        } else {
            let tenant = it.tenant.as_ref().map_or("(operator)", Tenant::as_str);
            let state = if ended.is_some() { "ended" } else { "valid" };
            say!("{}  {state}  {tenant}  {}", it.id, it.scopes.join(","))?;
        }
    }
    Ok(())
}

async fn revoke(store: &Sqlite, id: Uuid, json: bool) -> anyhow::Result<()> {
    match store.revoke_token(id, clock::now_ms()).await {
        Err(StoreError::NotFound) => anyhow::bail!("there is no token with the id {id}"),
        result => result.context("cannot revoke the token")?,
    }
    if json {
        say!("{}", json!({"id": id, "revoked": true}))?;
    } else {
        say!("revoked {id}; a running router takes it until it notices, within a second")?;
    }
    Ok(())
}
