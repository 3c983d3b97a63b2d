//! Names that lead elsewhere, or nowhere for a while; receivers that restart.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Ledger, Load, Rig, Row, at_each, event};
use crate::harness::Endpoint;
use crate::harness::names::NameServer;

const NAME: &str = "receiver.test";

fn host(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

impl Rig {
    /// A router that asks a name server of its own.
    async fn with_names() -> (Rig, NameServer) {
        let names = NameServer::start("test.").await;
        let mut rig = Rig::new();
        rig.start(&[("HOOKYARD_DNS_SERVERS", &names.address.to_string())]).await;
        (rig, names)
    }

    async fn publish(&self, id: &str) {
        self.client().publish(&event(id, "t", 1)).await.expect(202);
    }

    /// Waits until an attempt has failed with this.
    async fn await_failure(&self, code: &str) {
        let client = self.client();
        let until = Instant::now() + super::SETTLE;
        loop {
            let retrying = client.deliveries("state=retrying").await;
            if retrying.iter().any(|it| it["reason"]["code"] == code) {
                return;
            }
            assert!(Instant::now() < until, "{code} is wanted, there is {retrying:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_leads_elsewhere_and_nowhere() {
    let (mut rig, names) = Rig::with_names().await;
    let mut first = Endpoint::start_at(SocketAddr::new(host(2), 0)).await;
    let port = first.address().port();
    names.point(&format!("{NAME}."), Some(host(2))).await;
    rig.subscribe(format!("http://{NAME}:{port}/a"), "*").await;
    let mut ledger = Ledger::default();
    rig.publish("1").await;
    ledger.enter(first.next().await);

    // The receiver moves, and for a while its name leads nowhere.
    first.stop().await;
    names.point(&format!("{NAME}."), None).await;
    rig.publish("2").await;
    rig.await_failure("dns").await;
    let mut second = Endpoint::start_at(SocketAddr::new(host(3), port)).await;
    names.point(&format!("{NAME}."), Some(host(3))).await;
    let start = Instant::now();
    ledger.enter(second.next().await);
    let mut recovery = start.elapsed();

    // Whoever has the name now makes it lead to where deliveries may not go.
    second.stop().await;
    names.point(&format!("{NAME}."), Some(IpAddr::from([10, 0, 0, 1]))).await;
    rig.publish("3").await;
    rig.await_failure("egress-denied").await;
    let mut third = Endpoint::start_at(SocketAddr::new(host(4), port)).await;
    names.point(&format!("{NAME}."), Some(host(4))).await;
    let start = Instant::now();
    ledger.enter(third.next().await);
    recovery = recovery.max(start.elapsed());

    let ids = ["1", "2", "3"].map(str::to_owned);
    let lost = ledger.lost(&mut third, &at_each(&["/a"], &ids)).await;
    rig.await_delivered(3).await;
    let (operations, duplicated) = (ids.len(), ledger.duplicated());
    rig.stop();
    let (recovery, more) = (Some(recovery), "retries after 1 s".to_owned());
    let fault = "DNS changes its answer, fails, leads to a private address";
    Row { fault, operations, lost, duplicated, recovery, more }.print();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes more than a minute"]
async fn a_name_leads_nowhere_for_a_minute() {
    let (mut rig, names) = Rig::with_names().await;
    let mut endpoint = Endpoint::start().await;
    rig.subscribe(format!("http://{NAME}:{}/a", endpoint.address().port()), "*").await;
    let events: Vec<_> = (0..60).map(|it| it.to_string()).collect();
    for id in &events {
        rig.publish(id).await;
        sleep(Duration::from_secs(1)).await;
    }
    names.point(&format!("{NAME}."), Some(host(1))).await;
    let (start, mut ledger) = (Instant::now(), Ledger::default());
    let lost = ledger.lost(&mut endpoint, &at_each(&["/a"], &events)).await;
    let recovery = Some(start.elapsed());
    rig.await_delivered(events.len()).await;
    let (operations, duplicated) = (events.len(), ledger.duplicated());
    rig.stop();
    let more = "an endpoint that fails is tried every 30 s".to_owned();
    Row { fault: "DNS fails for a minute", operations, lost, duplicated, recovery, more }.print();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_restarts() {
    const RESTARTS: usize = 3;
    let mut rig = Rig::new();
    // It is down for less than the 30 s for which it would get nothing.
    rig.start(&[("HOOKYARD_ENDPOINT_PROBE_MS", "500")]).await;
    let mut endpoint = Endpoint::start().await;
    let address = endpoint.address();
    rig.subscribe(endpoint.url("/a"), "*").await;
    let load = Load::start(2, rig.client(), "restart");
    let (mut ledger, mut start) = (Ledger::default(), Instant::now());
    for _ in 0..RESTARTS {
        ledger.enter(endpoint.next().await);
        sleep(Duration::from_millis(200)).await;
        endpoint.stop().await;
        ledger.take(&mut endpoint);
        rig.await_failure("connect-refused").await;
        endpoint = Endpoint::start_at(address).await;
        start = Instant::now();
    }
    let wanted = at_each(&["/a"], &load.stop().await.events);
    let lost = ledger.lost(&mut endpoint, &wanted).await;
    let recovery = Some(start.elapsed());
    rig.await_delivered(wanted.len()).await;
    ledger.take(&mut endpoint);
    let (operations, duplicated) = (wanted.len(), ledger.duplicated());
    rig.stop();
    let more = format!("{RESTARTS} restarts, tried again every 0.5 s");
    Row { fault: "receiver restarts", operations, lost, duplicated, recovery, more }.print();
}
