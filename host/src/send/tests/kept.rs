//! Connections that are used again, and those that turn out dead.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// How an endpoint treats the second request on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    Resets,
    Closes,
    /// Writes a part of an answer first.
    BreaksOff,
    /// Does not answer.
    Hangs,
}

/// Answers the first request on each connection, and treats the second one so. Tells how many
/// connections there were.
async fn once(second: Second) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = endpoint(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            read_request(&mut stream).await;
            match second {
                Second::Resets => stream.set_zero_linger().unwrap(),
                Second::Closes => {}
                Second::BreaksOff => stream.write_all(b"HTTP/1.1 200").await.unwrap(),
                Second::Hangs => std::future::pending().await,
            }
        }
    })
    .await;
    (address, count)
}

#[tokio::test]
async fn a_dead_connection_is_replaced_by_a_fresh_one_at_once() {
    for second in [Second::Resets, Second::Closes] {
        let (address, count) = once(second).await;
        let sender = sender();
        let url = format!("http://{address}/");
        check_answered(&sender.send(request(&url)).await, [false, true, false, true]);
        // The second request of each connection finds it dead.
        for made in 2..5 {
            check_answered(&sender.send(request(&url)).await, [false, true, false, true]);
            assert_eq!(count.load(Ordering::SeqCst), made, "{second:?}");
        }
    }
}

#[tokio::test]
async fn the_fresh_connection_has_all_of_the_time() {
    let (address, _) = once(Second::Resets).await;
    let sender = sender();
    let url = format!("http://{address}/");
    check_answered(&sender.send(request(&url)).await, [false, true, false, true]);
    let address = endpoint(async |mut stream| {
        read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        read_request(&mut stream).await;
        // It dies after most of its time.
        tokio::time::sleep(Duration::from_millis(300)).await;
    })
    .await;
    let url = format!("http://{address}/");
    check_answered(&sender.send(request(&url)).await, [false, true, false, true]);
    let hurried = Request { timeout: Duration::from_millis(400), ..request(&url) };
    check_answered(&sender.send(hurried).await, [false, true, false, true]);
}

#[tokio::test]
async fn what_has_begun_to_answer_is_not_dead() {
    let (address, count) = once(Second::BreaksOff).await;
    let sender = sender();
    let url = format!("http://{address}/");
    check_answered(&sender.send(request(&url)).await, [false, true, false, true]);
    let sent = sender.send(request(&url)).await;
    check_failed(&sent, "reset", "closed the connection", [false, false, false, true]);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_failure_of_the_fresh_connection_counts() {
    // It answers one request in its life, and resets everything after that.
    let answered = Arc::new(AtomicUsize::new(0));
    let served = Arc::clone(&answered);
    let address = endpoint(move |mut stream| {
        let served = Arc::clone(&served);
        async move {
            loop {
                read_request(&mut stream).await;
                if served.fetch_add(1, Ordering::SeqCst) > 0 {
                    return stream.set_zero_linger().unwrap();
                }
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let sender = sender();
    let url = format!("http://{address}/");
    check_answered(&sender.send(request(&url)).await, [false, true, false, true]);
    let sent = sender.send(request(&url)).await;
    check_failed(&sent, "reset", "closed the connection", [false, true, false, true]);
    assert_eq!(answered.load(Ordering::SeqCst), 3, "one kept and one fresh connection were tried");
}

/// Silence on a kept connection counts, but what was kept beside it is not tried any more.
#[tokio::test]
async fn after_silence_the_next_request_gets_a_fresh_connection() {
    let (address, count) = once(Second::Hangs).await;
    let sender = sender();
    let url = format!("http://{address}/");
    let hurried = || Request { timeout: Duration::from_millis(300), ..request(&url) };
    let (one, other) = tokio::join!(sender.send(hurried()), sender.send(hurried()));
    check_answered(&one, [false, true, false, true]);
    check_answered(&other, [false, true, false, true]);
    let sent = sender.send(hurried()).await;
    check_failed(&sent, "timeout", "did not answer in time", [false, false, false, true]);
    check_answered(&sender.send(hurried()).await, [false, true, false, true]);
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

/// What an HTTP/2 endpoint does with its second request on a connection.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    /// It goes, and has begun with nothing more.
    GoAway,
    Refused,
    /// The connection breaks.
    Breaks,
    /// A bug of the endpoint in this one request.
    InternalError,
}

async fn serve_h2(acceptor: TlsAcceptor, stream: TcpStream, farewell: Farewell) {
    let tls = acceptor.accept(stream).await.unwrap();
    let mut connection = h2::server::handshake(tls).await.unwrap();
    let mut count = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        count += 1;
        if count == 1 {
            let head = HttpResponse::builder().status(200).body(()).unwrap();
            let mut body = respond.send_response(head, false).unwrap();
            body.send_data(Bytes::from_static(b"ok"), true).unwrap();
            continue;
        }
        match farewell {
            Farewell::GoAway => {
                // Without a word on this stream, which stays without an answer.
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                std::mem::forget(respond);
            }
            Farewell::Refused => respond.send_reset(h2::Reason::REFUSED_STREAM),
            Farewell::InternalError => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            Farewell::Breaks => return std::mem::forget(respond),
        }
    }
}

async fn h2(farewell: Farewell) -> (Sender, String, Arc<AtomicUsize>) {
    let Secure { acceptor, sender } = secure("localhost", &["h2"]);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = endpoint(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        serve_h2(acceptor.clone(), stream, farewell)
    })
    .await;
    (sender, format!("https://localhost:{}/", address.port()), count)
}

#[tokio::test]
async fn a_shared_connection_that_ends_is_replaced_by_a_fresh_one_at_once() {
    for farewell in [Farewell::GoAway, Farewell::Refused, Farewell::Breaks] {
        let (sender, url, count) = h2(farewell).await;
        check_answered(&sender.send(request(&url)).await, [true, true, true, true]);
        check_answered(&sender.send(request(&url)).await, [true, true, true, true]);
        assert_eq!(count.load(Ordering::SeqCst), 2, "{farewell:?}");
    }
}

#[tokio::test]
async fn an_http_2_endpoint_that_fails_at_one_request_has_failed() {
    let (sender, url, count) = h2(Farewell::InternalError).await;
    check_answered(&sender.send(request(&url)).await, [true, true, true, true]);
    let sent = sender.send(request(&url)).await;
    check_failed(&sent, "broken-answer", "", [false, false, false, true]);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn many_requests_at_once_share_what_is_opened_for_the_first_of_them() {
    let address = endpoint(async |stream| answer(stream, OK).await).await;
    let sender = sender();
    let url = format!("http://{address}/");
    let sends: Vec<_> = (0..40).map(|_| sender.send(request(&url))).collect();
    let mut fresh = 0;
    for sent in futures_of(sends).await {
        assert!(matches!(sent.outcome, Outcome::Answered { status: 200, .. }), "{sent:?}");
        fresh += usize::from(sent.phases.connect.is_some());
    }
    assert!(fresh >= 1);
    // They are kept now, and none is opened any more.
    check_answered(&sender.send(request(&url)).await, [false, false, false, true]);
}

/// All of them at the same time.
async fn futures_of<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(|it| (Box::pin(it), None)).collect();
    std::future::poll_fn(|context| {
        for (it, done) in &mut all {
            if done.is_none()
                && let std::task::Poll::Ready(ready) = it.as_mut().poll(context)
            {
                *done = Some(ready);
            }
        }
        if all.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}
