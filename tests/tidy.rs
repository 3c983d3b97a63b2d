//! The project itself: what its rooms know, and what it says of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::root;

/// All files below a folder with an ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|it| it == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    ["host", "plugins", "tests"]
        .iter()
        .flat_map(|folder| files(&root().join(folder), "rs"))
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn an_outside_crate_is_named_in_its_own_room() {
    let rooms = [
        ("axum", &["host/src/api/"][..]),
        ("jsonschema", &["host/src/schemas/"]),
        ("reqwest", &["host/src/cli/client.rs"]),
        ("hyper", &["host/src/send/", "host/src/api/"]),
        ("hyper_util", &["host/src/send/", "host/src/api/listen/"]),
        ("h2", &["host/src/send/"]),
        ("hickory_resolver", &["host/src/dns/"]),
        ("rustls", &["host/src/send/"]),
        ("tokio_rustls", &["host/src/send/"]),
        ("rusqlite", &["host/src/store/sqlite/"]),
        ("crc32fast", &["host/src/store/sqlite/"]),
        ("wasmtime", &["host/src/wasm/"]),
        ("wasmparser", &["host/src/wasm/"]),
        ("wit_component", &["host/src/wasm/"]),
        ("chacha20poly1305", &["host/src/secret.rs"]),
        ("jiff", &["host/nouns/src/clock.rs"]),
        ("tracing_subscriber", &["host/src/telemetry.rs"]),
    ];
    for (name, text) in sources().iter().filter(|(name, _)| name.starts_with("host/")) {
        for (outside, own) in rooms {
            let named = text.lines().any(|line| {
                let code = line.split("//").next().unwrap();
                code.match_indices(outside).any(|(at, _)| {
                    let before = code[..at].chars().next_back();
                    code[at + outside.len()..].starts_with("::")
                        && !before.is_some_and(|it| it.is_alphanumeric() || it == '_' || it == ':')
                })
            });
            assert!(
                !named || own.iter().any(|room| name.starts_with(room)),
                "{name} knows {outside}"
            );
        }
    }
}

#[test]
fn rooms_know_what_is_below_them() {
    let above = [
        ("api", &["router", "dispatch", "cli"][..]),
        ("router", &["api", "dispatch", "cli", "manage"]),
        ("dispatch", &["api", "router", "cli"]),
        ("store", &["api", "router", "dispatch", "cli", "app", "wasm", "formats", "manage"]),
        ("wasm", &["api", "router", "dispatch", "cli", "app", "store", "formats", "manage"]),
        ("formats", &["api", "router", "dispatch", "cli", "app", "store", "wasm", "manage"]),
        ("index", &["api", "router", "dispatch", "cli", "app", "store", "wasm", "formats"]),
        ("render", &["api", "router", "dispatch", "cli", "app", "store", "manage"]),
    ];
    for (name, text) in sources() {
        let Some(path) = name.strip_prefix("host/src/") else { continue };
        let room = path.trim_end_matches(".rs").split('/').next().unwrap();
        let Some((_, unknown)) = above.iter().find(|(it, _)| *it == room) else { continue };
        for other in *unknown {
            let code = text.split("#[cfg(test)]").next().unwrap();
            assert!(!code.contains(&format!("crate::{other}::")), "{name} knows `{other}`");
        }
    }
}

#[test]
fn every_file_says_what_it_owns() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name} does not begin with `//! `");
    }
}

#[test]
fn every_file_is_part_of_the_program() {
    for (name, _) in sources() {
        let path = Path::new(&name);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let folder = path.parent().unwrap();
        if ["lib", "main", "build"].contains(&stem) {
            continue;
        }
        let (parents, module) = if stem == "mod" {
            let above = folder.parent().unwrap();
            (vec![above.join("mod.rs"), above.join("lib.rs"), above.join("main.rs")], folder)
        } else {
            (
                ["mod.rs", "lib.rs", "main.rs", "build.rs"].map(|it| folder.join(it)).to_vec(),
                Path::new(stem),
            )
        };
        let module = module.file_stem().unwrap().to_str().unwrap();
        let declared = parents.iter().any(|parent| {
            let text = std::fs::read_to_string(root().join(parent)).unwrap_or_default();
            text.lines().any(|line| {
                let line = line.split("//").next().unwrap().trim();
                line.ends_with(&format!("mod {module};"))
            })
        });
        assert!(declared, "nothing declares {name}");
    }
}

