//! Assembles the rooms into a running router.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::app::{App, Signal};
use crate::config::Settings;
use crate::dispatch::Dispatcher;
use crate::formats::Formats;
use crate::manage;
use crate::router::Router;
use crate::{api, clock};

/// How many signals may wait for the dispatcher. Whoever comes then waits.
const SIGNALS_MAX: usize = 1_024;
/// How often there is a look at what may be forgotten, and how long a pause while there is more.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const PRUNE_PAUSE: Duration = Duration::from_millis(50);

/// A running router.
pub struct Server {
    pub app: Arc<App>,
    address: SocketAddr,
    router: Arc<Router>,
    stop: watch::Sender<bool>,
    api: JoinHandle<std::io::Result<()>>,
    dispatcher: JoinHandle<()>,
    pruner: JoinHandle<()>,
    mender: JoinHandle<()>,
    replayer: JoinHandle<()>,
    releaser: JoinHandle<()>,
    backlogs: JoinHandle<()>,
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
        let (outgoing, signals) = mpsc::channel::<Signal>(SIGNALS_MAX);
        let router = Router::new();
        let accepted = {
            let router = Arc::clone(&router);
            Box::new(move |events| router.offer(events))
        };
        let listen = settings.listen;
        let app = Arc::new(App::open(settings, formats, accepted, outgoing).await?);
        manage::plugins::share_standard(&app).await?;

        let (stop, stopping) = watch::channel(false);
        let dispatcher =
            Dispatcher::new(Arc::clone(&app)).await.context("cannot read the store")?;
        let dispatcher = tokio::spawn(dispatcher.run(signals, stopping.clone()));
        router.start(&app).await.context("cannot read the store")?;
        let pruner = tokio::spawn(prune(Arc::clone(&app), stopping.clone()));
        let mender = tokio::spawn(manage::quarantines::mend(Arc::clone(&app), stopping.clone()));
        let replayer = tokio::spawn(manage::replays::run(Arc::clone(&app), stopping.clone()));
        let releaser = tokio::spawn(manage::releases::run(Arc::clone(&app), stopping.clone()));
        let backlogs = tokio::spawn(manage::backlogs::watch(Arc::clone(&app), stopping.clone()));
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let api = tokio::spawn(api::serve(Arc::clone(&app), listener, stopped(stopping)));
        tracing::info!(%address, store = app.settings.store, "listens");
        Ok(Server {
            app,
            address,
            router,
            stop,
            api,
            dispatcher,
            pruner,
            mender,
            replayer,
            releaser,
            backlogs,
        })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers the calls that have begun, waits for the requests that are out, and closes the store.
    /// Nothing is lost: what is not delivered is taken up by the next start.
    pub async fn stop(self) {
        let patience = Duration::from_millis(self.app.settings.shutdown_ms);
        let _ = self.stop.send(true);
        if tokio::time::timeout(patience, self.api).await.is_err() {
            tracing::warn!("some calls of the API were cut off");
        }
        self.router.stop().await;
        let app = Arc::clone(&self.app);
        // A worker ends its task first, which a blocking thread can wait for.
        let _ = tokio::task::spawn_blocking(move || app.workers.stop()).await;
        let _ = self.dispatcher.await;
        let _ = self.pruner.await;
        let _ = self.mender.await;
        let _ = self.replayer.await;
        let _ = self.releaser.await;
        let _ = self.backlogs.await;
        self.app.store.close().await;
        tracing::info!("stopped");
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // Ends as well when the server is dropped without being stopped.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Forgets what is older or more than wanted, a little at a time.
async fn prune(app: Arc<App>, stop: watch::Receiver<bool>) {
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
        if tokio::time::timeout(wait, stopped(stop.clone())).await.is_ok() {
            return;
        }
    }
}
