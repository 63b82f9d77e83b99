//! The allocator of the test binary. It counts blocks, and looks for secrets in each block that is freed.
//!
//! An allocator cannot be written without `unsafe` code.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

/// The text that the scan looks for. The letter after the mark names the owner of the secret, a test. So
/// tests in the same process do not disturb each other.
pub(crate) const MARK: &str = "sEcReT-pArT-4711-";

static FOUND: [AtomicUsize; 52] = [const { AtomicUsize::new(0) }; 52];

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static FREED: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Scanning = Scanning;

struct Scanning;

/// How many blocks that held the secret of `owner` were freed so far, by any thread.
pub(crate) fn found(owner: char) -> usize {
    FOUND[index(owner as u8).expect("an owner from a to z or from A to Z")].load(Ordering::SeqCst)
}

/// How many blocks this thread allocates while `f` runs.
pub(crate) fn allocations_in<T>(f: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.get();
    let result = f();
    (ALLOCATIONS.get() - before, result)
}

/// How many more blocks this thread allocates than it frees while `f` runs.
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
        // This fails while the thread ends. No test needs the count then.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`. The block is zeroed, so that the scan never
        // reads uninitialised bytes.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let _ = FREED.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller gives a block of this allocator, with its layout.
        unsafe {
            scan(block, layout.size());
            System.dealloc(block, layout);
        }
    }

    /// Always moves the block, so that a buffer that grows or shrinks always frees its old block.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller gives a block of this allocator, with its layout, and a valid size. The new
        // block does not overlap the old block.
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
    // SAFETY: the caller promises that these bytes are initialised.
    let bytes = unsafe { std::slice::from_raw_parts(block, size) };
    let mark = MARK.as_bytes();
    for start in memchr::memchr_iter(mark[0], bytes) {
        let owner = bytes[start..]
            .strip_prefix(mark)
            .and_then(|rest| index(*rest.first()?));
        if let Some(owner) = owner {
            FOUND[owner].fetch_add(1, Ordering::SeqCst);
            // The scan counts blocks, so it stops at the first secret in a block.
            return;
        }
    }
}
