//! Gives freed memory back to the system: parsing the kernel's BTF leaves some
//! 40 MB of holes in the heap that nothing else would ever use.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "malloc_trim is a C function")
)]

/// Returns free heap pages to the system, where the allocator can.
pub(crate) fn return_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: glibc documents malloc_trim(3) as thread-safe; it takes a
        // number and touches free memory only, which no Rust value refers to.
        unsafe { malloc_trim(0) };
    }
}
