//! Requests over real sockets, to endpoints that do as the test says.

mod blame; // whose fault it is
mod kept; // connections that are used again
mod sockets; // when there are no more of them

use std::convert::Infallible;
use std::net::SocketAddr;

use http::Response as HttpResponse;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::explain::Failure;
use super::opening::{Opening, Phase};
use super::*;
use crate::egress::DEFAULT_PORTS;
use crate::schemas::Endpoints;

const SOCKETS: usize = 64;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Does with each connection what the test says.
async fn endpoint<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads one request, or waits for ever.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\nbody") {
        let mut more = [0; 4096];
        match stream.read(&mut more).await {
            Ok(0) | Err(_) => std::future::pending().await,
            Ok(count) => request.extend_from_slice(&more[..count]),
        }
    }
}

/// Answers each request with the same bytes.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, with: &[u8]) {
    loop {
        read_request(&mut stream).await;
        if stream.write_all(with).await.is_err() {
            return;
        }
    }
}

/// An endpoint with a certificate for a name, and somebody who trusts that certificate.
struct Secure {
    acceptor: TlsAcceptor,
    sender: Sender,
}

fn secure(name: &str, alpn: &[&str]) -> Secure {
    set_up_tls();
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificate = made.cert.der().clone();
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let sender = Sender::with_tls(local(), dns(), SOCKETS, tls);
    Secure { acceptor: TlsAcceptor::from(Arc::new(config)), sender }
}

fn local() -> Arc<Egress> {
    let (allowed, ports) = (vec!["127.0.0.0/8".parse().unwrap()], DEFAULT_PORTS.to_vec());
    Arc::new(Egress::new(Endpoints::HttpAllowed, allowed, ports))
}

fn dns() -> Arc<Dns> {
    Arc::new(Dns::new(&[], 8))
}

fn sender() -> Sender {
    Sender::new(local(), dns(), SOCKETS).unwrap()
}

fn request(url: impl AsRef<str>) -> Request {
    Request {
        tenant: Tenant::new("acme").unwrap(),
        url: url.as_ref().parse().unwrap(),
        content_type: "text/plain",
        headers: Vec::new(),
        body: Bytes::from_static(b"body"),
        timeout: Duration::from_secs(15),
    }
}

fn taken(phases: Phases) -> [bool; 4] {
    [phases.dns, phases.connect, phases.tls, phases.first_byte].map(|it| it.is_some())
}

#[track_caller]
fn check_answered(sent: &Sent, phases: [bool; 4]) {
    let expected = Outcome::Answered { status: 200, retry_after: None, answer: b"ok".to_vec() };
    assert_eq!((&sent.outcome, taken(sent.phases)), (&expected, phases));
    let Phases { dns, connect, tls, first_byte } = sent.phases;
    let sum: Duration = [dns, connect, tls, first_byte].into_iter().flatten().sum();
    assert!(sum <= sent.took, "{sent:?}");
}

#[track_caller]
fn check_failed(sent: &Sent, code: &str, words: &str, phases: [bool; 4]) {
    let Outcome::Unreachable(reason) = &sent.outcome else { panic!("{sent:?}") };
    assert_eq!(reason.code, code, "{sent:?}");
    assert!(reason.detail.as_ref().unwrap().contains(words), "{sent:?}");
    assert_eq!(taken(sent.phases), phases, "{sent:?}");
}

#[tokio::test]
async fn a_kept_connection_takes_no_time_to_make() {
    let address = endpoint(async |stream| answer(stream, OK).await).await;
    let sender = sender();
    let by_name = format!("http://localhost:{}/a?b=c", address.port());
    check_answered(&sender.send(request(&by_name)).await, [true, true, false, true]);
    check_answered(&sender.send(request(&by_name)).await, [false, false, false, true]);
    let by_address = format!("http://{address}/");
    check_answered(&sender.send(request(&by_address)).await, [false, true, false, true]);
}

