//! Manners of the providers' APIs: paths, methods and links, and that what has been read can be sent again.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Yard;

#[tokio::test(flavor = "multi_thread")]
async fn providers_answer_for_all_that_is_below_their_base() {
    let yard = Yard::start().await;
    for (path, member) in [
        ("/kajabi", "errors"),
        ("/copernica", "error"),
        ("/vonage", "message"),
        ("/mypreferences", "Message"),
        ("/vision6", "error"),
    ] {
        for rest in ["", "/", "/nowhere", "/a/b/c/"] {
            let answer = yard.client.get(&format!("{path}{rest}")).await;
            assert_eq!(answer.status, 404, "{path}{rest}");
            assert!(!answer.body[member].is_null(), "{path}{rest}: {}", answer.text);
        }
    }
    let accept = [("accept", "*/*, application/vnd.newvoicemedia.v1+json")];
    for path in [
        "/kajabi/v1/hooks",
        "/copernica/v4/webhooks",
        "/copernica/v2/webhooks",
        "/vonage/webhooks/subscriptions",
        "/mypreferences/Profiles/v4/acme/Webhooks/Subscriptions",
    ] {
        for slash in ["", "/"] {
            let path = format!("{path}{slash}");
            let read = yard.client.call(Method::GET, &path, &accept, "").await;
            assert_eq!(read.status, 200, "{path}: {}", read.text);
            let head = yard.client.call(Method::HEAD, &path, &accept, "").await;
            assert_eq!((head.status, &*head.text), (200, ""), "{path}");
            assert_eq!(head.header("content-type"), read.header("content-type"), "{path}");
        }
    }
    yard.client.call(Method::HEAD, "/v1/subscriptions", &[], "").await.expect(200);
    let operator = yard.client.with_token(Some(&yard.token(None, "admin").await));
    for path in ["/kajabi/v1/hooks", "/copernica/v4/webhooks", "/vonage/webhooks/subscriptions"] {
        let answer = operator.call(Method::GET, path, &accept, "").await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text);
        assert!(answer.text.contains("an account is needed"), "{path}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_absolute_and_what_a_proxy_says_counts_where_it_is_believed() {
    let forwarded = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "hooks.example.com, inner"),
        ("accept", "application/json"),
    ];
    let mut yard = Yard::start().await;
    let read = async |yard: &Yard| {
        let answer = yard.client.call(Method::GET, "/kajabi/v1/hooks", &forwarded, "").await;
        assert_eq!(answer.header("vary"), "Accept");
        answer.expect(200)["links"]["self"].as_str().unwrap().to_owned()
    };
    let link = read(&yard).await;
    assert!(link.starts_with(&yard.client.url("/kajabi/v1/hooks?")), "{link}");
    yard.change_settings(|it| it.forwarded_headers = Some(true)).await;
    let link = read(&yard).await;
    assert!(link.starts_with("https://hooks.example.com/kajabi/v1/hooks?"), "{link}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_been_read_can_be_sent_again() {
    let yard = Yard::start().await;
    let accept = ("accept", "application/vnd.newvoicemedia.v1+json");
    let json_type = ("content-type", "application/json");
    let body = json!({"name": "calls", "url": "https://192.88.98.1/", "events": ["channel.*"]});
    let all = "/vonage/webhooks/subscriptions";
    // The provider's own `curl` calls the body a form.
    let form = ("content-type", "application/x-www-form-urlencoded");
    let made =
        yard.client.call(Method::POST, all, &[accept, form], body.to_string()).await.expect(200);
    let one = format!("{all}/{}", made["subscriptionId"].as_str().unwrap());
    let read = yard.client.call(Method::GET, &one, &[accept], "").await.expect(200);
    let again = yard.client.call(Method::PATCH, &one, &[accept, json_type], read.to_string()).await;
    assert_eq!(again.expect(200), read);
    let other = json!({"subscriptionId": "another"}).to_string();
    yard.client.call(Method::PATCH, &one, &[accept, json_type], other).await.expect(400);

    let body = json!({"handler": "https://192.88.98.1/", "trigger": "click", "callers": []});
    let made = yard.client.post("/copernica/v3/webhooks", &body).await;
    let id = made.header("x-created").to_owned();
    assert_eq!(made.header("x-location"), yard.client.url(&format!("/copernica/v3/webhook/{id}")));
    let one = format!("/copernica/v4/webhook/{id}");
    let read = yard.client.get(&one).await.expect(200);
    yard.client.json(Method::PUT, &one, &read).await.expect(204);
    assert_eq!(yard.client.get(&one).await.expect(200), read);
    yard.client
        .json(
            Method::PUT,
            &one,
            &json!({"ID": "77", "handler": "https://192.88.98.1/", "trigger": "open"}),
        )
        .await
        .expect(400);

    let body = json!({"Name": "x", "Url": "https://192.88.98.1/", "CatchUpOnResume": true,
                      "Subscriptions": [{"Entity": "Tags", "EventType": "tag.added"}]});
    let all = "/mypreferences/Profiles/v4/acme/Webhooks/Subscriptions";
    let made = yard.client.post(all, &body).await.expect(201);
    assert_eq!(made["CatchUpOnResume"], true);
    let one = format!("{all}/{}", made["Id"]);
    assert_eq!(yard.client.json(Method::PUT, &one, &made).await.expect(200), made);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attribute_that_subscriptions_select_by_is_what_the_data_say() {
    let yard = Yard::start().await;
    let publish = async |format: &str, file: &str, change: &dyn Fn(&mut Value)| {
        let file = crate::harness::root().join(format!("schemas/{format}/samples/{file}.json"));
        let mut it: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        it["id"] = uuid::Uuid::now_v7().to_string().into();
        change(&mut it);
        yard.client.publish(&it).await
    };
    let without =
        |name: &'static str| move |it: &mut Value| _ = it.as_object_mut().unwrap().remove(name);
    let other = |name: &'static str| move |it: &mut Value| it[name] = "999".into();
    for (format, file, name) in
        [("vision6", "contact.created", "listid"), ("copernica", "create", "database")]
    {
        let taken = publish(format, file, &without(name)).await.expect(202);
        let kept = yard.client.get(&format!("/v1/events/{}", taken["id"].as_str().unwrap())).await;
        assert!(kept.text.contains(&format!("[\"{name}\",")), "{}", kept.text);
        assert_eq!(publish(format, file, &other(name)).await.fields(), [name]);
    }
    assert_eq!(publish("copernica", "click", &without("database")).await.fields(), ["database"]);
}
