//! What the plugins do, natively: written straight with `serde_json`, bytes in and bytes out. The crates of
//! the plugins themselves show nothing of their types. Only what is read is parsed where that is easy: by
//! the filters and by `split`; the others make a tree, change it and write it.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The data of an event, and what comes of them: none where they do not go on.
pub(crate) type Native = fn(&[u8]) -> Vec<Vec<u8>>;

fn edited(data: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(data).unwrap();
    edit(&mut value);
    vec![serde_json::to_vec(&value).unwrap()]
}

/// As in a router, what goes on unchanged is not copied.
fn passed(passes: bool) -> Vec<Vec<u8>> {
    if passes { vec![Vec::new()] } else { Vec::new() }
}

fn remove(value: &mut Value, name: &str) -> Option<Value> {
    value.as_object_mut()?.remove(name)
}

pub(crate) fn minimize(data: &[u8]) -> Vec<Vec<u8>> {
    edited(data, |it| {
        remove(&mut it["customer"], "mail");
        remove(it, "internal_note");
    })
}

pub(crate) fn alternate_id(data: &[u8]) -> Vec<Vec<u8>> {
    edited(data, |it| it["customer"]["id"] = json!("L-7"))
}

pub(crate) fn filter(data: &[u8]) -> Vec<Vec<u8>> {
    #[derive(Deserialize)]
    struct Order<'a> {
        amount: f64,
        country: &'a str,
    }
    let order: Order<'_> = serde_json::from_slice(data).unwrap();
    passed(order.amount >= 100.0 && ["AT", "DE"].contains(&order.country))
}

pub(crate) fn redact(data: &[u8]) -> Vec<Vec<u8>> {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match name.as_str() {
                        "mail" | "phone" => *value = json!("***"),
                        _ => walk(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    edited(data, walk)
}

pub(crate) fn map(data: &[u8]) -> Vec<Vec<u8>> {
    edited(data, |it| {
        let mail = remove(&mut it["customer"], "mail").unwrap();
        it["contact"] = json!({"email": mail});
        remove(it, "internal_note");
        let title = format!("{} from {}", it["amount"], it["country"].as_str().unwrap());
        it["title"] = title.into();
    })
}

pub(crate) fn sample(data: &[u8]) -> Vec<Vec<u8>> {
    #[derive(Deserialize)]
    struct Order<'a> {
        #[serde(borrow)]
        customer: Customer<'a>,
    }
    #[derive(Deserialize)]
    struct Customer<'a> {
        id: &'a str,
    }
    let order: Order<'_> = serde_json::from_slice(data).unwrap();
    let hash = Sha256::digest(order.customer.id);
    passed(hash[0] < 128)
}

pub(crate) fn split(data: &[u8]) -> Vec<Vec<u8>> {
    #[derive(Deserialize)]
    struct Order<'a> {
        #[serde(borrow)]
        lines: Vec<&'a RawValue>,
    }
    let order: Order<'_> = serde_json::from_slice(data).unwrap();
    order.lines.iter().map(|it| it.get().as_bytes().to_vec()).collect()
}