#[tokio::test]
async fn a_connection_that_is_made_in_vain_is_not_counted() {
    // The second request begins a handshake that never ends, and then gets the connection of the
    // first.
    let Secure { acceptor, sender } = secure("localhost", &[]);
    let (tell, mut told) = tokio::sync::watch::channel(0);
    let (open, gate) = tokio::sync::watch::channel(false);
    let address = endpoint(move |stream| {
        let (acceptor, tell, mut gate) = (acceptor.clone(), tell.clone(), gate.clone());
        async move {
            tell.send_modify(|count| *count += 1);
            if *tell.borrow() > 1 {
                return std::future::pending().await;
            }
            let mut stream = acceptor.accept(stream).await.unwrap();
            read_request(&mut stream).await;
            gate.wait_for(|open| *open).await.unwrap();
            stream.write_all(OK).await.unwrap();
            answer(stream, OK).await;
        }
    })
    .await;
    let url = format!("https://localhost:{}/", address.port());
    let sends = async { tokio::join!(sender.send(request(&url)), sender.send(request(&url))) };
    let opens = async {
        told.wait_for(|count| *count == 2).await.unwrap();
        open.send(true).unwrap();
    };
    let ((one, other), ()) = tokio::join!(sends, opens);
    // Either may have come first.
    let has_waited_itself = one.phases.tls.is_some();
    let (first, second) = if has_waited_itself { (one, other) } else { (other, one) };
    check_answered(&first, [true, true, true, true]);
    check_answered(&second, [false, false, false, true]);
}

#[tokio::test]
async fn the_handshake_is_a_phase() {
    let Secure { acceptor, sender } = secure("localhost", &["http/1.1"]);
    let address = endpoint(move |stream| {
        let acceptor = acceptor.clone();
        async move { answer(acceptor.accept(stream).await.unwrap(), OK).await }
    })
    .await;
    let url = format!("https://localhost:{}/", address.port());
    check_answered(&sender.send(request(&url)).await, [true, true, true, true]);
    check_answered(&sender.send(request(&url)).await, [false, false, false, true]);
}

#[tokio::test]
async fn requests_share_a_connection_of_http_2() {
    let Secure { acceptor, sender } = secure("localhost", &["h2"]);
    let address = endpoint(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let io = TokioIo::new(acceptor.accept(stream).await.unwrap());
            let service = service_fn(async |request: http::Request<Incoming>| {
                assert_eq!(request.uri().path(), "/a");
                assert!(!request.headers().contains_key(header::HOST));
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, "body");
                Ok::<_, Infallible>(HttpResponse::new(Full::new(Bytes::from_static(b"ok"))))
            });
            let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
        }
    })
    .await;
    let url = format!("https://localhost:{}/a", address.port());
    check_answered(&sender.send(request(&url)).await, [true, true, true, true]);
    let (one, other) = tokio::join!(sender.send(request(&url)), sender.send(request(&url)));
    check_answered(&one, [false, false, false, true]);
    check_answered(&other, [false, false, false, true]);
}

#[tokio::test]
async fn a_handshake_that_fails_says_why() {
    let Secure { acceptor, sender: trusting } = secure("another.example", &[]);
    let address = endpoint(move |stream| {
        let acceptor = acceptor.clone();
        async move { drop(acceptor.accept(stream).await) }
    })
    .await;
    let url = format!("https://{address}/");
    let sender = sender();
    let upto_tls = [false, true, true, false];
    check_failed(&sender.send(request(&url)).await, "tls", "nobody whom we trust", upto_tls);
    check_failed(&trusting.send(request(&url)).await, "tls", "for another name", upto_tls);

    let plain = endpoint(async |mut stream| {
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n").await;
        std::future::pending().await
    })
    .await;
    let url = format!("https://{plain}/");
    check_failed(&sender.send(request(&url)).await, "tls", "does not speak TLS", upto_tls);

    let closed = endpoint(async |stream| drop(stream)).await;
    let url = format!("https://{closed}/");
    let sent = sender.send(request(&url)).await;
    check_failed(&sent, "tls", "closed the connection", upto_tls);
}

#[tokio::test]
async fn a_time_out_names_its_phase() {
    let silent = endpoint(async |stream| {
        let _stream = stream;
        std::future::pending().await
    })
    .await;
    let sender = sender();
    let hurried = |url: String| Request { timeout: Duration::from_millis(200), ..request(url) };
    let sent = sender.send(hurried(format!("https://{silent}/"))).await;
    check_failed(&sent, "tls-timeout", "TLS handshake", [false, true, true, false]);
    assert!(sent.phases.tls.unwrap() >= Duration::from_millis(100), "{sent:?}");
    let sent = sender.send(hurried(format!("http://{silent}/"))).await;
    check_failed(&sent, "timeout", "did not answer in time", [false, true, false, true]);
    assert!(sent.phases.first_byte.unwrap() >= Duration::from_millis(100), "{sent:?}");
    assert!(sent.took < Duration::from_secs(5), "{sent:?}");
}

