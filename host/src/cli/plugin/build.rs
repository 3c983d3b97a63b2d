//! `hookyard plugin build`

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use super::local::Local;
use super::project::Project;
use crate::cli::print::say;

pub(super) fn run(project: &Project) -> anyhow::Result<()> {
    let start = Instant::now();
    for need in &project.needs {
        let found = shell(project, &need.test)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot run `sh`")?;
        if !found.success() {
            bail!("the build needs something that is not here: {}", need.cure);
        }
    }
    for command in &project.build {
        let status = shell(project, command).status().context("cannot run `sh`")?;
        ensure!(status.success(), "the build failed: `{command}` ended with {status}");
    }
    let built = start.elapsed();
    let file = project.read_file()?;
    let local = Local::new(Vec::new())?;
    let bytes_max = local.settings.plugin_upload_bytes_max;
    let uploaded = local.upload(&file, is_script(project))?;
    say!("{}  {}", project.name, project.file.display())?;
    say!("  digest    {}", uploaded.digest)?;
    say!("  size      {} bytes", file.len())?;
    let world = serde_json::to_string(&uploaded.world).expect("a world is JSON");
    say!("  world     {}", world.trim_matches('"'))?;
    say!("  imports   {}", uploaded.imports.join(", "))?;
    say!("  built in  {:.1} s, compiled in {:.1} s", built.as_secs_f64(), {
        uploaded.compile_time.as_secs_f64()
    })?;
    if file.len() > bytes_max {
        say!(
            "  note: a router takes {bytes_max} bytes unless its operator allows more \
                  (`plugin-upload-bytes-max`)"
        )?;
    }
    Ok(())
}

/// Whether the plugin is a script that is uploaded as it is.
pub(super) fn is_script(project: &Project) -> bool {
    project.file.extension().is_some_and(|it| it == "js")
}

fn shell(project: &Project, command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(&project.folder).stdin(Stdio::null());
    // What is built is looked for in the folder.
    shell.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET_DIR");
    shell
}