#[test]
fn files_have_a_maximum() {
    // Tests are data and sentences; they may be long.
    let lines = |text: &str| text.split("#[cfg(test)]").next().unwrap().lines().count();
    let sizes = sources().into_iter().map(|(name, text)| (name, lines(&text)));
    let too_long: Vec<_> = sizes.filter(|(_, lines)| *lines > 400).collect();
    assert!(too_long.is_empty(), "more than 400 lines: {too_long:?}");
}

#[test]
fn the_map_names_every_room() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let map = readme.split("## The map").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut rooms = BTreeSet::new();
    for sources in ["host/src", "host/nouns/src"] {
        for entry in std::fs::read_dir(root().join(sources)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            rooms.insert(name.trim_end_matches(".rs").to_owned());
        }
    }
    for entry in std::fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() && !name.starts_with('.') && name != "target" {
            rooms.insert(name);
        }
    }
    for room in rooms {
        assert!(map.contains(&format!("`{room}")), "the map does not name `{room}`");
    }
}

#[test]
fn the_settings_are_documented() {
    let path = root().join("docs/configuration.md");
    let before = std::fs::read_to_string(&path).unwrap();
    let (head, _) = before.split_once("| setting |").unwrap();
    let mut table = String::from("| setting | default | meaning |\n| --- | --- | --- |\n");
    for (name, default, meaning) in hookyard::config::table() {
        table.push_str(&format!("| `{name}` | `{default}` | {meaning} |\n"));
    }
    let wanted = format!("{head}{table}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, wanted).unwrap();
    } else {
        assert_eq!(before, wanted, "`UPDATE=1 make test` writes it anew");
    }
}

/// A plugin that somebody begins has what the SDK is built and tested with here.
#[test]
fn the_template_in_rust_has_our_versions() {
    let read = |path: &str| -> toml::Table {
        std::fs::read_to_string(root().join(path)).unwrap().parse().unwrap()
    };
    let ours = read("Cargo.toml");
    let sdk = read("plugins/sdk/Cargo.toml");
    let template = read("plugins/templates/rust/Cargo.toml");
    assert_eq!(template["workspace"]["package"], ours["workspace"]["package"]);
    assert_eq!(template["workspace"]["members"], toml::Value::from(vec!["sdk"]));
    assert_eq!(template["package"]["edition"], ours["workspace"]["package"]["edition"]);

    let dependencies = template["workspace"]["dependencies"].as_table().unwrap();
    let all = [&template["dependencies"], &sdk["dependencies"]];
    let used: BTreeSet<_> = all.iter().flat_map(|it| it.as_table().unwrap().keys()).collect();
    assert_eq!(dependencies.keys().collect::<BTreeSet<_>>(), used);
    for (name, wanted) in dependencies {
        let our = &ours["workspace"]["dependencies"][name];
        if name == "hookyard-plugin" {
            assert_eq!(wanted["path"].as_str(), Some("sdk"));
            assert_eq!(our["path"].as_str(), Some("plugins/sdk"));
            assert_eq!(our["version"], template["workspace"]["package"]["version"]);
            continue;
        }
        let version = |it: &toml::Value| it.get("version").unwrap_or(it).clone();
        assert_eq!(version(wanted), version(our), "{name}");
    }
    let mut guest = ours["profile"]["guest"].as_table().unwrap().clone();
    guest.remove("inherits");
    // Our release has these checks, and a release has none of them unless it says so.
    assert_eq!(guest.remove("overflow-checks"), Some(false.into()));
    assert_eq!(template["profile"]["release"].as_table(), Some(&guest));
}

#[test]
fn nothing_that_is_built_is_committed() {
    let listed = std::process::Command::new("git").arg("ls-files").current_dir(root()).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let built = [".wasm", ".cwasm", ".so", ".a", ".rlib", ".sqlite"];
    let found: Vec<_> =
        listed.lines().filter(|it| built.iter().any(|ending| it.ends_with(ending))).collect();
    assert_eq!(found, [""; 0]);
}
