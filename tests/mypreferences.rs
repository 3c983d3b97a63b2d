//! Deliveries of MyPreferences: what is selected, and what becomes of it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::yard::TENANT;
use crate::harness::{Endpoint, Yard, root};

/// What each subscription gets of each sample event.
#[tokio::test(flavor = "multi_thread")]
async fn mypreferences_delivers_as_documented() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let documented = root().join("schemas/mypreferences/create.sample.json");
    let documented: Value =
        serde_json::from_str(&std::fs::read_to_string(documented).unwrap()).unwrap();
    let variants = [
        ("/full", json!({"LocaleID": "es-us"})),
        ("/minimised", json!({"IsMinimized": true, "LocaleID": "EN_US"})),
        ("/alternate", json!({"AlternateIdType": "Loyalty"})),
        ("/both", json!({"AlternateIdType": "Loyalty", "IsMinimized": true})),
        ("/unknown", json!({"AlternateIdType": "Unknown"})),
    ];
    for (path, more) in &variants {
        let mut body = documented.clone();
        body["Url"] = endpoint.url(path).into();
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let path = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
        yard.client.post(&path, &body).await.expect(201);
    }
    yard.identify("1024", &json!({"Loyalty": "L-7"})).await;
    let sample = |name: &str| -> Value {
        let file = root().join(format!("schemas/mypreferences/samples/{name}.json"));
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    };

    let email = sample("contacts.email.updated");
    let id = yard.client.publish(&email).await.expect(202)["id"].clone();
    for _ in &variants {
        let receipt = endpoint.next().await;
        assert_eq!(receipt.header("content-type"), "application/json");
        let number = variants.iter().position(|(path, _)| *path == receipt.path).unwrap() + 1;
        let mut expected = json!({
            "Id": id,
            "Entity": "Contacts",
            "EventType": "contacts.email.updated",
            "Name": "Email changed",
            "Description": "An email address of a profile was changed.",
            "LocaleId": "en_US",
            "ClientId": TENANT,
            "SubscriptionId": number,
            "ProfileId": 1024,
            "EventDate": "2026-01-31T12:00:00Z",
            "Data": email["data"]["Data"],
            "PreviousData": email["data"]["PreviousData"],
        });
        let members = expected.as_object_mut().unwrap();
        if receipt.path == "/full" {
            members.insert("Name".into(), "Correo electrónico cambiado".into());
            let text = "Correo electrónico de un perfil: cambiado.";
            members.insert("Description".into(), text.into());
            members.insert("LocaleId".into(), "es_US".into());
        }
        if ["/minimised", "/both"].contains(&receipt.path.as_str()) {
            members.remove("Data");
            members.remove("PreviousData");
        }
        if ["/alternate", "/both"].contains(&receipt.path.as_str()) {
            members.remove("ProfileId");
            members.insert("AlternateId".into(), json!({"Type": "Loyalty", "Id": "L-7"}));
        }
        assert_eq!(receipt.json(), expected, "{}", receipt.path);
    }

    // A whole profile does not give the profile id away either.
    yard.client.publish(&sample("profile.created")).await.expect(202);
    for _ in &variants {
        let receipt = endpoint.next().await;
        let gives_away = String::from_utf8_lossy(&receipt.body).contains("1024");
        assert_eq!(gives_away, !["/alternate", "/both"].contains(&receipt.path.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mypreferences_delivers_what_was_selected() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let body = json!({
        "Name": "selected",
        "Url": endpoint.url("/selected"),
        "State": "Active",
        "Subscriptions": [
            {"Entity": "Preferences", "EventType": "preference.added", "Filters": [17, "18"]},
            {"Entity": "Contacts", "EventType": "contacts.phone.updated", "ContactTypes": ["Work"]},
            {"Entity": "Contacts", "EventType": "contacts.email.added"},
            {"Entity": "Groups", "EventType": "group.added", "Groups": ["Silver", "AllGroups"]},
            {"Entity": "ProfileActions", "EventType": "profile.updated full"},
        ],
    });
    let path = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    yard.client.post(&path, &body).await.expect(201);
    let publish = async |name: &str, attribute: &str, value: &str| {
        let file = root().join(format!("schemas/mypreferences/samples/{name}.json"));
        let mut event: Value =
            serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        event["id"] = format!("{name} {value}").into();
        if !attribute.is_empty() {
            event[attribute] = value.into();
        }
        yard.client.publish(&event).await.expect(202);
    };
    publish("preference.added", "filterid", "19").await;
    publish("preference.added", "filterid", "18").await;
    publish("preference.updated", "filterid", "17").await;
    publish("contacts.phone.updated", "contacttype", "Personal").await;
    publish("contacts.phone.updated", "contacttype", "Work").await;
    publish("contacts.email.added", "contacttype", "Anything").await;
    publish("group.added", "group", "Gold").await;
    publish("profile.updated", "", "").await;
    publish("profile.updated.full", "", "").await;
    // An event of our own format is not one of theirs, whatever its type.
    yard.publish("preference.added", json!({"ProfileId": 1})).await;

    let mut got = Vec::new();
    for _ in 0..5 {
        got.push(endpoint.next().await.json()["EventType"].as_str().unwrap().to_owned());
    }
    got.sort();
    let wanted = [
        "contacts.email.added",
        "contacts.phone.updated",
        "group.added",
        "preference.added",
        "profile.updated.full",
    ];
    assert_eq!(got, wanted);
    yard.await_deliveries("state=delivered", 5).await;
    assert!(endpoint.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alternate_id_can_take_the_place_of_the_profile_id() {
    let yard = Yard::start_with(|it| {
        it.mypreferences_alternate_id = Some(hookyard::formats::AlternateIdShape::Value);
    })
    .await;
    let mut endpoint = Endpoint::start().await;
    let body = json!({
        "Name": "x",
        "Url": endpoint.url("/x"),
        "State": "Active",
        "AlternateIdType": "Loyalty",
        "Subscriptions": [{"Entity": "Tags", "EventType": "tag.added"}],
    });
    let path = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    yard.client.post(&path, &body).await.expect(201);
    yard.identify("1024", &json!({"Loyalty": "L-7"})).await;
    let file = root().join("schemas/mypreferences/samples/tag.added.json");
    let event: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    yard.client.publish(&event).await.expect(202);
    let body = endpoint.next().await.json();
    assert_eq!((&body["ProfileId"], body.get("AlternateId")), (&json!("L-7"), None));
}

/// What comes while a subscription is paused is held or skipped as it comes.
#[tokio::test(flavor = "multi_thread")]
async fn the_request_that_pauses_decides_whether_events_are_delivered_later() {
    let yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let path = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks/Subscriptions");
    let body = |path: &str, state: &str, catch_up: bool| {
        json!({
            "Name": path, "Url": endpoint.url(path), "State": state, "CatchUpOnResume": catch_up,
            "Subscriptions": [{"Entity": "Tags", "EventType": "tag.added"}],
        })
    };
    let held = body("/held", "Active", false);
    let skipped = body("/skipped", "Active", true);
    let (held, skipped) =
        (yard.client.post(&path, &held).await, yard.client.post(&path, &skipped).await);
    let put = async |id: &Value, name: &str, state: &str, catch_up: bool| {
        let body = body(name, state, catch_up);
        yard.client.json(Method::PUT, &format!("{path}/{id}"), &body).await.expect(200)
    };
    let (held, skipped) = (held.expect(201)["Id"].clone(), skipped.expect(201)["Id"].clone());
    assert_eq!(put(&held, "/held", "Paused", true).await["CatchUpOnResume"], true);
    put(&skipped, "/skipped", "Paused", false).await;
    let file = root().join("schemas/mypreferences/samples/tag.added.json");
    let mut event: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for number in 0..3 {
        event["id"] = number.to_string().into();
        yard.client.publish(&event).await.expect(202);
    }
    yard.await_deliveries("state=held", 3).await;
    put(&held, "/held", "Active", false).await;
    put(&skipped, "/skipped", "Active", true).await;
    for _ in 0..3 {
        assert_eq!(endpoint.next().await.path, "/held");
    }
    event["id"] = "new".into();
    yard.client.publish(&event).await.expect(202);
    let mut paths = [endpoint.next().await.path, endpoint.next().await.path];
    paths.sort();
    assert_eq!(paths, ["/held", "/skipped"]);
    yard.await_deliveries("state=delivered", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_gets_so_many_deliveries_in_a_cycle() {
    let mut yard = Yard::start().await;
    let mut endpoint = Endpoint::start().await;
    let webhooks = format!("/mypreferences/Profiles/v4/{TENANT}/Webhooks");
    let body = json!({
        "Name": "x",
        "Url": endpoint.url("/x"),
        "State": "Active",
        "Subscriptions": [{"Entity": "Tags", "EventType": "tag.added"}],
    });
    yard.client.post(&format!("{webhooks}/Subscriptions"), &body).await.expect(201);
    let settings = json!({"Settings": {"MaxConcurrentRequests": 50, "Duration": 2}});
    let path = format!("{webhooks}/Settings");
    yard.client.json(Method::PUT, &path, &settings).await.expect(200);
    // What was set holds after a restart, too.
    yard.restart().await;

    let file = root().join("schemas/mypreferences/samples/tag.added.json");
    let event: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let with_id = |number: usize| {
        let mut event = event.clone();
        event["id"] = number.to_string().into();
        event
    };
    let batch: Value = (0..60).map(with_id).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    yard.client.call(Method::POST, "/v1/events", &headers, batch.to_string()).await.expect(202);
    let mut arrived = Vec::new();
    for _ in 0..60 {
        endpoint.next().await;
        arrived.push(std::time::Instant::now());
    }
    // The 51st waits for the next cycle, which began with the first.
    assert!((arrived[50] - arrived[49]).as_millis() >= 500, "{:?}", arrived[50] - arrived[49]);
}
