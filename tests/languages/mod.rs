//! Plugins in every language, taken from nothing to a delivery by the commands that their authors type.

mod purity; // a plugin answers the same in whichever process it runs

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::process::{self, Process};
use crate::harness::{Client, Endpoint, PATIENCE, Yard, root};

/// What takes longer from nothing to the first delivery is worth a warning, and no more: much of it is
/// loaded from elsewhere, and the router of a test is not an optimised one.
const TOUR_MAX: Duration = Duration::from_secs(60);
const STEPS: [&str; 6] = ["new", "build", "test", "push", "attach", "deliver"];

// What the templates have cases for.
const LOSES_ITS_NOTE: &str = "an-order-loses-its-note";
const IS_SMALL: &str = "a-small-order-is-dropped";
const HAS_NO_NUMBER: &str = "an-order-without-a-number-fails";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the toolchains of four languages: `make test-languages`"]
async fn rust_from_nothing_to_a_delivery() {
    tour("rust").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the toolchains of four languages: `make test-languages`"]
async fn typescript_from_nothing_to_a_delivery() {
    tour("typescript").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the toolchains of four languages: `make test-languages`"]
async fn python_from_nothing_to_a_delivery() {
    tour("python").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the toolchains of four languages: `make test-languages`"]
async fn c_from_nothing_to_a_delivery() {
    tour("c").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the toolchains of four languages: `make test-languages`"]
async fn javascript_from_nothing_to_a_delivery() {
    tour("javascript").await;
}

async fn tour(language: &str) {
    let work = tempfile::tempdir().unwrap();
    let store = work.path().join("store.sqlite");
    let token = process::token(&store, "acme");
    // A tour takes minutes, in which somebody may build another binary.
    let program = work.path().join("hookyard");
    fs::copy(process::binary(), &program).unwrap();
    let program = program.to_str().unwrap();
    let mut serve = hookyard(program);
    serve.args(["serve", "--store", &format!("sqlite:{}", store.display())]);
    // Each build is another file, which nobody compiles again.
    serve.env("HOOKYARD_PLUGIN_CACHE", work.path().join("plugins"));
    let router = Process::start(serve);
    let mut endpoint = Endpoint::start().await;
    let name = format!("{language}-orders");
    let folder = work.path().join(&name);
    let client = router.client(&token);
    let author = Author { program, language, name, folder, client };

    // The test harness has begun a line.
    println!();
    let mut last = Instant::now();
    let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
    author.begin();
    let new = lap();
    author.build();
    let build = lap();
    author.test();
    let test = lap();
    author.push();
    let push = lap();
    author.attach(&endpoint).await;
    let attach = lap();
    author.deliver(&mut endpoint).await;
    let deliver = lap();
    show_times(language, &[new, build, test, push, attach, deliver]);

    author.what_is_not_delivered_says_why().await;
    author.what_it_writes_is_shown();
    author.it_is_tried();
    author.a_wrong_case_fails_and_is_put_right();
    assert!(router.terminate().success());
}

/// The program, which takes plugins with an interpreter of Python in them. To compile one of these takes
/// a program that is not optimised about half of the time that there usually is.
fn hookyard(program: &str) -> Command {
    let mut command = process::command(program);
    command.env("HOOKYARD_PLUGIN_UPLOAD_BYTES_MAX", "25165824");
    command.env("HOOKYARD_PLUGIN_COMPILE_SECONDS", "300");
    command
}

/// A table of one row. `scripts/languages` finds it by its first character.
fn show_times(language: &str, times: &[Duration; STEPS.len()]) {
    let total: Duration = times.iter().sum();
    let head: String = STEPS.iter().map(|it| format!("{it:>8} ")).collect();
    let row: String = times.iter().map(|it| format!("{:>6.2} s ", it.as_secs_f64())).collect();
    println!("| {:10} {head}{:>8}", "language", "total");
    println!("| {language:10} {row}{:>6.2} s", total.as_secs_f64());
    if total > TOUR_MAX {
        println!("| warning: {language} took more than {} s", TOUR_MAX.as_secs());
    }
}

/// Somebody who writes a plugin, in a folder.
struct Author<'a> {
    program: &'a str,
    language: &'a str,
    name: String,
    folder: PathBuf,
    client: Client,
}

impl Author<'_> {
    fn begin(&self) {
        match self.language {
            "javascript" => self.write_script(),
            language => {
                let mut new = self.command(&["new", "--lang", language]);
                new.arg(&self.name).current_dir(self.folder.parent().unwrap());
                run(new, 0);
            }
        }
    }

    /// What the templates do, as a script: one file, which nobody has to build.
    fn write_script(&self) {
        let cases = self.folder.join("cases");
        fs::create_dir_all(&cases).unwrap();
        let toml = format!("name = \"{}\"\nfile = \"orders.js\"\n", self.name);
        fs::write(self.folder.join("hookyard.toml"), toml).unwrap();
        fs::write(self.folder.join("orders.js"), SCRIPT.replace("{{name}}", &self.name)).unwrap();
        for (name, case) in read_cases(&root().join("plugins/templates/c/cases")) {
            let case = case.to_string().replace("{{name}}", &self.name);
            fs::write(cases.join(name + ".json"), case).unwrap();
        }
    }

    fn build(&self) {
        let said = match self.language {
            "rust" => {
                // Cargo is to use the toolchain for WebAssembly that was set up, of whichever kind.
                let find = r#". "$0" && exec "$@""#;
                let mut build = hookyard("bash");
                build.args(["-c", find]).arg(root().join("scripts/wasm32.sh"));
                build.args([self.program, "plugin", "build"]).current_dir(&self.folder);
                run(build, 0)
            }
            _ => run(self.plugin(&["build"]), 0),
        };
        assert!(said.contains("  digest    sha256:"), "{said}");
    }

    fn test(&self) {
        let said = run(self.plugin(&["test"]), 0);
        for (name, _) in read_cases(&self.folder.join("cases")) {
            assert!(said.contains(&format!("ok     {name}: ")), "{said}");
        }
    }

    fn push(&self) {
        let push = match self.language {
            "javascript" => self.plugin(&["push", "--name", &self.name, "orders.js"]),
            _ => self.plugin(&["push"]),
        };
        let said = run(push, 0);
        assert!(said.contains(&format!("pushed {}: sha256:", self.name)), "{said}");
    }

    async fn attach(&self, endpoint: &Endpoint) {
        let url = endpoint.url("/hook");
        let body = json!({"name": self.name, "url": url, "filters": [{"type": "order.*"}]});
        let made = self.client.post("/v1/subscriptions", &body).await.expect(201);
        let path = format!("/v1/subscriptions/{}/steps", made["id"].as_str().unwrap());
        let steps = json!({"steps": [{"plugin": self.name, "config": {"minimum": 100}}]});
        self.client.json(Method::PUT, &path, &steps).await.expect(200);
    }

    async fn deliver(&self, endpoint: &mut Endpoint) {
        let case = self.case(LOSES_ITS_NOTE);
        self.client.publish(&case["event"]).await.expect(202);
        let delivered = endpoint.next().await.json();
        assert_eq!(delivered["checkedby"], self.name);
        assert_eq!(delivered["data"], case["expect"]["event"]["data"]);
        assert_eq!(delivered["data"]["internal_note"], Value::Null);
    }

    async fn what_is_not_delivered_says_why(&self) {
        let states = [(IS_SMALL, "filtered", "too-small"), (HAS_NO_NUMBER, "failed", "no-amount")];
        for (case, state, code) in states {
            self.client.publish(&self.case(case)["event"]).await.expect(202);
            let found = self.client.await_deliveries(&format!("state={state}"), 1).await;
            assert_eq!(found[0]["reason"]["code"], code, "{found:?}");
        }
    }

    fn what_it_writes_is_shown(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = run(self.plugin(&["logs", "--level", "info"]), 0);
            if said.contains(" info  an order of 250 [event ") {
                return;
            }
            assert!(Instant::now() < until, "{said}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn it_is_tried(&self) {
        let said = run(self.plugin(&["try", "--event", &format!("cases/{IS_SMALL}.json")]), 0);
        let answer: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(answer["verdict"], "drop");
        assert_eq!(answer["reason"]["code"], "too-small");
    }

    fn a_wrong_case_fails_and_is_put_right(&self) {
        let right = self.case(LOSES_ITS_NOTE);
        let mut wrong = right.clone();
        wrong["expect"] = json!({"verdict": "pass"});
        let path = self.folder.join("cases").join(format!("{LOSES_ITS_NOTE}.json"));
        fs::write(path, wrong.to_string()).unwrap();
        let said = run(self.plugin(&["test"]), 1);
        assert!(said.contains(&format!("FAILED {LOSES_ITS_NOTE}: ")), "{said}");
        assert!(said.ends_with("hookyard: 1 failed\n"), "{said}");
        run(self.plugin(&["test", "--update"]), 0);
        let written = self.case(LOSES_ITS_NOTE);
        assert_eq!((&written["config"], &written["event"]), (&right["config"], &right["event"]));
        for member in ["verdict", "event", "reason"] {
            assert_eq!(written["expect"][member], right["expect"][member], "{member}");
        }
    }

    fn case(&self, name: &str) -> Value {
        read_json(&self.folder.join("cases").join(format!("{name}.json")))
    }

    fn plugin(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.current_dir(&self.folder);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = hookyard(self.program);
        command.arg("plugin").args(arguments);
        command.env("HOOKYARD_URL", self.client.url(""));
        command.env("HOOKYARD_TOKEN", self.client.token().unwrap());
        command
    }
}

/// Runs a command that has to end with this code, shows what it prints, and answers with that and with
/// what it says of errors.
#[track_caller]
fn run(mut command: Command, code: i32) -> String {
    let words: Vec<_> = command.get_args().map(|it| it.to_string_lossy()).collect();
    let typed = words.iter().skip_while(|it| *it != "plugin").map(|it| format!(" {it}"));
    println!("$ hookyard{}", typed.collect::<String>());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    print!("{said}");
    let said = said + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Name and content of each case in a folder.
fn read_cases(folder: &Path) -> BTreeMap<String, Value> {
    let paths = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    paths.map(|path| (name(&path), read_json(&path))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_do_what_their_cases_say() {
    let yard = Yard::start().await;
    let cases = read_cases(&root().join("plugins/javascript/cases"));
    assert!(!cases.is_empty());
    for (name, case) in cases {
        let body = json!({"event": case["event"], "config": case["config"]});
        let answer = yard.client.post("/v1/plugins/javascript/try", &body).await.expect(200);
        let expected = &case["expect"];
        for member in ["verdict", "event", "events"] {
            assert_eq!(answer[member], expected[member], "{name}: {answer}");
        }
        assert_eq!(answer["reason"]["code"], expected["reason"]["code"], "{name}: {answer}");
    }
}

/// What the templates do.
const SCRIPT: &str = r#"const manifest = {
  name: "{{name}}",
  version: "0.1.0",
  summary: "Drops small orders and takes the internal note out of the others",
  configSchema: {
    type: "object",
    properties: { minimum: { type: "number" } },
    required: ["minimum"],
    additionalProperties: false,
  },
};

function transform(event, config) {
  const amount = event.get("/amount");
  if (typeof amount !== "number") return fail("no-amount", "there is no number at `/amount`");
  if (amount < config.minimum) return drop("too-small");
  log.info(`an order of ${amount}`);
  return replace({ set: { checkedby: "{{name}}" }, edits: { "/internal_note": undefined } });
}
"#;
