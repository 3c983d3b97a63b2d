//! What [`crate::export!`] expands to.

use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;

use crate::bindings::exports::hookyard::plugin::lifecycle::Manifest;
use crate::{Context, Decision, Event, Filter, Level, Transform, Verdict};

pub use crate::bindings::{FILTER_WORLD, PLUGIN_WORLD, TRANSFORM_WORLD};

/// Makes a type with [`Filter`], [`Transform`] or both the plugin of this crate.
///
/// Name, version and summary are those of the crate. With `reads`, the router lets the plugin see
/// the values at these JSON Pointers and nothing else of an event's data.
///
/// ```
/// # use hookyard_plugin::prelude::*;
/// # #[derive(Deserialize, JsonSchema)]
/// # struct Paid {}
/// # impl Filter for Paid {
/// #     fn filter(&self, event: &Event, _: &Context) -> Result<Decision> {
/// #         Ok(Decision::accept_if(event.get("/paid")? == Some(true), "unpaid"))
/// #     }
/// # }
/// export!(Paid: filter, reads: ["/paid"]);
/// ```
#[macro_export]
macro_rules! export {
    ($plugin:ty: filter $(, reads: $reads:expr)? $(,)?) => {
        $crate::__export!($plugin, FILTER_WORLD, [filter], [$($reads)?]);
    };
    ($plugin:ty: transform $(, reads: $reads:expr)? $(,)?) => {
        $crate::__export!($plugin, TRANSFORM_WORLD, [transform], [$($reads)?]);
    };
    ($plugin:ty: filter + transform $(, reads: $reads:expr)? $(,)?) => {
        $crate::__export!($plugin, PLUGIN_WORLD, [filter transform], [$($reads)?]);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($plugin:ty, $world:ident, [$($export:ident)+], [$($reads:expr)?]) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Component;

            static CONFIGURED: std::sync::OnceLock<$plugin> = std::sync::OnceLock::new();

            impl $crate::bindings::exports::hookyard::plugin::lifecycle::Guest for Component {
                fn describe() -> $crate::bindings::exports::hookyard::plugin::lifecycle::Manifest {
                    let reads: &[&[&str]] = &[$(&$reads)?];
                    $crate::exports::manifest::<$plugin>(
                        env!("CARGO_PKG_NAME"),
                        env!("CARGO_PKG_VERSION"),
                        env!("CARGO_PKG_DESCRIPTION"),
                        reads.first().copied(),
                    )
                }

                fn configure(config: String) -> Result<(), String> {
                    let plugin = $crate::exports::configured(&config)?;
                    CONFIGURED.set(plugin).map_err(|_| "configured twice".to_owned())
                }
            }

            $crate::bindings::exports::hookyard::plugin::lifecycle::__export_hookyard_plugin_lifecycle_1_0_0_cabi!(
                Component with_types_in $crate::bindings::exports::hookyard::plugin::lifecycle
            );
            $($crate::__export_function!($export);)+

            #[unsafe(link_section = "component-type:hookyard-plugin")]
            static WORLD: [u8; $crate::exports::$world.len()] =
                *$crate::exports::$world.first_chunk().unwrap();
        };

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            $($crate::__check_function!($plugin, $export);)+
            let _: &[&[&str]] = &[$(&$reads)?];
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_function {
    (filter) => {
        impl $crate::bindings::exports::hookyard::plugin::filter::Guest for Component {
            fn filter(context: $crate::Context) -> $crate::Decision {
                $crate::exports::filter(CONFIGURED.get(), &context)
            }
        }
        $crate::bindings::exports::hookyard::plugin::filter::__export_hookyard_plugin_filter_1_0_0_cabi!(
            Component with_types_in $crate::bindings::exports::hookyard::plugin::filter
        );
    };
    (transform) => {
        impl $crate::bindings::exports::hookyard::plugin::transform::Guest for Component {
            fn transform(context: $crate::Context) -> $crate::Verdict {
                $crate::exports::transform(CONFIGURED.get(), &context)
            }
        }
        $crate::bindings::exports::hookyard::plugin::transform::__export_hookyard_plugin_transform_1_0_0_cabi!(
            Component with_types_in $crate::bindings::exports::hookyard::plugin::transform
        );
    };
}

/// Off wasm32 nothing is exported, but what would not compile there does not compile here either.
#[doc(hidden)]
#[macro_export]
macro_rules! __check_function {
    ($plugin:ty, filter) => {
        let _ = <$plugin as $crate::Filter>::filter;
    };
    ($plugin:ty, transform) => {
        let _ = <$plugin as $crate::Transform>::transform;
    };
}

pub fn manifest<T: schemars::JsonSchema>(
    name: &str,
    version: &str,
    summary: &str,
    reads: Option<&[&str]>,
) -> Manifest {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    Manifest {
        name: name.to_owned(),
        version: version.to_owned(),
        summary: summary.to_owned(),
        config_schema: Some(schema.as_value().to_string()),
        reads: reads.map(|pointers| pointers.iter().map(|it| (*it).to_owned()).collect()),
    }
}

pub fn configured<T: DeserializeOwned>(config: &str) -> Result<T, String> {
    std::panic::set_hook(Box::new(|panic| crate::log(Level::Error, panic)));
    serde_json::from_str(config).map_err(|err| err.to_string())
}

pub fn filter<T: Filter>(plugin: Option<&T>, context: &Context) -> Decision {
    plugin
        .expect("the router configures a plugin before it runs it")
        .filter(&Event::current(), context)
        .unwrap_or_else(|err| panic!("{err}"))
}

pub fn transform<T: Transform>(plugin: Option<&T>, context: &Context) -> Verdict {
    plugin
        .expect("the router configures a plugin before it runs it")
        .transform(&Event::current(), context)
        .unwrap_or_else(|err| Verdict::Fail(err.into()))
}
