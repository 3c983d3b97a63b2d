//! Connections that send a byte now and then, and never come to an end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::attacker::Attacker;
use super::line::{Tally, connect, request};
use crate::http1::status;

const CONNECTIONS: usize = 500;
const EVERY: Duration = Duration::from_secs(1);
/// What the head says of the body, and how much of it is sent at once.
const BODY_BYTES: usize = 1_000_000;
const AT_ONCE_BYTES: usize = 990_000;
/// How long an attacker waits whose connection was closed.
const PAUSE: Duration = Duration::from_millis(500);

/// A stranger's heads.
pub(super) async fn heads(it: Attacker) -> Attacker {
    dribble(it, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ".to_vec()).await
}

/// A stranger's bodies, to a route where the token has to be looked for.
pub(super) async fn bodies(it: Attacker) -> Attacker {
    let head = "POST /mypreferences/Profiles/v4/nobody/Webhooks/Subscriptions";
    let whole = request(head, None, "application/json", &[b' '; BODY_BYTES]);
    let at_once = whole.len() - BODY_BYTES + AT_ONCE_BYTES;
    dribble(it, whole[..at_once].to_vec()).await
}

/// The bodies of somebody who has a token.
pub(super) async fn publishes(it: Attacker) -> Attacker {
    let whole = it.request("POST /v1/events", "application/cloudevents+json", &[b' '; BODY_BYTES]);
    let at_once = whole.len() - BODY_BYTES + AT_ONCE_BYTES;
    dribble(it, whole[..at_once].to_vec()).await
}

/// Keeps so many connections open, each of which begins with these bytes. One that is closed is followed by
/// another.
async fn dribble(mut it: Attacker, first: Vec<u8>) -> Attacker {
    it.ready();
    let (mut tasks, first) = (JoinSet::new(), Arc::new(first));
    let open = Arc::new(AtomicUsize::new(0));
    for _ in 0..CONNECTIONS {
        let (first, tally, open) = (Arc::clone(&first), it.tally.clone(), Arc::clone(&open));
        let address = it.order.address;
        tasks.spawn(async move {
            loop {
                one(address, &first, &tally, &open).await;
                sleep(PAUSE).await;
            }
        });
    }
    tokio::time::sleep_until((it.until - Duration::from_millis(100)).into()).await;
    let still = open.load(Ordering::Relaxed);
    it.note(format!("{still} of {CONNECTIONS} connections were open at the end"));
    it.last(tasks).await;
    it
}

/// From when a connection is made until the other end has closed it.
async fn one(address: SocketAddr, first: &[u8], tally: &Tally, open: &AtomicUsize) {
    let Ok(mut socket) = connect(address, None).await else {
        return tally.count("not connected");
    };
    open.fetch_add(1, Ordering::Relaxed);
    let told = send_slowly(&mut socket, first).await;
    open.fetch_sub(1, Ordering::Relaxed);
    tally.count(told.map_or("closed".to_owned(), |it| it.to_string()));
}

/// What the other end has said when it did not want more.
async fn send_slowly(socket: &mut TcpStream, first: &[u8]) -> Option<u16> {
    let (mut reader, mut writer) = socket.split();
    let mut answer = [0; 64];
    let send = async {
        writer.write_all(first).await?;
        loop {
            sleep(EVERY).await;
            writer.write_all(b"a").await?;
        }
    };
    let read = tokio::select! {
        _ = async { let sent: std::io::Result<()> = send.await; sent } => {
            // What was said before the connection was closed may still be there.
            timeout(PAUSE, reader.read(&mut answer)).await.ok()?.ok()?
        }
        read = reader.read(&mut answer) => read.ok()?,
    };
    status(&answer[..read])
}
