//! The image of a plugin that has taken its configuration: a component whose memory begins as
//! `configure` has left it, so that runs begin there.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::Store;
use wasmtime::component::{ComponentNamedList, Instance, Lift, WasmList};
use wasmtime_wizer::{ComponentContext, ComponentInstanceState, Wizer};

use super::Refusal;
use super::compile::{code, load};
use super::engine::Machine;
use super::run::{Call, Run};

fn impossible(err: &dyn std::fmt::Display) -> Refusal {
    Refusal::new("no-image", format!("no image can be made of it: {err}"))
}

/// The component with functions that show its inside, compiled.
pub(super) fn instrument<'a>(
    machine: &Machine,
    component: &'a [u8],
) -> Result<(ComponentContext<'a>, Vec<u8>), Refusal> {
    let (context, instrumented) =
        Wizer::new().instrument_component(component).map_err(|err| impossible(&err))?;
    Ok((context, code(machine, &instrumented)?))
}

/// The component as it is after `configure`.
pub(super) fn snapshot(
    machine: &Machine,
    context: &ComponentContext<'_>,
    code: &[u8],
    config: &str,
) -> Result<Vec<u8>, Refusal> {
    let plugin = load(machine, code)?;
    let mut call = Call::on_trial(machine, &plugin)?;
    call.configure(config)?;
    let (store, instance) = call.into_parts();
    let wizer = Wizer::new();
    let mut inside = Inside { store, instance };
    let snapshot = wizer.snapshot_component(context, &mut inside);
    // Nothing in it waits: the calls below are synchronous.
    let mut snapshot = pin!(snapshot);
    match snapshot.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(component) => component.map_err(|err| impossible(&err)),
        Poll::Pending => Err(impossible(&"reading it did not end")),
    }
}

struct Inside {
    store: Store<Run>,
    instance: Instance,
}

impl Inside {
    fn call<T: Lift + Send + Sync + 'static>(&mut self, instance: &str, function: &str) -> T
    where
        (T,): ComponentNamedList + Lift,
    {
        let known = "the instrumented component exports it";
        let (_, instance) = self.instance.get_export(&mut self.store, None, instance).expect(known);
        let (_, function) =
            self.instance.get_export(&mut self.store, Some(&instance), function).expect(known);
        let function =
            self.instance.get_typed_func::<(), (T,)>(&mut self.store, function).expect(known);
        function.call(&mut self.store, ()).expect("reading a memory or a global does not trap").0
    }
}

impl ComponentInstanceState for Inside {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        func: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        let list: WasmList<u8> = self.call(instance, func);
        contents(list.as_le_slice(&self.store));
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.call(instance, func)
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.call(instance, func)
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.call::<f32>(instance, func).to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.call::<f64>(instance, func).to_bits()
    }
}
