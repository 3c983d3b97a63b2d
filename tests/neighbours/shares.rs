//! What is kept for each tenant: as much as there is room for, and nobody loses it to another.

use serde_json::json;

use crate::harness::Endpoint;
use crate::harness::yard::event;
use crate::hostile::Victim;
use crate::hostile::guests::guest;

/// By how much a router may grow by what one tenant tries.
const GROWTH_MIB_MAX: u64 = 48;

#[tokio::test(flavor = "multi_thread")]
async fn configurations_that_are_tried_are_not_kept() {
    let victim = Victim::start().await;
    assert_eq!(victim.upload("any", guest().pages(20).module()).await.0, "accepted");
    let before = victim.router.bytes("VmRSS") >> 20;
    for number in 0..250 {
        let config = json!({"number": number, "text": "x".repeat(530_000)});
        let body = json!({"event": event("t", json!(1)), "config": config});
        victim.client.post("/v1/plugins/any/try", &body).await.expect(200);
    }
    let after = victim.router.bytes("VmRSS") >> 20;
    assert!(after < before + GROWTH_MIB_MAX, "it has grown from {before} to {after} MiB");
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_that_one_tenant_has_tried_leave_room_for_others() {
    // Room for hardly more than the neighbour's.
    let settings = [("HOOKYARD_PLUGIN_LOADED_BYTES_MAX", "2097152")];
    let victim = Victim::start_with(&settings).await;
    let neighbour = victim.neighbour("neighbour");
    let mut endpoint = Endpoint::start().await;
    let text = guest().bytes(60_000, b"neighbour").module();
    neighbour.upload("own", text).await.expect(201);
    let body = json!({"name": "x", "url": endpoint.url("/"), "filters": [{"type": "*"}],
                      "steps": [{"plugin": "own"}]});
    neighbour.post("/v1/subscriptions", &body).await.expect(201);
    let large =
        |number: u32| guest().pages(60).bytes(0x4_0000, &[7; 400_000]).words(60_000, &[number]);
    for number in 0..8 {
        let name = format!("p{number}");
        assert_eq!(victim.upload(&name, large(number).module()).await.0, "accepted");
        victim.try_subscribe(&name, &json!({})).await.expect(201);
    }
    // Whatever was loaded for others, it runs.
    for number in 0..3 {
        neighbour.publish(&event("t", json!(number))).await.expect(202);
        assert_eq!(endpoint.next().await.json()["data"], number);
    }
    victim.check_unharmed().await;
}