#[tokio::test]
async fn no_connection_says_why() {
    let sender = sender();
    let nobody = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let sent = sender.send(request(format!("http://{nobody}/"))).await;
    check_failed(&sent, "connect-refused", "nothing listens", [false, true, false, false]);
    let sent = sender.send(request("https://name.invalid/")).await;
    check_failed(&sent, "dns", "cannot be resolved", [true, false, false, false]);
    let sent = sender.send(request("http://[::1]:9999/")).await;
    check_failed(&sent, "egress-denied", "leads to ::1", [false; 4]);
    let strict = Egress::new(Endpoints::HttpAllowed, vec![], DEFAULT_PORTS.to_vec());
    let strict = Sender::new(Arc::new(strict), dns(), SOCKETS).unwrap();
    let sent = strict.send(request("http://localhost:9999/")).await;
    check_failed(&sent, "egress-denied", "not a public address", [true, false, false, false]);
    let sent = sender.send(request("http://localhost:25/")).await;
    check_failed(&sent, "egress-denied", "has the port 25", [false; 4]);
}

#[tokio::test]
async fn an_answer_that_is_none_says_why() {
    let head = "HTTP/1.1 200 OK\r\n";
    let many = format!("{head}{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
    let large = format!("{head}{}", format!("A: {}\r\n", "b".repeat(8_000)).repeat(20));
    let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000);
    let sender = sender();
    for (bytes, code, words) in [
        ("", "reset", "closed the connection"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "reset", "closed the connection"),
        ("220 mail.example.com ESMTP\r\n", "not-http", "does not speak HTTP"),
        (&many, "answer-too-large", "more than 100 headers"),
        (&large, "answer-too-large", "or 65536 bytes"),
        (&endless, "answer-too-large", "more than 1048576 bytes"),
    ] {
        let bytes = bytes.to_owned();
        let address = endpoint(move |mut stream| {
            let bytes = bytes.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(bytes.as_bytes()).await;
            }
        })
        .await;
        let sent = sender.send(request(format!("http://{address}/"))).await;
        check_failed(&sent, code, words, [false, true, false, true]);
    }
}

#[tokio::test]
async fn headers_are_shown_as_they_were_sent_but_for_secrets() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let address = endpoint(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut bytes = vec![0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            tell.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).await.unwrap();
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let headers = vec![
        (header::AUTHORIZATION, "Bearer secret".to_owned()),
        (HeaderName::from_static("webhook-signature"), "v1,c2ln".to_owned()),
    ];
    let url = format!("http://localhost:{}/", address.port());
    let sent = sender().send(Request { headers, ..request(url) }).await;
    let arrived = told.recv().await.unwrap();
    let arrived = arrived.split("\r\n\r\n").next().unwrap().lines().skip(1);
    let mut arrived: Vec<_> = arrived.map(|it| it.replace("secret", "***")).collect();
    let shown = sent.headers.iter().map(|(name, value)| format!("{name}: {value}"));
    let mut shown: Vec<_> = shown.collect();
    arrived.sort();
    shown.sort();
    assert_eq!(shown, arrived);
}

#[tokio::test]
async fn a_phase_that_takes_too_long_ends() {
    let opening = Opening::default();
    let forever = std::future::pending::<Result<(), Failure>>();
    let ended = opening.phase(Phase::Dns, Duration::from_millis(20), forever).await;
    assert_eq!(ended.unwrap_err().reason.code, "dns-timeout");
    let progress = opening.progress();
    assert_eq!(taken(progress.phases), [true, false, false, false]);
    assert!(progress.present.is_none());
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now_ms = 784_111_777_000;
    for (text, seconds) in [
        ("120", Some(120)),
        (" 0 ", Some(0)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
        ("soon", None),
        ("-1", None),
        ("+5", None),
        ("1.5", None),
        ("", None),
        ("000120", Some(120)),
        ("18446744073709551615", Some(u64::MAX)),
        ("99999999999999999999999", Some(u64::MAX)),
    ] {
        let parsed = parse_retry_after(&HeaderValue::from_static(text), now_ms);
        assert_eq!(parsed, seconds.map(Duration::from_secs), "{text}");
    }
}
