//! Assembles the rooms into a running router.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hookyard_nouns::clock;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout, timeout_at};

use crate::api;
use crate::app::App;
use crate::config::Settings;
use crate::dispatch::Dispatcher;
use crate::formats::Formats;
use crate::manage;
use crate::router::{Router, try_suspects};
use crate::supervise::Stop;

/// How often there is a look at what may be forgotten, and how long a pause while there is more.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const PRUNE_PAUSE: Duration = Duration::from_millis(20);
/// How often there is a look whether the store lives.
const LIVES_EVERY: Duration = Duration::from_millis(250);
/// Which part of the time for a stop is the store's, to commit what is known by then.
const STORE_PART: u32 = 4;

/// A running router.
pub struct Server {
    pub app: Arc<App>,
    address: SocketAddr,
    router: Arc<Router>,
}

impl Server {
    /// Opens the store, takes up what was not finished, and listens. Must be called within a Tokio
    /// runtime of more than one thread.
    ///
    /// # Errors
    ///
    /// Something cannot be opened; the text says what and why.
    pub async fn start(settings: Settings) -> anyhow::Result<Server> {
        let formats = Formats::new(&settings.choices());
        Server::start_with(settings, formats).await
    }

    /// The same, with these formats.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub async fn start_with(settings: Settings, formats: Formats) -> anyhow::Result<Server> {
        let router = Router::new();
        let accepted = {
            let router = Arc::clone(&router);
            Box::new(move |events| router.offer(events))
        };
        let listen = settings.listen;
        let app = Arc::new(App::open(settings, formats, accepted).await?);
        manage::plugins::share_standard(&app).await?;
        // Before anything else is worked on: if it ends the process again, it is known by what.
        try_suspects(&app).await.context("cannot read the store")?;

        let dispatcher =
            Dispatcher::new(Arc::clone(&app)).await.context("cannot read the store")?;
        app.stages.begin("dispatcher", |stop| dispatcher.run(stop));
        router.start(&app).await.context("cannot read the store")?;
        let order = {
            let app = Arc::clone(&app);
            move || manage::plugins::order_missing_code(&app)
        };
        // It looks at all subscriptions, and for the files of all of their plugins.
        tokio::task::spawn_blocking(order).await.context("cannot look for the code of plugins")?;
        app.stages.begin("store", |stop| live(Arc::clone(&app), stop));
        app.stages.begin("pruner", |stop| prune(Arc::clone(&app), stop));
        app.stages.begin("switcher", |stop| manage::switch::run(Arc::clone(&app), stop));
        app.stages.begin("mender", |stop| manage::quarantines::mend(Arc::clone(&app), stop));
        app.stages.begin("replayer", |stop| manage::replays::run(Arc::clone(&app), stop));
        app.stages.begin("releaser", |stop| manage::releases::run(Arc::clone(&app), stop));
        app.stages.begin("backlogs", |stop| manage::backlogs::watch(Arc::clone(&app), stop));
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        app.stages.begin("api", |stop| api::serve(Arc::clone(&app), listener, stop));
        tracing::info!(%address, store = app.settings.store, "listens");
        Ok(Server { app, address, router })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the router cannot go on, and answers why.
    pub async fn failure(&self) -> String {
        let stage = self.app.stages.failure().await;
        format!("the stage `{stage}` of the router has ended; the log says why")
    }

    /// Answers the calls that have begun, waits for the requests that are out, and closes the store, all of it
    /// within `shutdown-ms`. Nothing is lost: what is not delivered is taken up by the next start. Answers
    /// whether all has ended; what has not may still be waiting for a disk.
    pub async fn stop(self) -> bool {
        let patience = Duration::from_millis(self.app.settings.shutdown_ms);
        let until = Instant::now() + patience;
        let calls_until = until - patience / STORE_PART;
        if !self.app.stages.end(calls_until).await {
            tracing::warn!("some calls or requests were cut off, since `shutdown-ms` is over");
        }
        self.router.stop().await;
        let app = Arc::clone(&self.app);
        // A worker ends its task first, which a blocking thread can wait for.
        let threads = move || {
            app.workshop.stop();
            app.parsers.stop();
            app.workers.stop();
            app.trials.stop();
        };
        let threads = tokio::task::spawn_blocking(threads);
        let mut all = timeout_at(until, threads).await.is_ok();
        all &= timeout_at(until, self.app.store.close()).await.is_ok();
        if all {
            tracing::info!("stopped");
        } else {
            tracing::error!(
                "the store was not closed in time; what is not on disk is done again by the next start"
            );
        }
        all
    }
}

/// Ends when the store does: then this process has no more use.
async fn live(app: Arc<App>, mut stop: Stop) {
    while !app.store.is_dead() {
        if timeout(LIVES_EVERY, stop.asked()).await.is_ok() {
            return;
        }
    }
}

/// Forgets what is older or more than wanted, a little at a time.
async fn prune(app: Arc<App>, mut stop: Stop) {
    let retention = app.settings.retention();
    loop {
        let more = match app.store.prune(clock::now_ms(), retention).await {
            Ok(pruned) => {
                app.prune_index(pruned.revision);
                pruned.more
            }
            Err(err) => {
                tracing::warn!(%err, "cannot forget what is old; trying again");
                false
            }
        };
        let wait = if more { PRUNE_PAUSE } else { PRUNE_EVERY };
        if timeout(wait, stop.asked()).await.is_ok() {
            return;
        }
    }
}
