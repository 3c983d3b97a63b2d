//! Plugins that were changed by chance, each time by the same: what is still one runs without harm.

use serde_json::{Value, json};

use super::bytes::Chance;
use super::guests::{TEXT, VERDICT, guest};
use super::{Victim, check_settled};
use crate::harness::plugins::plugin;

const SEED: u64 = 0x00c0_ffee;

/// A bit, a byte, or a piece.
fn changed(chance: &mut Chance, file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    for _ in 0..=chance.below(3) {
        let at = chance.below(file.len());
        let piece = at..(at + chance.below(40)).min(file.len());
        match chance.below(8) {
            0 => file[at] = chance.below(256) as u8,
            1 => file[at] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5)],
            2 => drop(file.drain(piece)),
            3 => {
                let copy = file[piece].to_vec();
                let to = chance.below(file.len());
                file.splice(to..to, copy);
            }
            _ => file[at] ^= 1 << chance.below(8),
        }
        if file.len() < 9 {
            break;
        }
    }
    file
}

async fn fuzz(file: Vec<u8>, config: Value, cuts: usize, changes: usize) {
    let mut victim = Victim::start().await;
    let mut chance = Chance(SEED);
    let cut = (0..cuts).map(|it| file[..file.len() * it / cuts].to_vec());
    let changed = (0..changes).map(|_| changed(&mut chance, &file));
    let mut running = Vec::new();
    for (number, file) in cut.chain(changed).enumerate() {
        let (got, answer) = victim.upload(&format!("f{number}"), file).await;
        assert_ne!(got, "plugin-not-run", "{number} by {SEED:#x}: {}", answer.text);
        if got == "accepted" {
            let answer = victim.try_subscribe(&format!("f{number}"), &config).await;
            assert!([201, 400].contains(&answer.status), "{number}, {SEED:#x}: {}", answer.text);
            if answer.status == 201 {
                running.push(answer.body);
            }
        }
    }
    // A fuzzer whose files are all refused, or none, does not look where it should.
    assert!(!running.is_empty() && running.len() < changes, "{} by {SEED:#x}", running.len());
    victim.publish(json!({"a": [1, {"b": "c"}]})).await;
    for subscription in &running {
        check_settled(&victim.settled(subscription).await);
    }
    victim.check_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_was_changed_by_chance_does_no_harm() {
    let it = guest()
        .does(&format!(
            "(call $log (i32.const 2) (i32.const {TEXT}) (i32.const 2))
             (call $get (i32.const {TEXT}) (i32.const 2) (i32.const 2000))"
        ))
        .bytes(TEXT, b"/a/x")
        .words(VERDICT, &[1, TEXT + 8, 1, 0, 0, 1, TEXT + 24, 1])
        .words(TEXT + 8, &[TEXT + 3, 1, TEXT, 2])
        .words(TEXT + 24, &[TEXT, 2, 0, 0, 0]);
    fuzz(it.module(), json!({}), 40, 250).await;
    fuzz(it.component(), json!({}), 40, 250).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_was_changed_by_chance_does_no_harm() {
    fuzz(plugin("misbehave"), json!({"do": "put-raw", "with": "[1]"}), 8, 40).await;
}
