//! Memory for one run: taken from the front, never given back.
//!
//! A run has a fresh instance, so whatever it leaves behind goes away with it. Not looking for free
//! blocks, and not touching pages for the bookkeeping of them, makes a short run cheaper.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

struct Bump {
    next: Cell<usize>,
    end: Cell<usize>,
}

#[global_allocator]
static BUMP: Bump = Bump { next: Cell::new(0), end: Cell::new(0) };

const PAGE_BYTES: usize = 64 * 1024;

#[expect(unsafe_code, reason = "a symbol of the linker is declared this way")]
unsafe extern "C" {
    /// The first byte after the data, set by the linker.
    static __heap_base: u8;
}

#[expect(unsafe_code, reason = "wasm32 without the threads feature has one thread")]
unsafe impl Sync for Bump {}

#[expect(unsafe_code, reason = "an allocator is unsafe by its interface")]
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.end.get() == 0 {
            self.end.set(core::arch::wasm32::memory_size(0) * PAGE_BYTES);
            self.next.set(&raw const __heap_base as usize);
        }
        let start = self.next.get().next_multiple_of(layout.align());
        let Some(next) = start.checked_add(layout.size()) else { return std::ptr::null_mut() };
        if self.end.get() < next {
            let pages = (next - self.end.get()).div_ceil(PAGE_BYTES);
            let before = core::arch::wasm32::memory_grow(0, pages);
            if before == usize::MAX {
                return std::ptr::null_mut();
            }
            self.end.set((before + pages) * PAGE_BYTES);
        }
        self.next.set(next);
        start as *mut u8
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // The newest block grows where it is: a buffer that is filled step by step is not copied.
        if block as usize + layout.size() == self.next.get() {
            self.next.set(block as usize);
            let same = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, 1)) };
            if same.is_null() {
                self.next.set(block as usize + layout.size());
            }
            return same;
        }
        let new =
            unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !new.is_null() {
            unsafe { block.copy_to_nonoverlapping(new, layout.size().min(new_size)) };
        }
        new
    }
}
