//! Events that the last process died of, perhaps. Whatever was being worked on then is tried alone, before
//! anything else is routed; what ends the process again is set aside, so that the router does not die at each start.

use std::sync::Arc;

use hookyard_nouns::clock;
use hookyard_nouns::digest::Digest;
use hookyard_nouns::event::{Event, Tenant};
use hookyard_nouns::rendering::Rendering;

use crate::app::App;
use crate::marks::{Slot, Work};
use crate::render::render;
use crate::store::{self, Death};

/// How often a process may end while it works on something.
const DEATHS_MAX: u32 = 2;

/// Takes in what was being worked on when the last process ended, and tries once more what has ended one process.
/// To be called before anything is routed: if this process ends meanwhile, it is known by what.
///
/// # Errors
///
/// The store cannot be read or written.
pub async fn try_suspects(app: &Arc<App>) -> store::Result<()> {
    let worked_on = app.was_worked_on.clone();
    for it in app.store.count_deaths(worked_on, clock::now_ms()).await? {
        let Death { tenant, work, count } = it;
        let (event, rendering) = (work.event, work.rendering);
        if count >= DEATHS_MAX {
            tracing::error!(%tenant, %event, ?rendering, "set aside: it has ended the process twice");
            app.set_aside.add(work);
        } else if try_alone(app, tenant, work).await? {
            app.store.forget_deaths(event).await?;
        }
    }
    Ok(())
}

/// Answers whether there was nothing wrong with it, or nothing is left to be tried.
async fn try_alone(app: &Arc<App>, tenant: Tenant, work: Work) -> store::Result<bool> {
    let event = match app.store.event(&tenant, work.event).await {
        Ok(Some(event)) => event,
        Ok(None) | Err(store::StoreError::Broken(_)) => return Ok(true),
        Err(err) => return Err(err),
    };
    tracing::warn!(%tenant, event = %event.id, "was worked on when the last process ended; trying it alone");
    let rendering = match work.rendering {
        Some(hash) => app.store.rendering(&tenant, hash).await?.map(|it| (hash, it)),
        None => None,
    };
    let tried = {
        let app = Arc::clone(app);
        move |slot: &mut Slot| try_on_worker(&app, &event, rendering, slot)
    };
    // What panics does not end a process.
    Ok(app.workers.ask(&Some(tenant), 0, tried).await.unwrap_or(true))
}

/// Answers whether all of it could be tried.
fn try_on_worker(
    app: &App,
    event: &Arc<Event>,
    only: Option<(Digest, Rendering)>,
    slot: &mut Slot,
) -> bool {
    slot.mark(Work { event: event.id, rendering: None });
    let rendering = only.map(|(hash, it)| (hash, Arc::new(it))).or_else(|| {
        // Where several want it, each rendering has been marked by itself before its bodies were made.
        let wanted = app.index().matching(event);
        let only = wanted.first().filter(|_| wanted.len() == 1)?;
        Some((only.rendering_hash, Arc::clone(&only.rendering)))
    });
    let is_tried = rendering.is_none_or(|(hash, rendering)| {
        slot.mark(Work { event: event.id, rendering: Some(hash) });
        crate::fault::point("trying");
        let (format, bytes_max) = (app.format(&rendering.format), app.settings.delivery_bytes_max);
        render(&app.runtime, format, event, &rendering, bytes_max).is_ok()
    });
    slot.clear();
    is_tried
}
