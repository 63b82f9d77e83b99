//! The allocator of the test binary: it counts, and it looks for secrets in what is freed.
//!
//! The only file with `unsafe`: an allocator cannot be written without.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

/// What the scan looks for. One more byte, a letter, tells whose secret it is, so that tests that run
/// at the same time, or one after the other in one process, do not disturb each other.
pub(crate) const MARK: &str = "sEcReT-pArT-4711-";

static FOUND: [AtomicUsize; 52] = [const { AtomicUsize::new(0) }; 52];

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static FREED: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Scanning = Scanning;

struct Scanning;

/// How many blocks were freed, anywhere, that held the secret of `owner`.
pub(crate) fn found(owner: char) -> usize {
    FOUND[index(owner as u8).expect("an owner from a to z or from A to Z")].load(Ordering::SeqCst)
}

/// How many blocks this thread allocates while `f` runs.
pub(crate) fn allocations_in<T>(f: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.get();
    let result = f();
    (ALLOCATIONS.get() - before, result)
}

/// How many of the blocks that this thread allocates while `f` runs it does not free again.
pub(crate) fn kept_by(f: impl FnOnce()) -> usize {
    let freed = FREED.get();
    let (allocated, ()) = allocations_in(f);
    allocated - (FREED.get() - freed)
}

fn index(owner: u8) -> Option<usize> {
    match owner {
        b'a'..=b'z' => Some(usize::from(owner - b'a')),
        b'A'..=b'Z' => Some(usize::from(owner - b'A') + 26),
        _ => None,
    }
}

// SAFETY: every block comes from `System` and goes back to it with the layout it came with.
unsafe impl GlobalAlloc for Scanning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Fails while the thread ends, when nobody counts any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`. Zeroed, so that the scan never reads
        // what was never written.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let _ = FREED.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller gives a block of ours, with its layout.
        unsafe {
            scan(block, layout.size());
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

/// # Safety
///
/// `block` has `size` initialised bytes.
unsafe fn scan(block: *const u8, size: usize) {
    // SAFETY: as the caller says.
    let bytes = unsafe { std::slice::from_raw_parts(block, size) };
    let mark = MARK.as_bytes();
    for start in memchr::memchr_iter(mark[0], bytes) {
        let owner = bytes[start..]
            .strip_prefix(mark)
            .and_then(|rest| index(*rest.first()?));
        if let Some(owner) = owner {
            FOUND[owner].fetch_add(1, Ordering::SeqCst);
            // Blocks are counted, not secrets.
            return;
        }
    }
}
