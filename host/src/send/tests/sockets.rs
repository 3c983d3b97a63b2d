//! As many connections as there may be: what is kept makes room, and what has to wait is not the
//! endpoint's fault.

use super::*;

fn of(tenant: &str, url: &str) -> Request {
    Request { tenant: Tenant::new(tenant).unwrap(), ..request(url) }
}

#[tokio::test]
async fn what_is_kept_makes_room_for_others() {
    let sender = Sender::new(local(), dns(), 4).unwrap();
    // Each of these endpoints is another one, with a connection of its own.
    for _ in 0..12 {
        let address = endpoint(async |stream| answer(stream, OK).await).await;
        let url = format!("http://{address}/");
        for tenant in ["acme", "other"] {
            let sent = sender.send(of(tenant, &url)).await;
            assert!(matches!(sent.outcome, Outcome::Answered { status: 200, .. }), "{sent:?}");
        }
    }
}

#[tokio::test]
async fn without_a_socket_nothing_is_sent_and_nobody_is_to_blame() {
    let hangs = endpoint(async |stream| {
        let _stream = stream;
        std::future::pending().await
    })
    .await;
    let takes = endpoint(async |stream| answer(stream, OK).await).await;
    let sender = Sender::new(local(), dns(), 4).unwrap();
    let (hanging, taking) = (format!("http://{hangs}/"), format!("http://{takes}/"));
    // One tenant has three quarters: the fourth of its own finds none.
    let all = async {
        let (one, two, three) = (&sender, &sender, &sender);
        let hurried = || Request { timeout: Duration::from_secs(3), ..of("acme", &hanging) };
        tokio::join!(one.send(hurried()), two.send(hurried()), three.send(hurried()))
    };
    let others = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let fourth = sender.send(of("acme", &taking)).await;
        let Outcome::NotSent(reason) = &fourth.outcome else { panic!("{fourth:?}") };
        assert_eq!(reason.code, "no-socket");
        assert!(fourth.took >= Duration::from_millis(900), "{fourth:?}");
        check_answered(&sender.send(of("other", &taking)).await, [false, true, false, true]);
        check_answered(&sender.send(of("other", &taking)).await, [false, false, false, true]);
    };
    let (hung, ()) = tokio::join!(all, others);
    for sent in [&hung.0, &hung.1, &hung.2] {
        check_failed(sent, "timeout", "did not answer in time", [false, true, false, true]);
    }
    check_answered(&sender.send(of("acme", &taking)).await, [false, false, false, true]);
}

/// Waiting for a socket takes nothing of the time that the endpoint has.
#[tokio::test]
async fn what_waits_for_a_socket_has_its_time_afterwards() {
    let slow = endpoint(async |mut stream| {
        read_request(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let sender = Sender::new(local(), dns(), 1).unwrap();
    let url = format!("http://{slow}/");
    let hurried = || Request { timeout: Duration::from_millis(600), ..request(&url) };
    let (one, other) = tokio::join!(sender.send(hurried()), sender.send(hurried()));
    check_answered(&one, [false, true, false, true]);
    check_answered(&other, [false, true, false, true]);
    assert!(one.took.max(other.took) >= Duration::from_millis(800));
}
