//! What the settings come to for plugins.

use anyhow::Context;

use super::Settings;
use crate::wasm::{Budget, Compiler, Limits};

impl Settings {
    /// What a run of a plugin may take, where so many runs go on at the same time.
    pub fn limits(&self, runs_max: u32) -> Limits {
        Limits {
            filter_ms: self.plugin_filter_ms,
            transform_ms: self.plugin_transform_ms,
            configure_ms: self.plugin_configure_ms,
            memory_bytes_max: self.plugin_memory_bytes_max,
            output_bytes_max: self.plugin_output_bytes_max,
            runs_max,
        }
    }

    /// Who compiles plugins.
    ///
    /// # Errors
    ///
    /// This program cannot find itself, or has no compiler in it.
    pub fn compiler(&self) -> anyhow::Result<Compiler> {
        let program = if self.plugin_compiler.as_os_str().is_empty() {
            anyhow::ensure!(
                cfg!(feature = "compiler"),
                "this program has no compiler in it; `plugin-compiler` names one that has"
            );
            std::env::current_exe().context("cannot find this program")?
        } else {
            self.plugin_compiler.clone()
        };
        let budget = Budget {
            seconds: self.plugin_compile_seconds,
            memory_bytes: self.plugin_compile_bytes_max,
            code_bytes: self.code_bytes_max(),
        };
        Ok(Compiler::Child(program, budget))
    }

    /// How large the code of a plugin may be: toolchains make two to four times the file of it.
    fn code_bytes_max(&self) -> u64 {
        const TIMES: u64 = 8;
        // Enough for the plugins that the router brings along.
        const CODE_BYTES_MIN: u64 = 16 << 20;
        const CODE_BYTES_MAX: u64 = 64 << 20;
        let upload_bytes_max = u64::try_from(self.plugin_upload_bytes_max).unwrap_or(u64::MAX);
        upload_bytes_max.saturating_mul(TIMES).clamp(CODE_BYTES_MIN, CODE_BYTES_MAX)
    }
}
