//! An allocator that looks for the secrets in each block that is freed.
//!
//! The only file of this package with `unsafe`: an allocator cannot be written without `unsafe`.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use memchr::memmem;

/// Only characters that a form leaves as they are.
pub(crate) const SECRET: &str = "cLiEnT-sEcReT-4711-with-a-tail";
/// What Base64 makes of `example:` and the secret, without its last characters.
pub(crate) const SECRET_IN_BASE64: &str = "ZXhhbXBsZTpjTGlFblQtc0VjUmVULTQ3MTEtd2l0aC1hLXRh";
pub(crate) const TOKEN: &str = "aCcEsS-tOkEn-4711-with-a-tail";

static WITH_SECRET: AtomicUsize = AtomicUsize::new(0);
static WITH_TOKEN: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Scanning = Scanning;

struct Scanning;

/// The number of blocks that `f` frees while they still hold the client secret, and the same for the token.
pub(crate) fn freed_in(f: impl FnOnce()) -> [usize; 2] {
    let counters = [&WITH_SECRET, &WITH_TOKEN];
    let before = counters.map(|counter| counter.load(SeqCst));
    f();
    [0, 1].map(|index| counters[index].load(SeqCst) - before[index])
}

// SAFETY: every block comes from `System` and goes back to it with the layout it came with.
unsafe impl GlobalAlloc for Scanning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`. Zeroed, so that the scan never reads
        // what was never written.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives a block of ours, with its layout.
        unsafe {
            scan(std::slice::from_raw_parts(block, layout.size()));
            System.dealloc(block, layout);
        }
    }

    /// Always moves, so that a buffer that grows or shrinks always leaves its old block behind.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller gives a block of ours, with its layout, and a size that fits it; the
        // new block does not overlap the old one.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, size.min(layout.size()));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

fn scan(block: &[u8]) {
    let has = |text: &str| memmem::find(block, text.as_bytes()).is_some();
    if has(SECRET) || has(SECRET_IN_BASE64) {
        WITH_SECRET.fetch_add(1, SeqCst);
    }
    if has(TOKEN) {
        WITH_TOKEN.fetch_add(1, SeqCst);
    }
}
