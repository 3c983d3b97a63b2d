//! What `wit-bindgen` makes of `plugin.wit`: what authors use through [`crate::export!`], and the component
//! types of the worlds, for the section that makes a core module a component.
#![allow(unsafe_code, warnings, reason = "nobody writes it")]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
