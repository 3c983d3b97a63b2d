//! A receiver with many paths, each of which has a mood of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::Receipt;

/// How a path takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    /// Answers with this status.
    Fails(u16),
    /// Answers when its mood is another one, by that.
    Hangs,
    /// Ends the connection without an answer.
    Resets,
}

/// A request to which there was an end.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) receipt: Receipt,
    /// Whether it was answered with success.
    pub(crate) taken: bool,
}

type Moods = Arc<Mutex<HashMap<String, watch::Sender<Mood>>>>;

/// See the head of this module.
pub(crate) struct Moody {
    address: SocketAddr,
    moods: Moods,
    heard: mpsc::UnboundedReceiver<Heard>,
    task: JoinHandle<()>,
}

impl Moody {
    /// All paths take everything, until told otherwise.
    pub(crate) async fn start() -> Moody {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        let moods = Moods::default();
        let router = Router::new().fallback(take).with_state((Arc::clone(&moods), tell));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Moody { address, moods, heard, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn set(&self, path: &str, mood: Mood) {
        self.moods.lock().unwrap().entry(path.to_owned()).or_insert_with(calm).send_replace(mood);
    }

    pub(crate) fn heal(&self) {
        for mood in self.moods.lock().unwrap().values() {
            mood.send_replace(Mood::Takes);
        }
    }

    /// What has come to an end by now.
    pub(crate) fn heard(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

impl Drop for Moody {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn calm() -> watch::Sender<Mood> {
    watch::Sender::new(Mood::Takes)
}

async fn take(
    State((moods, tell)): State<(Moods, mpsc::UnboundedSender<Heard>)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let mut mood = moods.lock().unwrap().entry(path.clone()).or_insert_with(calm).subscribe();
    let mood = *mood.wait_for(|it| *it != Mood::Hangs).await.unwrap();
    let status = match mood {
        Mood::Takes => 200,
        Mood::Fails(status) => status,
        Mood::Resets | Mood::Hangs => 0,
    };
    let receipt = Receipt { path, headers, body, status };
    let heard = Heard { receipt, taken: mood == Mood::Takes };
    // The test may have ended.
    let _ = tell.send(heard);
    match mood {
        Mood::Takes => StatusCode::OK.into_response(),
        Mood::Fails(status) => StatusCode::from_u16(status).unwrap().into_response(),
        // The connection ends with its task, and nothing is printed of this.
        Mood::Resets | Mood::Hangs => std::panic::resume_unwind(Box::new("reset")),
    }
}
